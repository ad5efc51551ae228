"""The work dir of a run, made again for each attempt, with the checkpoints of the attempt before.

work/N/code              the root of the code, in which the command works
work/N/scratch           a folder that may become its HOME
work/N/mounts            views of mounted folders, where their links need one; the run cannot write to them
work/N/layer             its layer over the environment (`environments/layer.py`)
work/N/outputs           its outputs while they are gathered; runs/.saving-N if `runs` is on another disk
work/N/manifest.json     the manifest of the unpacked code, as the snapshot may be removed
work/N/unpacked          its time says when the code was unpacked: what was touched since may have changed
work/N/whole             marks that code and checkpoints are complete
records/N/checkpoints    checkpoints of a failed attempt, while the work dir of the next one is made
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.content import manifest as manifests
from orchestrator.content.files import remove_tree, sha256
from orchestrator.content.manifest import FILE, Entry, Manifest, actual
from orchestrator.data import outputs
from orchestrator.data.unsaved import Unsaved
from orchestrator.errors import CodeFailed, InvalidConfig, SaveFailed
from orchestrator.home import Home
from orchestrator.lifecycle import checkpoints
from orchestrator.lifecycle.context import Context
from orchestrator.records.files import ArtifactRecord
from orchestrator.spec.mounts import path_in_code
from orchestrator.spec.run import RunSpec
from orchestrator.store import ClaimedRun

_log = logging.getLogger(__name__)
_NO_CODE = Manifest(())


class WorkDir:
    """The work dir of one run, until its outputs are saved. A later server may repeat every step.

    Args:
        context: home and blobs.
        run: the run.
        spec: the spec of the run.
    """

    def __init__(self, context: Context, run: ClaimedRun, spec: RunSpec) -> None:
        self._context, self._run, self._spec = context, run, spec
        self._number = run.number
        self.root = context.home.work_dir(run.number)
        self._code = self.root / "code"
        self._own_manifest = self.root / "manifest.json"
        self._unpacked = self.root / "unpacked"
        self._whole = self.root / "whole"
        self._checkpoints = self._code / checkpoints.folder_of(spec)
        self._kept = context.home.checkpoints(run.number)

    def make(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Make the work dir, from the snapshot and the checkpoints of the attempt before, or of the run to resume.

        Args:
            cancelled: whether the rest need not be copied.

        Raises:
            CodeFailed, DiskFull, SaveFailed, OSError: when it cannot be made.
        """
        code = self._spec.code
        self._keep_checkpoints()
        remove_tree(self.root)
        self._code.mkdir(parents=True)
        (self.root / "scratch").mkdir()
        if code:
            manifest = self._context.blobs.tree(code.tree)
            self._context.blobs.unpack(manifest, self._code)
            self._own_manifest.write_text(manifest.to_json())
            self._unpacked.touch()
            if not (self._code / code.subdir).resolve().is_relative_to(self._code.resolve()):
                raise CodeFailed(f"{code.subdir!r} leads out of the code through a link")
            (self._code / code.subdir).mkdir(parents=True, exist_ok=True)
        if self._spec.resume and not self._kept.exists():
            self._begin_with(self._spec.resume, cancelled)  # before it is whole: half of them must not be kept
        self._whole.touch()
        self._bring_checkpoints()

    def add(self, files: Iterable[tuple[str, Path]]) -> None:
        """Put files beside the code, as if they were code that the run has not changed: what a build of it has made.

        Args:
            files: path from the root of the code, and the file to copy.
        """
        entries, time_ns = [], self._time_ns
        for name, source in files:
            target = self._code / name
            if target.parent.resolve().is_relative_to(self._code.resolve()) and not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                entries.append(Entry(name, FILE, sha256(target) or "", target.stat().st_size))
                os.utime(target, ns=(time_ns, time_ns))
        if entries:
            self._own_manifest.write_text(manifests.joined([*self._manifest().entries, *entries]).to_json())

    def _begin_with(self, resource: str, cancelled: Callable[[], bool]) -> None:
        """Copy the checkpoints of an earlier run, and say so."""
        home, (_, number, *_below) = self._context.home, resource.split("/")
        source = home.root / actual(resource)
        if not source.is_dir():
            raise CodeFailed(f"{resource}, with the checkpoints of run {number}, does not exist any more")
        folder = checkpoints.folder_of(self._spec)
        files, size = checkpoints.bring(source, home.run_dir(int(number)), self._code, folder, cancelled)
        words = f"Begins with {resource}: {files} file{'' if files == 1 else 's'}, {size} bytes, copied to {folder}"
        self._context.firmly(lambda: self._context.store.notice(self._number, words))

    def _keep_checkpoints(self) -> None:
        """Set the checkpoints of the attempt before aside. At any time they are in exactly one of both folders."""
        is_there = self._whole.exists() and self._checkpoints.is_dir() and self._is_in_code(self._checkpoints)
        if is_there and not self._kept.exists():
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            self._checkpoints.chmod(0o755)  # only a writable folder can be moved
            os.rename(self._checkpoints, self._kept)

    def _bring_checkpoints(self) -> None:
        if not self._kept.exists():
            return
        if not self._is_in_code(self._checkpoints.parent):
            raise CodeFailed(f"{checkpoints.folder_of(self._spec)!r} leads out of the code through a link")
        self._checkpoints.parent.mkdir(parents=True, exist_ok=True)
        remove_tree(self._checkpoints)
        os.rename(self._kept, self._checkpoints)
        for mount in self._spec.mounts:
            place = self._code / path_in_code(self._subdir, mount.path)
            if place.is_relative_to(self._checkpoints) and place.is_symlink():
                place.unlink()  # as the mounts of the attempt before were made

    def _is_in_code(self, place: Path) -> bool:
        """Whether no link stands on the way to a place in the work dir."""
        return place.resolve() == self._code.resolve() / place.relative_to(self._code)

    def save(self) -> list[ArtifactRecord]:
        """Move what the run has left to `runs/N`. Raises as `outputs.save`."""
        target = self._context.home.run_dir(self._number)
        if not target.exists():
            self._code.mkdir(parents=True, exist_ok=True)
            self._bring_checkpoints()  # of an attempt that was stopped before there was a next one
        return outputs.save(self._number, self._workspace(), self._staging, target)

    def unsaved(self) -> Unsaved:
        """Return what the run has left so far."""
        return Unsaved(self._workspace(), self._staging, self._context.home.run_dir(self._number))

    @property
    def _staging(self) -> Path:
        """Where its outputs are gathered: on the disk of `runs`."""
        home = self._context.home
        is_one_disk = home.runs.stat().st_dev == self.root.stat().st_dev
        return self.root / "outputs" if is_one_disk else home.runs / f".saving-{self._number}"

    def check_free(self) -> None:
        """Check that nothing lies at the path of its outputs.

        Raises:
            SaveFailed: when outputs of a lost store lie there, which must not be mistaken for those of this run.
        """
        target = self._context.home.run_dir(self._number)
        if target.exists():
            raise SaveFailed(f"{target} existed before the run. Move it away, and cast again.")

    def lose_outputs(self) -> None:
        """Remove what was saved of a run that is killed. What cannot be removed is told: the run must end all the same."""
        context, number = self._context, self._number
        try:
            remove_tree(context.home.run_dir(number))
        except (OSError, SaveFailed) as error:
            _log.warning("run %d was killed, but not all of its outputs are lost: %s", number, error)
            words = f"Not all of its outputs are lost: {error}. Remove them yourself"
            context.firmly(lambda: context.store.notice(number, words))
        context.firmly(lambda: context.store.set_artifacts(number, []))

    def _workspace(self) -> outputs.Workspace:
        return outputs.Workspace(
            code=self._code,
            manifest=self._manifest(),
            time_ns=self._time_ns,
            unpacked_ns=self._unpacked.stat().st_mtime_ns if self._unpacked.exists() else 0,
            mounted=frozenset(path_in_code(self._subdir, mount.path) for mount in self._spec.mounts),
            ignore=(*self._context.config.ignore, *self._spec.ignore),
            seen_at=(self._context.code_as_seen(self._run), os.path.realpath(self._code)),
        )

    @property
    def _subdir(self) -> str:
        return self._spec.code.subdir if self._spec.code else ""

    @property
    def _time_ns(self) -> int:
        return manifests.time_of(self._spec.code.tree) if self._spec.code else 0

    def _manifest(self) -> Manifest:
        if self._spec.code is None:
            return _NO_CODE
        try:
            return manifests.from_json(self._own_manifest.read_bytes())
        except (OSError, InvalidConfig):  # a run that was stopped before it had any code
            return self._context.blobs.tree(self._spec.code.tree)


def remove(home: Home, number: int) -> None:
    """Remove the work dir of a run that has ended. What cannot be removed now is removed by the next server."""
    try:
        remove_tree(home.work_dir(number))
        remove_tree(home.checkpoints(number))
    except SaveFailed:
        _log.exception("run %d", number)
