"""What a cast would do: the parts of it that can be known without casting."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.content.manifest import Manifest, actual
from orchestrator.errors import SnapshotMissing
from orchestrator.executors.base import PlannedBase
from orchestrator.lifecycle.context import Context
from orchestrator.lifecycle.scheduler import Scheduler
from orchestrator.records.plans import BUILD, READY, UNKNOWN, PlannedMount, PlanRecord
from orchestrator.spec.run import RunSpec, check_digest
from orchestrator.store import MachineRequest, NewRun


def planned(
    context: Context,
    scheduler: Scheduler,
    new: NewRun,
    digests: Sequence[str],
    manifest: Manifest | None,
    warnings: Sequence[str],
    reused: int | None,
) -> PlanRecord:
    """Return what casting a run would do now.

    Args:
        new: the run, checked, with canonical mounts.
        digests: of the blobs of its code.
        manifest: of its code, which need not have been sent; None for that which was sent.
        warnings: that the cast would give.
        reused: the run that would be taken instead.

    Raises:
        SpellError: its image or environment can never be built.
    """
    spec = new.spec
    base = context.executors[new.executor].look(spec, new.gpus)
    key, state = _environment(context, spec, base, manifest)
    kind = context.config.machine_for(spec)
    wanted = MachineRequest(
        0, 0, None, new.cpus, new.memory_bytes or 0, new.gpus, (), (), kind.gpu_type, kind.gpu_memory_bytes
    )
    return PlanRecord(
        spec=spec.redacted(),
        executor=new.executor,
        machine_type=spec.machine_type,
        cpus=new.cpus,
        memory_bytes=new.memory_bytes,
        gpus=new.gpus,
        waits_for=scheduler.would_wait_for(wanted),
        image=base.image,
        image_state=base.state if base.image else "",
        environment=key,
        environment_state=state,
        mounts=[
            PlannedMount(mount.resource, mount.path, (context.home.root / actual(mount.resource)).is_dir())
            for mount in spec.mounts
        ],
        missing=context.blobs.missing([check_digest(digest) for digest in digests]),
        reused=reused,
        warnings=list(warnings),
    )


def _environment(context: Context, spec: RunSpec, base: PlannedBase, manifest: Manifest | None) -> tuple[str, str]:
    if base.base is None:
        return "", UNKNOWN
    try:
        key, found = context.known_environment(spec, base.base, manifest)
    except (SnapshotMissing, FileNotFoundError):  # its metadata was edited, and is not here yet
        return "", UNKNOWN
    return key, READY if found else BUILD
