"""`spell env`: shows the environment that a run would get, before it is cast."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import ahead
from orchestrator.cli.input import complete
from orchestrator.cli.input.commanding import Commanding
from orchestrator.cli.input.options import spec_options
from orchestrator.cli.input.spec import SpecOptions, build_spec
from orchestrator.cli.output import show
from orchestrator.spec.redaction import redacted
from orchestrator.spec.requirements import logical_lines
from orchestrator.spec.run import RunSpec, to_wire

if TYPE_CHECKING:
    from orchestrator.client.client import Client
    from orchestrator.records.environments import EnvironmentRecord

_SHOWN = 20
_ANY = "true"  # the command, where only a script's metadata could make a difference


def _connect() -> Client:
    # 16 ms, about as long as git takes, so a thread loads them meanwhile
    from orchestrator.client import environments  # noqa: F401
    from orchestrator.client.client import connect

    return connect()


@click.command(
    cls=Commanding,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="COMMAND matters if it names a script that says its own packages (PEP 723).",
)
@click.argument("command", nargs=-1, shell_complete=complete.files)
@spec_options
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def env(*, command: tuple[str, ...], json_: bool, **typed: Any) -> None:
    """Show the environment that `spell run` with these options would get: from what, and whether it is built already."""
    ahead.load(_connect)
    has_file = typed.get("file") is not None
    words = command or (() if has_file else (_ANY,))
    spec, code = build_spec(SpecOptions.of(command=words, json_=json_, **typed))
    with _connect() as client:
        found = client.environments.look(spec, code)
    lines = [line.text for file in spec.requirements for line in logical_lines(file.text)]
    lines = [redacted(line.partition(" --hash")[0]) for line in (*spec.pip, *lines)]
    if json_:
        show.as_json(
            {"source": to_wire(spec.source), "requirements": lines, "editables": spec.editables, **to_wire(found)}
        )
        return
    for name, value in _facts(spec, found, lines):
        show.say(f"{name.ljust(10)}  {value}")


def _facts(spec: RunSpec, found: EnvironmentRecord, lines: list[str]) -> list[tuple[str, str]]:
    own = "the image's" if spec.image else "{}.{}, the server's".format(*sys.version_info)
    more = f"\n{' ' * 12}… and {len(lines) - _SHOWN} more; --json has all" if len(lines) > _SHOWN else ""
    listed = f"\n{' ' * 12}".join(lines[:_SHOWN]) + more
    packages = f"{len(found.packages)} installed" if found.is_built else ""
    state = f"built already, as {found.key[:12]}" if found.is_built else "not built yet"
    state += f"; it will be {found.key[:12]}" if found.key and not found.is_built else ""
    facts = [
        ("Source", spec.source.file if spec.source else ""),
        ("Python", found.python or spec.python or own),
        ("Frameworks", ", ".join(spec.frameworks or ())),
        ("Packages", listed or "none"),
        ("Editable", ", ".join(spec.editables)),
        ("Executor", found.executor),
        ("State", ", ".join(filter(None, (state, packages)))),
    ]
    return [(name, value) for name, value in facts if value]
