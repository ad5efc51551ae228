"""The verbs of `spell`: the help line and the module of each.

A module is loaded when its verb is used, so that no verb waits for the others; the comment beside each import says how
much time that saves.
"""

from __future__ import annotations

from collections.abc import Callable

import click

_Load = Callable[[], click.Command]


class Verb:
    """A verb.

    Attributes:
        words: its line in `--help`.
        load: imports its command.
    """

    __slots__ = ("load", "words")  # a named tuple takes longer to make than all functions below

    def __init__(self, words: str, load: _Load) -> None:
        self.words, self.load = words, load


VERBS: dict[str, Verb] = {}
"""All verbs by name, in the order of `--help`."""


def _verb(name: str, words: str) -> Callable[[_Load], _Load]:
    def add(load: _Load) -> _Load:
        VERBS[name] = Verb(words, load)
        return load

    return add


@_verb("run", "Cast a run: put `spell run` in front of any command.")
def _run() -> click.Command:
    from orchestrator.cli.run import run  # 26 ms

    return run


@_verb("rerun", "Cast an earlier run again.")
def _rerun() -> click.Command:
    from orchestrator.cli.rerun import rerun  # 54 ms

    return rerun


@_verb("resume", "Go on from the checkpoints of an earlier run.")
def _resume() -> click.Command:
    from orchestrator.cli.resume import resume  # 54 ms

    return resume


@_verb("logs", "Show the log of a run.")
def _logs() -> click.Command:
    from orchestrator.cli.logs import logs  # 45 ms

    return logs


@_verb("ps", "List runs, newest last.")
def _ps() -> click.Command:
    from orchestrator.cli.listing import ps  # 47 ms

    return ps


@_verb("search", "Find runs by words of their commands and descriptions.")
def _search() -> click.Command:
    from orchestrator.cli.listing import search  # 47 ms

    return search


@_verb("info", "Show the details of a run.")
def _info() -> click.Command:
    from orchestrator.cli.runs import info  # 45 ms

    return info


@_verb("exec", "Open a shell or run a command beside that of a run.")
def _exec() -> click.Command:
    from orchestrator.cli.exec import exec as exec_  # 40 ms

    return exec_


@_verb("port", "Forward ports of this machine to a run, or list its ports.")
def _port() -> click.Command:
    from orchestrator.cli.ports import port  # 40 ms

    return port


@_verb("notebook", "Start JupyterLab as a run, or come back to it.")
def _notebook() -> click.Command:
    from orchestrator.cli.notebook import notebook  # 60 ms

    return notebook


@_verb("env", "Show the environment that a run would get.")
def _env() -> click.Command:
    from orchestrator.cli.environments import env  # 26 ms

    return env


@_verb("tensorboard", "Show the event files of runs in TensorBoard.")
def _tensorboard() -> click.Command:
    from orchestrator.cli.tensorboard import tensorboard  # 60 ms

    return tensorboard


@_verb("stats", "Show the current CPU, memory and GPU use of runs.")
def _stats() -> click.Command:
    from orchestrator.cli.stats import stats  # 40 ms

    return stats


@_verb("top", "Watch all active runs.")
def _top() -> click.Command:
    from orchestrator.cli.top import top  # 50 ms

    return top


@_verb("stop", "Stop runs and keep their outputs.")
def _stop() -> click.Command:
    from orchestrator.cli.runs import stop  # 45 ms

    return stop


@_verb("kill", "Kill runs at once; their outputs are lost.")
def _kill() -> click.Command:
    from orchestrator.cli.runs import kill  # 45 ms

    return kill


@_verb("wait", "Wait until runs have ended.")
def _wait() -> click.Command:
    from orchestrator.cli.runs import wait  # 45 ms

    return wait


@_verb("label", "Add a label to runs, or remove it.")
def _label() -> click.Command:
    from orchestrator.cli.labels import label  # 44 ms

    return label


@_verb("archive", "Hide runs from lists and mounts; nothing is removed.")
def _archive() -> click.Command:
    from orchestrator.cli.labels import archive  # 44 ms

    return archive


@_verb("unarchive", "Unarchive runs.")
def _unarchive() -> click.Command:
    from orchestrator.cli.labels import unarchive  # 44 ms

    return unarchive


@_verb("project", "Group runs in projects.")
def _project() -> click.Command:
    from orchestrator.cli.projects import project  # 42 ms

    return project


@_verb("workflow", "Cast runs that need each other's outputs, from one file.")
def _workflow() -> click.Command:
    from orchestrator.cli.workflows import workflow  # 54 ms

    return workflow


@_verb("hyper", "Search for the best parameters with many runs.")
def _hyper() -> click.Command:
    from orchestrator.cli.searches import hyper  # 66 ms

    return hyper


@_verb("secret", "Keep encrypted passwords and keys for runs.")
def _secret() -> click.Command:
    from orchestrator.cli.secrets import secret  # 50 ms

    return secret


@_verb("diff", "Show the differences between two runs.")
def _diff() -> click.Command:
    from orchestrator.cli.compare import diff  # 60 ms

    return diff


@_verb("lineage", "Show the runs that a run mounted, and those that mounted it.")
def _lineage() -> click.Command:
    from orchestrator.cli.lineage import lineage  # 45 ms

    return lineage


@_verb("verify", "Compare outputs with their recorded hashes.")
def _verify() -> click.Command:
    from orchestrator.cli.compare import verify  # 60 ms

    return verify


@_verb("export", "Write a run to a folder or archive that runs without spell.")
def _export() -> click.Command:
    from orchestrator.cli.export import export  # 56 ms

    return export


@_verb("import", "Bring runs of MLflow, wandb or Trackio.")
def _import() -> click.Command:
    from orchestrator.cli.imports import import_  # 60 ms

    return import_


@_verb("ls", "List outputs and uploads.")
def _ls() -> click.Command:
    from orchestrator.cli.files import ls  # 44 ms

    return ls


@_verb("cat", "Print a file of a run.")
def _cat() -> click.Command:
    from orchestrator.cli.files import cat  # 44 ms

    return cat


@_verb("cp", "Copy outputs to this machine.")
def _cp() -> click.Command:
    from orchestrator.cli.files import cp  # 44 ms

    return cp


@_verb("upload", "Upload a folder or file for runs to mount.")
def _upload() -> click.Command:
    from orchestrator.cli.uploads import upload  # 32 ms

    return upload


@_verb("rm", "Remove uploads.")
def _rm() -> click.Command:
    from orchestrator.cli.uploads import rm  # 32 ms

    return rm


@_verb("link", "Give a resource another name, or list links.")
def _link() -> click.Command:
    from orchestrator.cli.links import link  # 42 ms

    return link


@_verb("unlink", "Remove links; their targets stay.")
def _unlink() -> click.Command:
    from orchestrator.cli.links import unlink  # 42 ms

    return unlink


@_verb("metrics", "Show the metrics of runs as lines, chart or CSV.")
def _metrics() -> click.Command:
    from orchestrator.cli.metrics import metrics  # 47 ms

    return metrics


@_verb("skill", "Tell assistants how to use spell.")
def _skill() -> click.Command:
    from orchestrator.cli.assistants import skill  # 45 ms

    return skill


@_verb("mcp", "Answer an assistant over the Model Context Protocol.")
def _mcp() -> click.Command:
    from orchestrator.cli.assistants import mcp  # 45 ms

    return mcp


@_verb("machine-types", "List machine types.")
def _machine_types() -> click.Command:
    from orchestrator.cli.server import machine_types  # 38 ms

    return machine_types


@_verb("image", "Bake an environment into an image.")
def _image() -> click.Command:
    from orchestrator.cli.images import image  # 50 ms

    return image


@_verb("server", "Start, stop and show the server.")
def _server() -> click.Command:
    from orchestrator.cli.server import server  # 38 ms

    return server


@_verb("doctor", "Check this machine, and say how to correct each problem.")
def _doctor() -> click.Command:
    from orchestrator.cli.doctor import doctor  # 48 ms

    return doctor


@_verb("gc", "Remove unused data.")
def _gc() -> click.Command:
    from orchestrator.cli.gc import gc  # 35 ms

    return gc


@_verb("completion", "Print the completion script of a shell.")
def _completion() -> click.Command:
    from orchestrator.cli.completion import completion  # 0.2 ms, but a verb like the others

    return completion
