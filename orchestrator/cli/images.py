"""`spell image`: bakes the environment of a job file into an image, for registries and other engines."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.input.command_files import refuse_saved
from orchestrator.cli.input.hints import Group
from orchestrator.cli.input.spec import with_files
from orchestrator.cli.output import show
from orchestrator.cli.output.detach import interruptible
from orchestrator.client.client import connect
from orchestrator.spec import jobfile
from orchestrator.spec.fields import BY_NAME
from orchestrator.spec.run import RunSpec

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


@click.group(cls=Group, context_settings=_HELP)
def image() -> None:
    """Bake the environment of a job file into an image: base image, apt and pip packages, no code and no command."""


@image.command(context_settings=_HELP)
@click.argument("job", type=click.Path(path_type=Path), metavar="JOB.yaml")
@click.option("-t", "--tag", metavar="NAME[:TAG]", help="Name of the image. [default: spell/ and the job file's name]")
@click.option("--json", "json_", is_flag=True, help="Print the image as JSON, and no build log.")
def build(job: Path, tag: str | None, json_: bool) -> None:
    """Bake the environment of JOB.yaml into an image of this engine."""
    _bake(job, tag or _default_tag(job), json_=json_, push=False)


@image.command(context_settings=_HELP)
@click.argument("job", type=click.Path(path_type=Path), metavar="JOB.yaml")
@click.option("-t", "--tag", metavar="REGISTRY/NAME[:TAG]", required=True, help="Name of the image, with its registry.")
@click.option("--json", "json_", is_flag=True, help="Print the image as JSON, and no build log.")
def push(job: Path, tag: str, json_: bool) -> None:
    """Bake the environment of JOB.yaml and push it to a registry. Log in there first with `docker login`."""
    _bake(job, tag, json_=json_, push=True)


def _default_tag(job: Path) -> str:
    words = "".join(char if char.isascii() and char.isalnum() else "-" for char in job.stem.lower()).strip("-")
    return f"spell/{words or 'job'}:latest"


def _bake(job: Path, tag: str, *, json_: bool, push: bool) -> None:
    with interruptible("No image was made."), connect() as client:
        found = client.images.bake(
            _spec(job), tag, push=push, on_progress=lambda line: None if json_ else show.say(line)
        )
    if json_:
        show.as_json(found)
    else:
        show.say(f"🎉 {found.tag} is {'pushed' if found.pushed else 'built'} ({found.id[:19]})")


def _spec(path: Path) -> RunSpec:
    """Return the environment of a job file as a spec, without its other fields."""
    refuse_saved(path, "a job file")
    fields = jobfile.load(path).fields
    known = ("command", "params", "machine_type", *(name for name, field in BY_NAME.items() if field.is_environment))
    return RunSpec(**with_files({"command": "true", **{name: fields[name] for name in known if name in fields}}))
