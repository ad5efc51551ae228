"""Exports a run as an archive that runs without spell: a tar stream that is made while it is read.

Values of environment variables, webhooks and secrets are not in it. Links stay links, except those that lead out of a
mounted folder: the export has what they lead to in the same run or upload.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.content.followed import followed
from orchestrator.content.manifest import EXECUTABLE, LINK, Manifest, actual
from orchestrator.errors import CodeFailed, Conflict, NotFound, SnapshotMissing
from orchestrator.lifecycle.context import Context
from orchestrator.records.runs import RunRecord
from orchestrator.service.access import Access, Who
from orchestrator.service.export_packages import packages_of
from orchestrator.service.export_texts import dockerfile, inputs_of, job_file, readme, variables
from orchestrator.service.metrics import Metrics
from orchestrator.service.rerun import refuse_imported
from orchestrator.spec.fields import redacted_spec
from orchestrator.spec.run import RunSpec, to_wire
from orchestrator.spec.validate import read_spec
from orchestrator.states import ACTIVE, spoken

SUMS = "SHA256SUMS"
_CHUNK_BYTES = 1 << 20
_IGNORED = "*\n!code\n!runtime\n!wheels\n!requirements.txt\n!ca.pem\n!command.sh\n"


@dataclass(frozen=True, slots=True)
class _Member:
    """A file, folder or link of the archive."""

    path: str
    data: bytes = b""
    source: Path | None = None
    size: int = 0
    mode: int = 0o644
    link: str = ""
    is_dir: bool = False


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """An export.

    Attributes:
        size_bytes: of all files together.
        warnings: the differences from the run.
        chunks: the tar archive (pax format); all its paths are below `run-N/`.
    """

    run: int
    size_bytes: int
    warnings: list[str]
    chunks: Iterator[bytes]


class Export:
    """Exports runs of one home."""

    def __init__(self, context: Context, access: Access, metrics: Metrics) -> None:
        self._context, self._access, self._sent = context, access, metrics

    def download(self, who: Who, reference: str, *, with_inputs: bool, with_outputs: bool) -> ExportedRun:
        """Export a run.

        Raises:
            NotFound: the run does not exist, or an input that was asked for is gone.
            Conflict: the run is still active, or its code was removed.
        """
        context = self._context
        run = context.store.record(self._access.resolve(who, reference))
        if run.state in ACTIVE:
            raise Conflict(f"Run {run.number} is still {spoken(run.state)}.", f"Wait for it: spell wait {run.number}")
        refuse_imported(run)
        spec = read_spec(run.spec)
        warnings: list[str] = []
        scratch = tempfile.TemporaryDirectory(prefix="export-", dir=context.home.scratch)
        members = [*self._code(run, spec)]
        packages = packages_of(context, run, spec, warnings)
        members += (_Member(f"wheels/{path.name}", source=path, size=path.stat().st_size) for path in packages.wheels)
        members += self._inputs(who, spec) if with_inputs else []
        members += self._outputs(run, with_outputs, warnings)
        members += self._records(run, spec, Path(scratch.name))
        base = self._base(run, spec, warnings)
        if packages.lines:
            members.append(_text("requirements.txt", "\n".join(packages.lines) + "\n"))
        if packages.lines or spec.editables:
            members.append(_text("ca.pem", ""))
        members.append(_text("Dockerfile", dockerfile(run, spec, base, packages)))
        there = {item.path.partition("/")[0] for item in members} | {SUMS}
        members.append(_text("README.md", readme(run, spec, warnings=warnings, there=there)))
        size = sum(item.size for item in members)
        return ExportedRun(run.number, size, warnings, _archive(f"run-{run.number}", members, scratch))

    def _base(self, run: RunRecord, spec: RunSpec, warnings: list[str]) -> str:
        config = self._context.config.docker
        configured = config.gpu_base_image if run.gpus or "gpu" in run.machine_type else config.base_image
        if spec.image.startswith("sha256:"):
            warnings.append("Only the ID of its base image is known: the machine that builds this must have the image.")
        version = ".".join((run.python or spec.python or "3.12").split(".")[:2])
        return spec.image or configured.replace("{version}", version)

    def _code(self, run: RunRecord, spec: RunSpec) -> Iterator[_Member]:
        yield _Member("code", mode=0o755, is_dir=True)
        try:
            manifest = self._context.blobs.tree(spec.code.tree) if spec.code else Manifest(())
        except (SnapshotMissing, CodeFailed):
            raise Conflict(f"The code of run {run.number} is not kept any more.") from None
        if spec.code and spec.code.subdir:
            yield _Member(f"code/{spec.code.subdir}", mode=0o755, is_dir=True)
        for entry in manifest.entries:
            blob, path = self._context.home.blob(entry.digest), f"code/{entry.path}"
            if not blob.exists():
                raise Conflict(f"The code of run {run.number} is incomplete: {entry.path!r} is missing.")
            if entry.mode == LINK:
                yield _Member(path, link=os.fsdecode(blob.read_bytes()))
            else:
                mode = 0o755 if entry.mode == EXECUTABLE else 0o644
                yield _Member(path, source=blob, size=entry.size, mode=mode)

    def _inputs(self, who: Who, spec: RunSpec) -> Iterator[_Member]:
        for resource, _ in inputs_of(spec):
            try:
                path = self._access.path(who, resource)
            except NotFound as error:
                cure = "Export it without inputs."
                raise NotFound(f"The input {resource!r} does not exist any more.", cure) from error
            yield from _tree(path, f"inputs/{actual(resource)}", self._context.home.whole(path))

    def _outputs(self, run: RunRecord, with_outputs: bool, warnings: list[str]) -> Iterator[_Member]:  # noqa: FBT001
        recorded = self._context.store.lineage.outputs(run.number)
        if any(row.sha256 is None for row in recorded.values()):
            warnings.append("Some hashes of outputs are still being computed: they are not in outputs.sha256.")
        lines = [
            _sum(row.sha256, f"outputs/{actual(path)}")
            for path, row in recorded.items()
            if row.sha256 and row.mode != LINK
        ]
        yield _bytes("outputs.sha256", b"".join(lines))
        yield _text("outputs.json", json.dumps([row._asdict() for row in recorded.values()], indent=2))
        if with_outputs and recorded:
            if not self._context.home.run_dir(run.number).is_dir():
                raise NotFound(f"The outputs of run {run.number} do not exist any more.", "Export it without outputs.")
            folder = self._context.home.run_dir(run.number)
            yield from _tree(folder, "outputs", folder)

    def _records(self, run: RunRecord, spec: RunSpec, scratch: Path) -> Iterator[_Member]:
        home = self._context.home
        job, files = job_file(spec)
        yield _text("spec.yaml", job)
        yield from (_text(path, text) for path, text in files.items())
        yield _text("run.json", json.dumps(_shown(run), indent=2))
        yield _text("command.sh", spec.filled_command + "\n")
        yield _text(".dockerignore", _IGNORED)
        if spec.env or spec.secrets:
            yield _text("variables.env", variables(spec))
        if inputs := inputs_of(spec):
            yield _text("inputs.json", json.dumps([self._known(resource, path) for resource, path in inputs], indent=2))
        for name, path in (("log", home.log(run.number)), ("build.log", home.build_log(run.number))):
            yield _Member(name, source=path, size=path.stat().st_size) if path.is_file() else _bytes(name, b"")
        for name in ("orchestrator/__init__.py", "orchestrator/runtime.py"):
            yield _bytes(f"runtime/{name}", (home.runtime / "modules" / name).read_bytes())
        metrics = scratch / "metrics.csv"
        with metrics.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "step", "value", "at"])
            for page in self._sent.pages(run.number):
                writer.writerows([item.name, item.step, repr(item.value), repr(item.at)] for item in page)
        yield _Member("metrics.csv", source=metrics, size=metrics.stat().st_size)

    def _known(self, resource: str, path: str) -> dict[str, Any]:
        kind, name, *below = resource.split("/")
        files = self._context.store.reuse.content(int(name), "/".join(below)) if kind == "runs" else []
        known = [{"path": item.path, "mode": item.mode, "size": item.size, "sha256": item.sha256} for item in files]
        return {"resource": resource, "path": path, "files": known}


def _shown(run: RunRecord) -> Any:
    """A run as JSON, with the redacted spec."""
    return to_wire(dataclasses.replace(run, spec=redacted_spec(run.spec)))


def _text(path: str, text: str) -> _Member:
    return _bytes(path, text.encode(errors="backslashreplace"))


def _bytes(path: str, data: bytes) -> _Member:
    return _Member(path, data=data, size=len(data))


def _tree(root: Path, name: str, bound: Path) -> Iterator[_Member]:
    """A file, or a folder with its contents, writable once it is unpacked. See `followed` for links."""
    status = root.stat()
    if not stat.S_ISDIR(status.st_mode):
        yield _file(name, root, status)
        return
    yield _Member(name, mode=0o755, is_dir=True)
    for item in sorted(followed(root, bound)):
        path = f"{name}/{item.path}"
        if item.link:
            yield _Member(path, link=item.link)
        elif stat.S_ISDIR(item.status.st_mode):
            yield _Member(path, mode=0o755, is_dir=True)
        elif stat.S_ISREG(item.status.st_mode):
            yield _file(path, Path(item.place), item.status)


def _file(path: str, source: Path, status: os.stat_result) -> _Member:
    return _Member(path, source=source, size=status.st_size, mode=0o755 if status.st_mode & stat.S_IXUSR else 0o644)


def _sum(digest: str, path: str) -> bytes:
    """A line of sha256sum; backslashes and line breaks in names are escaped.

    https://www.gnu.org/software/coreutils/manual/html_node/md5sum-invocation.html
    """
    name = os.fsencode(path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != name else b"") + digest.encode() + b"  " + escaped + b"\n"


def _archive(folder: str, members: list[_Member], scratch: tempfile.TemporaryDirectory[str]) -> Iterator[bytes]:
    sums = []
    with scratch:
        for item in members:
            hashing = hashlib.sha256()
            yield _head(folder, item)
            for chunk in _content(item):
                hashing.update(chunk)
                yield chunk
            yield b"\0" * (-item.size % tarfile.BLOCKSIZE)
            if not item.link and not item.is_dir:
                sums.append(_sum(hashing.hexdigest(), item.path))
    last = _bytes(SUMS, b"".join(sums))
    yield _head(folder, last) + last.data + b"\0" * (-last.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _head(folder: str, item: _Member) -> bytes:
    info = tarfile.TarInfo(f"{folder}/{item.path}")
    info.mode, info.size = item.mode, item.size
    if item.link:
        info.type, info.linkname = tarfile.SYMTYPE, item.link
    elif item.is_dir:
        info.type = tarfile.DIRTYPE
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(item: _Member) -> Iterator[bytes]:
    """The bytes of a file, exactly as many as its tar header says."""
    if item.source is None:
        yield item.data
        return
    left = item.size
    with item.source.open("rb") as file:
        while left:
            chunk = file.read(min(_CHUNK_BYTES, left))
            if not chunk:
                raise Conflict(f"{item.path!r} became shorter while it was exported.")
            left -= len(chunk)
            yield chunk
