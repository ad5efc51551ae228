"""`spell run`: from what is typed to a spec, cast, and followed."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from orchestrator import snapshot
from orchestrator.cli import complete, show
from orchestrator.cli.console import BROKEN_PIPE, INTERRUPTED, Console, detached, exit_code
from orchestrator.cli.hints import Commanding
from orchestrator.cli.requirements import located, requirement_files
from orchestrator.cli.streams import close_stdout
from orchestrator.client import Client, connect
from orchestrator.errors import HomeUnusable, InvalidConfig, InvalidRepository, UsageError
from orchestrator.home import Home, default_home
from orchestrator.records import CastRecord
from orchestrator.snapshot import Snapshot
from orchestrator.spec import NETWORKS, PLACEHOLDER, RunSpec, parse_mount

_NO_REPOSITORY = "Could not find a git repository, so no user files will be available."
_SHOWN_UNTRACKED = 10


@click.command(
    cls=Commanding,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="COMMAND is one quoted string for the shell, or words that are joined by spaces. Options may stand before or "
    "after it; put -- before a command that has options of its own: spell run -- python train.py --epochs 3",
)
@click.argument("command", nargs=-1)
@click.option(
    "-t",
    "--machine-type",
    metavar="NAME",
    shell_complete=complete.machine_types,
    help="What to run on; see spell machine-types. [default: cpu]",
)
@click.option(
    "-m",
    "--mount",
    metavar="RES[:PATH]",
    multiple=True,
    shell_complete=complete.resources,
    help="Mount a resource, read-only: runs/2/data.txt",
)
@click.option("--pip", metavar="PKG[==V]", multiple=True, help="A pip package.")
@click.option("--pip-req", metavar="FILE", multiple=True, help="A file of pip requirements.")
@click.option("--python", metavar="VERSION", help="The wanted Python, such as 3.12. [default: the server's]")
@click.option(
    "--framework", metavar="NAME[==V]", multiple=True, help="A named set of packages: pytorch, transformers, …"
)
@click.option("--from", "--docker-image", "image", metavar="IMAGE", help="The base image of its container.")
@click.option("--apt", metavar="PKG[=V]", multiple=True, help="An apt package for its container.")
@click.option(
    "--network",
    type=click.Choice(NETWORKS),
    metavar="bridge|none",
    help="The network of its container. [default: bridge]",
)
@click.option("-e", "--env", metavar="K=V", multiple=True, help="An environment variable.")
@click.option("--github-url", metavar="URL", help="Take the code from this git URL instead.")
@click.option("--github-ref", metavar="REF", help="Its branch, tag or commit. [default: its default branch]")
@click.option("-c", "--commit-ref", metavar="REF", help="Take another commit of the local repository.")
@click.option("-d", "--description", metavar="TEXT", help="[default: the message of the commit]")
@click.option("--name", metavar="NAME", help="A name to call the run by, in mounts too.")
@click.option("--label", metavar="LABEL", multiple=True, shell_complete=complete.labels, help="A label to find it by.")
@click.option("--param", metavar="N=V", multiple=True, help="Fill :N: in the command.")
@click.option("-b", "--background", is_flag=True, help="Do not follow the log.")
@click.option("--timeout", type=float, metavar="MINUTES", help="Stop the run after this running time.")
@click.option(
    "--ignore", metavar="PATTERN", multiple=True, help="Outputs not to keep, as in .gitignore; also .spellignore"
)
@click.option("--include-untracked", is_flag=True, help="Send untracked files too, except those that git ignores.")
@click.option(
    "--executor",
    metavar="NAME",
    help="Which executor runs it: docker or process. [default: docker where an engine answers]",
)
@click.option("-f", "--force", is_flag=True, help="Ask nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Show all states and what was logged in them.")
@click.option("--json", "json_", is_flag=True, help="Print the run as JSON: when cast with -b, else when it has ended.")
@click.option(
    "--file", "file", type=click.Path(path_type=Path), metavar="JOB.yaml", help="Take the spec from a job file."
)
@click.pass_context
def run(ctx: click.Context, /, **typed: Any) -> None:
    """Cast a run: put `spell run` in front of any command."""
    asked = Asked(**typed)
    spec, code = build_spec(asked)
    _warn_unfilled(spec)
    with connect() as client:
        cast = client.cast(spec, code)
        ctx.exit(_announce(client, cast, asked))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed; the fields are the options."""

    command: tuple[str, ...]
    machine_type: str | None
    mount: tuple[str, ...]
    pip: tuple[str, ...]
    pip_req: tuple[str, ...]
    python: str | None
    framework: tuple[str, ...]
    image: str | None
    apt: tuple[str, ...]
    network: str | None
    env: tuple[str, ...]
    github_url: str | None
    github_ref: str | None
    commit_ref: str | None
    description: str | None
    name: str | None
    label: tuple[str, ...]
    param: tuple[str, ...]
    background: bool
    timeout: float | None
    ignore: tuple[str, ...]
    include_untracked: bool
    executor: str | None
    force: bool
    verbose: bool
    json_: bool
    file: Path | None


def build_spec(asked: Asked) -> tuple[RunSpec, Snapshot | None]:
    """The spec of what was typed, with the job file's share, and the code that goes with it.

    Raises:
        SpellError: for whatever is wrong with it.
    """
    job = importlib.import_module("orchestrator.jobfile").load(asked.file) if asked.file else _NoJob
    command = " ".join(asked.command) or job.command
    if not command:
        raise UsageError("There is no command to run.", "Try: spell run -h")
    timeout_min = asked.timeout if asked.timeout is not None else job.timeout_min
    paths = [*(Path(name) for name in asked.pip_req), *(job.folder / name for name in job.pip_req)]
    spec = RunSpec(
        command=command,
        machine_type=asked.machine_type or job.machine_type or "cpu",
        executor=asked.executor or job.executor,
        mounts=tuple(parse_mount(text) for text in (*job.mounts, *asked.mount)),
        pip=(*(located(line, job.folder) for line in job.pip), *(located(line, Path()) for line in asked.pip)),
        requirements=requirement_files(paths),
        python=asked.python or job.python,
        frameworks=asked.framework or job.framework,
        image=asked.image or job.image,
        apt=(*job.apt, *asked.apt),
        network=asked.network or job.network,
        env={**job.env, **_pairs(asked.env, "--env")},
        description=asked.description or job.description,
        name=asked.name or job.name,
        labels=(*job.labels, *asked.label),
        params={**job.params, **_pairs(asked.param, "--param")},
        timeout_s=None if timeout_min is None else timeout_min * 60,
        ignore=(*job.ignore, *asked.ignore),
    )
    url = asked.github_url or job.github_url
    code, ignored = _capture(asked, url, asked.github_ref or job.github_ref)
    spec = replace(spec, ignore=(*ignored.splitlines(), *spec.ignore))
    if code is None:
        return spec, None
    return replace(spec, code=code.code, description=spec.description or code.subject), code


class _NoJob:
    """The job file that is not there: it says nothing."""

    command = machine_type = executor = python = description = name = github_url = github_ref = image = network = ""
    mounts = pip = pip_req = apt = labels = ignore = ()
    framework = timeout_min = None
    env: Mapping[str, str] = {}
    params: Mapping[str, str] = {}
    folder = Path()


def _warn_unfilled(spec: RunSpec) -> None:
    names = () if spec.params else dict.fromkeys(PLACEHOLDER.findall(spec.command))
    for name in names:
        show.warn(f"The command's ':{name}:' stays as it is; --param {name}=VALUE would fill it.")


def _announce(client: Client, cast: CastRecord, asked: Asked) -> int:
    for warning in cast.warnings:
        show.warn(warning)
    number = str(cast.number)
    if asked.background and asked.json_:
        show.as_json(client.run(number))
        return 0
    if not asked.json_:
        show.say(f"💫 Casting spell #{number}…")
    if asked.background:
        show.say(f"View logs with `spell logs -f {number}`")
        return 0
    try:
        return _wait_as_json(client, number) if asked.json_ else _follow(client, number, asked.verbose)
    except KeyboardInterrupt:
        click.echo(err=asked.json_)
        detached(number, err=asked.json_)
        return INTERRUPTED
    except BrokenPipeError:  # `spell run … | head`: nobody reads on
        close_stdout()
        detached(number, err=True)
        return BROKEN_PIPE


def _wait_as_json(client: Client, number: str) -> int:
    ended = client.wait(number)
    show.as_json(client.run(number))
    return exit_code(ended)


def _follow(client: Client, number: str, verbose: bool) -> int:
    show.say("✨ Stop viewing logs with ^C")
    console = Console(verbose=verbose)
    ended = console.follow(client.follow(number))
    console.end(ended)
    return exit_code(ended)


def _capture(asked: Asked, url: str, ref: str) -> tuple[Snapshot | None, str]:
    """The code, and the text of the `.spellignore` that goes with it."""
    try:
        cwd = Path.cwd()
    except FileNotFoundError:
        raise UsageError("The folder that you are in is gone.") from None
    if url:
        if asked.commit_ref:
            raise InvalidConfig("--commit-ref is of the local repository.", "With --github-url use --github-ref.")
        return _told(snapshot.of_url(url, ref, _cache_dir()))
    if ref:
        raise InvalidConfig("--github-ref needs --github-url.")
    root = snapshot.find_root(cwd)
    if root is None:
        if asked.commit_ref:
            raise InvalidRepository(f"--commit-ref {asked.commit_ref}: there is no git repository here.")
        _go_on_without_repository(asked.force)
        return None, _read_spellignore(cwd)
    if asked.commit_ref:
        return _told(snapshot.of_commit(cwd, asked.commit_ref))
    include = asked.include_untracked or _configured_untracked()
    code = snapshot.of_working_tree(cwd, include_untracked=include)
    if code.untracked:
        _go_on_without_untracked(code, asked.force)
    if code.code.dirty:
        show.say("✨ Preparing uncommitted changes…", err=asked.json_)
    return _told(code)[0], _read_spellignore(root)


def _told(code: Snapshot) -> tuple[Snapshot, str]:
    for warning in code.warnings:
        show.warn(warning)
    entry = next((entry for entry in code.manifest.entries if entry.path == ".spellignore"), None)
    if entry is None:
        return code, ""
    with code.open_blob(entry.digest) as file:
        return code, file.read().decode("utf-8", "replace")


def _read_spellignore(folder: Path) -> str:
    """That of a folder, tracked by git or not."""
    try:
        return (folder / ".spellignore").read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _may_ask(force: bool) -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and not force


def _go_on_without_repository(force: bool) -> None:
    if _may_ask(force):
        click.confirm(f"{_NO_REPOSITORY} Continue anyway?", default=True, abort=True)
    else:
        show.warn(_NO_REPOSITORY)


def _go_on_without_untracked(code: Snapshot, force: bool) -> None:
    names = [name for name in code.untracked if not name.endswith(".DS_Store")]
    if not names:
        return
    listed = "\n".join(f"  {name}" for name in names[:_SHOWN_UNTRACKED])
    more = len(names) - _SHOWN_UNTRACKED
    listed += f"\n  … and {more} more" if more > 0 else ""
    repository = code.code.repository
    text = f"There are some untracked files in repo {repository}. They won't be available on this run.\n{listed}"
    if _may_ask(force):
        show.say(text)
        click.confirm("Continue the run anyway? (--include-untracked sends them)", default=True, abort=True)
    else:
        show.warn(f"{text}\n  Send them with --include-untracked, or `git add` them.")


def _configured_untracked() -> bool:
    path = Home(default_home()).config
    try:
        return tomllib.loads(path.read_text("utf-8")).get("include_untracked") is True
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HomeUnusable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidConfig(f"{path}: {error}") from error


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spell" / "git"


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidConfig(f"{option} {text!r} is not of the form NAME=VALUE.")
        found[name] = value
    return found
