"""Makes what was typed ready to be cast: every verb that takes the options of a spec calls this before it casts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.cli.input.spec import SpecOptions, warn_unfilled

if TYPE_CHECKING:
    from orchestrator.client.client import Client
    from orchestrator.spec.run import RunSpec


def ready(client: Client, spec: RunSpec, options: SpecOptions, *, dry_run: bool = False) -> RunSpec:
    """The spec as it is cast: its project exists, and what looks like secrets in files of variables was offered as such.

    Args:
        dry_run: nothing is cast, so no secrets are set.

    Raises:
        NotFound: the project does not exist, and nobody is there to ask.
    """
    warn_unfilled(spec)
    changed: dict[str, Any] = {"project": spec.project, "env": spec.env, "secrets": spec.secrets}
    changed = ready_changes(client, changed, options, dry_run=dry_run)
    return replace(spec, env=changed["env"], secrets=changed["secrets"])


def ready_changes(
    client: Client, changed: Mapping[str, Any], options: SpecOptions, *, dry_run: bool = False
) -> dict[str, Any]:
    """As `ready`, for fields that change those of an earlier run."""
    found, force = dict(changed), options.code.force
    if found.get("project"):
        from orchestrator.cli.projects import see_project  # 2 ms: few runs name a project

        see_project(client, found["project"], force=force)
    if options.env_files and not dry_run:
        from orchestrator.cli.kept_secrets import as_secrets  # 1 ms: few runs have such files

        if names := as_secrets(client, found.get("env", {}), options.env_files, force=force):
            found["env"] = {name: value for name, value in found["env"].items() if name not in names}
            found["secrets"] = {**found.get("secrets", {}), **{name: name for name in names}}
    return found
