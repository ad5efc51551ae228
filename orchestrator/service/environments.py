"""Environments: what a run would get, looked up before it is cast."""

from __future__ import annotations

import dataclasses

from orchestrator.lifecycle.context import Context
from orchestrator.records.environments import EnvironmentRecord
from orchestrator.service.access import Who
from orchestrator.service.executors import Executors
from orchestrator.spec.run import RunSpec


class Environments:
    """The environments of one home."""

    def __init__(self, context: Context, executors: Executors) -> None:
        self._context, self._executors = context, executors

    def look(self, who: Who, spec: RunSpec) -> EnvironmentRecord:
        """The environment that a run of this spec would get. Nothing is built or pulled.

        Raises:
            InvalidConfig, UsageError: as for a cast.
            ExecutorFailed: the executor cannot run anything now.
            SnapshotMissing: its code has projects to install, and was not sent.
        """
        context = self._context
        name = spec.executor or self._executors.default
        executor = self._executors.usable(name)
        executor.refuse(spec)
        for framework in spec.frameworks or ():
            context.config.framework(framework)
        context.environments.check(context.request(spec))
        nothing = EnvironmentRecord("", is_built=False, python="", packages=[], executor=name)
        gpus = context.config.machine_type(spec.machine_type).gpus
        base = executor.look(spec, gpus).base
        if base is None:
            context.projects(spec)  # it may refuse the code
            return nothing
        key, found = context.known_environment(spec, base)
        if found is None:
            return dataclasses.replace(nothing, key=key)
        return EnvironmentRecord(key, is_built=True, python=found.python, packages=[*found.packages], executor=name)
