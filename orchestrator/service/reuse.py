"""Finds an earlier complete run that did the same as a new one would: the same code, environment, command,
parameters, variables and machine, and mounts with the same content.

The fingerprint of a run covers all of this except the content of mounted outputs: their digests are computed later, so
they are compared when a run is reused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence

from orchestrator.content.files import sha256
from orchestrator.content.manifest import LINK, actual
from orchestrator.errors import SpellError
from orchestrator.lifecycle.checkpoints import folder_of
from orchestrator.lifecycle.context import Context
from orchestrator.spec.mounts import Mount, normal_path
from orchestrator.spec.run import RunSpec
from orchestrator.store import NewRun
from orchestrator.store.reuse import Content, ReuseStore

_FORMAT = 1  # raise it when runs with the same fingerprint may have different results
_MOST_LOOKED_AT = 200  # candidates that differ only in their mounts


class Reuse:
    """Compares new runs with those of one home.

    Args:
        context: store, home and tools.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store: ReuseStore = context.store.reuse

    def fingerprint(self, new: NewRun) -> str | None:
        """SHA-256 of everything that determines a run, as canonical JSON; None if that is unknown.

        Args:
            new: the run, with canonical mounts.
        """
        context, spec = self._context, new.spec
        try:
            environment = context.environments.key(context.request(spec))
        except SpellError:  # a local package cannot be read: its build will report that
            return None
        inputs = [self._input(mount) for mount in spec.mounts]
        if None in inputs:
            return None
        content = {
            "format": _FORMAT,
            "executor": [new.executor, *context.executors[new.executor].conditions(spec, new.gpus)],
            "gpus": new.gpus,
            "code": [spec.code.tree, spec.code.subdir] if spec.code else None,
            "command": spec.filled_command,
            "environment": environment,
            "variables": dict(spec.env),
            "secrets": dict(spec.secrets),
            "ignored": [*context.config.ignore, *spec.ignore],
            "mounts": sorted(
                (normal_path(mount.path), *words) for mount, words in zip(spec.mounts, inputs, strict=True) if words
            ),
        }
        if spec.resume or spec.checkpoints:  # else it is what it was before there were these fields
            content["checkpoints"] = [spec.resume, folder_of(spec)]
        if spec.gpu_type or spec.gpu_memory_bytes:
            content["gpu_kind"] = [spec.gpu_type, spec.gpu_memory_bytes]
        if spec.editables:
            content["editables"] = list(spec.editables)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def find(self, new: NewRun) -> int | None:
        """The newest run that can replace this one; None for no such run.

        Archived runs, and runs whose outputs were removed, are not used.
        """
        if new.fingerprint is None:
            return None
        wanted = {normal_path(mount.path): mount.resource for mount in new.spec.mounts}
        for number, outputs_count in self._store.complete(new.fingerprint, _MOST_LOOKED_AT):
            had = {normal_path(path): resource for path, resource in self._store.mounts(number)}
            if outputs_count and not self._context.home.run_dir(number).is_dir():
                continue
            if all(self._is_same(resource, had[path]) for path, resource in wanted.items()):
                return number
        return None

    def warnings(self, spec: RunSpec, earlier: int) -> list[str]:
        """The parts of the spec that an earlier run does not get."""
        had = self._context.store.summary(earlier)
        lost = [f"name {spec.name!r}"] if spec.name not in ("", had.name) else []
        lost += [f"label {label!r}" for label in sorted(set(spec.labels) - set(had.labels))]
        lost += [f"project {spec.project!r}"] if spec.project.lower() not in ("", had.project.lower()) else []
        lost += ["message to a webhook"] if spec.notify else []
        return [f"Run {earlier} stays as it is, without the {', the '.join(lost)}."] if lost else []

    def _input(self, mount: Mount) -> tuple[str, ...] | None:
        """A description of a mount's content at the time of the cast; None if it can never be known."""
        kind, name, *below = mount.resource.split("/")
        if kind == "runs":
            return ("run",)
        tree = self._store.upload_tree(name)
        return ("upload", tree, "/".join(below)) if tree else None

    def _is_same(self, one: str, other: str) -> bool:
        if one == other or one.startswith("uploads/"):  # the fingerprint covers uploads completely
            return True
        ours, theirs = self._content(one), self._content(other)
        if not (ours and theirs) or _is_through_links(one, ours) or _is_through_links(other, theirs):
            return False  # only the kernel knows where a link leads
        if [_looks(item) for item in ours] != [_looks(item) for item in theirs]:
            return False  # they differ without reading a byte
        return self._digests(one, ours) == self._digests(other, theirs)

    def _content(self, resource: str) -> list[Content]:
        _, number, *below = resource.split("/")
        return self._store.content(int(number), "/".join(below))

    def _digests(self, resource: str, content: Sequence[Content]) -> list[str | None]:
        """The digest of each file, computed now if it is missing; a file that is gone equals no other."""
        number = int(resource.split("/")[1])
        found: list[str | None] = []
        computed = []
        for item in content:
            digest = item.sha256
            if digest is None:
                digest = ""
                with contextlib.suppress(OSError):  # a person removed it
                    path = self._context.home.run_dir(number) / actual(item.stored)
                    digest = sha256(path, durably=True) or ""
                computed.append((number, item.stored, digest))
            found.append(digest or f"{resource}/{item.path}")
        if computed:
            self._context.store.set_hashes(computed)
        return found


def _is_through_links(resource: str, content: Sequence[Content]) -> bool:
    """Whether a part of a run's outputs has links, which may lead to other parts; links in all of them lead inside."""
    is_part = resource.count("/") > 1
    return is_part and any(item.mode == LINK for item in content)


def _looks(item: Content) -> tuple[str, str, int]:
    return item.path, item.mode, item.size
