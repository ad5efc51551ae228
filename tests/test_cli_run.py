"""`spell run`: from what people type to a run, its console lines and its exit code."""

from __future__ import annotations

import csv
import functools
import http.server
import os
import shlex
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import BIN, Done, Spell, git, wait_for
from engines import TEST_IMAGE

from orchestrator.machine import detect

JOKES = Path(__file__).parents[2] / "shared" / "data" / "onelinefun.csv"
NO_REPOSITORY = "WARNING: Could not find a git repository, so no user files will be available.\n"


@pytest.fixture(scope="module")
def home(make_shared: Callable[..., Spell]) -> Spell:
    """One home for all of these; a run of type `whole` takes the whole machine."""
    config = (
        f"default_frameworks = []\n[machine_types.whole]\ncpus = {detect().cpus:g}\n[machine_types.huge]\ncpus = 9999\n"
    )
    return make_shared("cli-run", config=config)


@pytest.fixture
def spell(home: Spell) -> Iterator[Spell]:
    """That home, without active runs."""
    yield home
    home.clear()


@pytest.fixture(scope="module")
def full(make_shared: Callable[..., Spell]) -> Spell:
    """A home whose machine is taken, so that what is cast there stays in the queue."""
    spell = make_shared("full", config=f"[machine_types.whole]\ncpus = {detect().cpus:g}\n")
    spell.reaches(spell.cast("sleep 1000", machine_type="whole"), "running")
    return spell


def queued(full: Spell, *words: str, **options: object) -> dict:
    """The record of a run that was only cast."""
    done = full("run", "--background", "--json", *words, **options)
    assert done.code == 0, done
    return done.json()


# -- what is typed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--label", "x", "echo a  b"], "echo a  b"),
        (["echo a  b", "--label", "x"], "echo a  b"),
        (["echo", "a", "--label", "x", "b"], "echo a b"),
        (["--label", "x", "--", "python", "train.py", "--epochs", "25", "-t", "gpu"], "python train.py --epochs 25 -t gpu"),
        (["--label=x", "-tcpu", "echo 'a b' | wc -c && echo $HOME; (exit 0)"], "echo 'a b' | wc -c && echo $HOME; (exit 0)"),
        (["--label", "x", "echo one\necho two # 🎉 ü"], "echo one\necho two # 🎉 ü"),
        (["--label", "x", "--", "--help"], "--help"),
    ],
)  # fmt: skip
def test_options_stand_before_or_after_the_command(full: Spell, words: list[str], command: str) -> None:
    run = queued(full, *words)
    assert (run["command"], run["labels"], run["machine_type"]) == (command, ["x"], "cpu")


def test_every_option_becomes_a_part_of_the_spec(full: Spell, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    run = queued(
        full,
        *shlex.split(
            "-t CPU --pip six==1.17 --pip 'attrs>=1; python_version>\"3\"' --pip-req requirements.txt --python 3.11 "
            "--framework pytorch==2.9 -e A=1 --env B=x=y --env EMPTY= -d 'two words' --name a-name --label one --label two "
            "--param LR=0.1 --timeout 1.5 --ignore '*.tmp' --ignore cache/ --executor process "
            "--retries 2 --stop-condition 'loss > 10:100' --stop-condition 'loss < 0.1 && acc > 0.9' "
            "--no-output-timeout 30 --notify http://127.0.0.1:9/hook --no-code --checkpoints out/put "
            "--caches off --cpus 0.5 --memory 64M"
        ),
        "train --lr :LR:",
        cwd=tmp_path,
    )
    spec = run["spec"]
    assert spec.pop("env") == {"A": "***", "B": "***", "EMPTY": "***"}
    assert spec == {
        "command": "train --lr :LR:",
        "machine_type": "cpu",
        "executor": "process",
        "mounts": [],
        "pip": ["six==1.17", 'attrs>=1; python_version>"3"'],
        "requirements": [{"name": "requirements.txt", "text": "six\n"}],
        "python": "3.11",
        "editables": [],
        "frameworks": ["pytorch==2.9"],
        "image": "",
        "apt": [],
        "network": "",
        "code": None,
        "source": None,
        "description": "two words",
        "name": "a-name",
        "labels": ["one", "two"],
        "params": {"LR": "0.1"},
        "timeout_s": 90.0,
        "ignore": ["*.tmp", "cache/"],
        "retries": 2,
        "project": "",
        "stop_conditions": ["loss > 10:100", "loss < 0.1 && acc > 0.9"],
        "no_output_timeout_s": 1800.0,
        "notify": ["***"],
        "secrets": {},
        "caches": "off",
        "cpus": 0.5,
        "memory_bytes": 64 << 20,
        "gpus": None,
        "gpu_type": "",
        "gpu_memory_bytes": None,
        "resume": "",
        "checkpoints": "out/put",
    }
    assert (run["command"], run["name"], run["labels"]) == ("train --lr 0.1", "a-name", ["one", "two"])


@pytest.mark.parametrize("option", ["--from", "--docker-image"])
def test_options_of_containers(docker_spell: Spell, option: str) -> None:
    words = [option, TEST_IMAGE, "--apt", "tree", "--apt", "jq=1.6-2.1+deb12u1", "--network", "none"]
    number = docker_spell("run", "-b", *words, "true").number
    spec = docker_spell("info", str(number), "--json").json()["spec"]
    assert (spec["image"], spec["apt"], spec["network"]) == (TEST_IMAGE, ["tree", "jq=1.6-2.1+deb12u1"], "none")


def test_background_prints_the_number_and_returns(full: Spell) -> None:
    done = full("run", "-b", "true")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"💫 Casting spell #{done.number}…\nView logs with `spell logs -f {done.number}`\n"


def test_job_file_and_options_beside_it(full: Spell, tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "packages.txt").write_text("six\n")
    (folder / "job.yaml").write_text(
        "command: 'echo :A: :B:'\nname: of-the-file\nlabels: [file]\nenv: {X: 1, Y: 2}\nparams: {A: 1, B: 2}\n"
        "pip: [attrs]\npip_req: packages.txt\ntimeout_min: 1\nignore: ['*.a']\nmachine_type: whole\n"
    )
    words = ["--file", "jobs/job.yaml", "--name", "typed", "--label", "typed", "--param", "B=3", "--pip", "idna"]
    run = queued(full, *words, "-e", "Y=3", "--timeout", "2", "--ignore", "*.b", "-t", "cpu", cwd=tmp_path)
    assert (run["command"], run["name"], run["labels"]) == ("echo 1 3", "typed", ["file", "typed"])
    spec = run["spec"]
    assert (spec["pip"], spec["requirements"]) == (["attrs", "idna"], [{"name": "packages.txt", "text": "six\n"}])
    assert (spec["timeout_s"], spec["ignore"], spec["machine_type"]) == (120.0, ["*.a", "*.b"], "cpu")
    assert set(spec["env"]) == {"X", "Y"}
    other = queued(full, "--file", "jobs/job.yaml", "other :A: :B:", cwd=tmp_path)
    assert (other["command"], other["machine_type"]) == ("other 1 2", "whole")


# -- what goes wrong --------------------------------------------------------------------------------------------------

BAD = [
    # what is typed, exit code, what must be said
    (["-t", "huge-type", "true"], 2, "There is no machine type 'huge-type'.\n       There are: cpu, gpu, whole, huge."),
    (["-t", "huge", "true"], 3, "Machine type 'huge' can never run here: it asks for 9999 cores; this machine has "),
    (["-m", "a:b:c", "true"], 3, "mount 'a:b:c', it must be <resource_path>[:<mount_path>]"),
    (["-m", "runs/1/x:", "true"], 3, "Incorrect formatting of mount 'runs/1/x:'"),
    (["-m", "runs/9999/x", "true"], 1, "There is no run '9999'.\n       See them with: spell ps"),
    (["-m", "runs/1/../../etc", "true"], 3, "The mounted resource 'runs/1/../../etc' must not contain '..'."),
    (["-m", "/etc/passwd", "true"], 3, "Cannot mount '/etc/passwd': it is not a resource.\n       A resource is runs/NUMBER/"),
    (["-m", "uploads/x:.", "true"], 3, "The mount path '.' must name a file or folder."),
    (["--from", "", "true"], 2, "Option --from is empty.\n       Leave it out for the default, or give it a value."),
    (["--commit-ref", "", "true"], 2, "Option --commit-ref is empty."),
    (["--github-url", "", "true"], 2, "Option --github-url is empty."),
    (["-t", "", "true"], 2, "Option --machine-type is empty."),
    (["-m", "data", "true"], 1, "Cannot mount resource 'data': not a valid resource."),
    (["-m", "other/data", "true"], 1, "'other/data' is not a valid resource."),
    (["-m", "runs/1/no-such-file", "true"], 1, "Cannot mount resource 'runs/1/no-such-file': not a valid resource."),
    (["-m", "runs/1/a", "-m", "runs/1/b:a", "true"], 3, "Two mounts have the same path"),
    (["--pip", "x; rm -rf", "true"], 3, "'x; rm -rf' is not a pip requirement"),
    (["--pip", "-r evil.txt", "true"], 3, "'-r evil.txt' is not a pip requirement.\n       Give the file with: --pip-req FILE"),
    (["--pip", "six=1.16", "true"], 3, "Write it as six==1.16"),
    (["--pip", "six,tqdm==4.67", "true"], 3, "Repeat the option: --pip six --pip tqdm==4.67"),
    (["-executor", "process", "true"], 3, "'xecutor' is not of the form NAME=VALUE.\n       Did you mean --executor, with two dashes?"),
    (["-e", "“X=1”", "true"], 3, "The quotes are typographic"),
    (["--name", "“my run”", "true"], 3, "The quotes are typographic"),
    (["--pip-req", "nowhere.txt", "true"], 3, "nowhere.txt cannot be read: No such file or directory."),
    (["--python", "three", "true"], 3, "Python version 'three' is not like '3.12'."),
    (["--framework", "caffe", "true"], 3, "There is no framework 'caffe'.\n       There are: pytorch, transformers."),
    (["-e", "NAME", "true"], 3, "--env 'NAME' is not of the form NAME=VALUE."),
    (["-e", "1A=x", "true"], 3, "Environment variable name '1A' is not allowed."),
    (["-e", "SPELL_RUN=7", "true"], 3, "Environment variable 'SPELL_RUN' is set by spell itself."),
    (["--param", "X=1", "true"], 3, "The command has no ':X:' for parameter 'X'."),
    (["--param", "X=1", "f :X: :Y:"], 3, "The command's ':Y:' has no value.\n       Give it with --param Y=VALUE."),
    (["--timeout", "0", "true"], 3, "The time limit must be more than 0, and less than 16 million minutes."),
    (["--timeout", "nan", "true"], 2, "'nan' is not a duration. Write it as 90s, 30m, 2h, 1h30m or 3d;"),
    (["--timeout", "soon", "true"], 2, "'soon' is not a duration"),
    (["--timeout", "0h", "true"], 3, "The time limit must be more than 0, and less than 16 million minutes."),
    (["--no-output-timeout", "1e999", "true"], 2, "'1e999' is not a duration"),
    (["--python", "2.7", "true"], 3, "Python 2.7 is too old: uv builds environments for 3.6 and newer."),
    (["--pip-req", "", "true"], 2, "Option --pip-req is empty."),
    (["--pip", "", "true"], 2, "Option --pip is empty."),
    (["--pip-req", "ftp://h/r.txt", "true"], 3, "'ftp://h/r.txt' is not the URL of a file."),
    (["—", "pip", "six", "“true”"], 2, "— is no dash to a shell.\n       You may mean: spell run --pip six true\n"),
    (["--name", "42", "true"], 3, "Run name '42' is not allowed.\n       A name starts with a letter"),
    (["--name", "latest", "true"], 3, "Run name 'latest' is not allowed."),
    (["--label", "a\nb", "true"], 3, "is not a word of up to 63 letters"),
    (["--executor", "kubernetes", "true"], 3, "There is no executor 'kubernetes'.\n       There are: docker, process."),
    (["--github-ref", "main", "true"], 3, "Option --github-ref needs --github-url."),
    (["--github-url", "x", "-c", "HEAD", "true"], 3, "Option --commit-ref names a commit of the local repository."),
    (["--github-url", "/no/such/repository", "true"], 6, "Could not fetch /no/such/repository: "),
    (["-c", "HEAD", "true"], 6, "--commit-ref HEAD: the current folder is in no git repository."),
    (["--file", "nowhere.yaml"], 3, "nowhere.yaml cannot be read: No such file or directory."),
    ([], 2, "The command is missing."),
    ([""], 2, "The command is missing."),
    (["  \n "], 2, "The command is missing."),
    (["x" * 100_001], 3, "The command is longer than 100000 bytes.\n       Put it into a script."),
    (["echo \udcff"], 3, "'echo \\udcff' is not text in UTF-8."),
    (["--epochs", "3", "true"], 2, "No such option '--epochs'."),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "said"), BAD, ids=[" ".join(words)[:40] for words, *_ in BAD])
def test_bad_input_gets_a_clear_error_and_no_run(
    spell: Spell, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    if not spell.client.runs.list():
        spell.run("touch a b")
    before = spell.client.runs.get("latest").number
    done = spell("run", *words, cwd=tmp_path)
    assert (done.code, said in done.err) == (code, True), done
    assert "Traceback" not in done.err and done.out == ""
    assert spell.client.runs.get("latest").number == before


def test_options_of_the_command_that_spell_took_for_its_own(full: Spell, tmp_path: Path) -> None:
    done = full("run", "./train.sh", "--project", "x y!", cwd=tmp_path)
    assert done.code != 0
    assert "WARNING: The options after the command were taken as spell's" in done.err
    assert "If that option belongs to the command: spell run -- ./train.sh --project 'x y!'\n" in done.err
    run = queued(full, "--", "./train.sh", "--project", "x y!", cwd=tmp_path)  # what it says to type is understood
    assert run["command"] == "./train.sh --project 'x y!'"
    done = full("run", "-b", "python", "train.py", "--lr", "0.1", "--name", "a b", "-t=gpu", cwd=tmp_path)
    text = "WARNING: spell has no option --lr, so all that follows 'python' was taken as the command's, --name, -t too."
    assert text in done.err
    assert full.client.runs.get(str(done.number)).command == "python train.py --lr 0.1 --name 'a b' -t=gpu"
    assert "No such option '--lr'." in full("run", "--lr", "0.1", "python", "x.py").err


def test_no_such_hint_where_the_command_was_quoted(spell: Spell, tmp_path: Path) -> None:
    for words in (["python -c 1", "-m", "http.server"], ["-m", "data", "true"], ["-t", "x", "--", "true"]):
        done = spell("run", *words, cwd=tmp_path)
        assert done.code != 0
        assert "belongs to the command" not in done.err


def test_rule_for_mounting_outputs_of_other_runs(spell: Spell, tmp_path: Path) -> None:
    running = spell.cast("echo x > data.txt; sleep 1000")
    spell.reaches(running, "running")
    done = spell("run", "-m", f"runs/{running}/data.txt", "true")
    assert (done.code, f"run {running} is still running.\n       Wait for it: spell wait {running}" in done.err) == (
        1,
        True,
    )
    failed = spell.run("echo x > data.txt; exit 1").number
    assert spell("run", "-m", f"runs/{failed}/data.txt", "cat data.txt").code == 0
    spell("kill", str(running))
    spell.ended(running)
    done = spell("run", "-m", f"runs/{running}/data.txt", "true")
    assert (done.code, f"run {running} kept no outputs" in done.err) == (1, True)


def test_a_placeholder_that_nobody_fills_is_warned_of(full: Spell) -> None:
    done = full("run", "-b", "train --lr :LR: :LR: --url http://x:80/y")
    assert done.err.count("The command's ':LR:' stays as it is; --param LR=VALUE would fill it.") == 1
    assert done.err.count("WARNING") == 1


def test_pip_arguments_never_reach_a_shell(spell: Spell, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for line in (
        f"six; touch {victim}",
        f"$(touch {victim})",
        f"six`touch {victim}`",
        f"six @ file:///x && touch {victim}",
    ):
        done = spell("run", "-f", "--pip", line, "true", cwd=tmp_path, env={"UV_OFFLINE": "1"})
        assert done.code in (1, 3), done
    assert not victim.exists()


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "last"),
    [
        ("exit 7", 7, "💥 Run {n} failed: the command ended with exit code 7 ("),
        ("kill -9 $$", 137, "💥 Run {n} failed: the command was ended by signal 9 ("),
        ("kill -TERM $$", 143, "💥 Run {n} failed: the command was ended by signal 15 ("),
        ("no-such-program", 127, "💥 Run {n} failed: the command ended with exit code 127 ("),
        ("true", 0, "🎉 Run {n} complete"),
    ],
)
def test_foreground_exits_with_the_commands_code(spell: Spell, command: str, code: int, last: str) -> None:
    done = spell("run", command)
    assert done.code == code
    assert done.out.splitlines()[-1].startswith(last.format(n=done.number))


def test_killed_and_stopped_from_elsewhere(spell: Spell) -> None:
    for verb, code, last in (
        ("kill", 137, "💀 Run {n} killed: killed on request"),
        ("stop", 143, "✋ Run {n} stopped: "),
    ):
        before = spell.client.runs.list()[-1].number
        process = spell.popen("run", "echo begun; sleep 1000")
        wait_for(lambda before=before: spell.client.runs.get("latest").number > before, "the run")
        number = spell.client.runs.get("latest").number
        spell.says(number, b"begun")
        assert spell(verb, "latest").code == 0
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code
        assert f"💫 Run is {'killing' if verb == 'kill' else 'stopping'}\n" in out.decode()
        assert out.decode().splitlines()[-1].startswith(last.format(n=number))


def test_time_limit_stops_and_keeps(spell: Spell) -> None:
    done = spell("run", "--timeout", "0.005", "echo x > kept; sleep 1000")
    assert done.code == 143
    assert "the run reached its time limit and was stopped" in done.out.splitlines()[-1]
    assert spell("cat", f"runs/{done.number}/kept").out == "x\n"


def test_json_in_the_foreground_is_the_run_that_ended(spell: Spell) -> None:
    done = spell("run", "--json", "echo x > y; exit 4")
    assert done.code == 4
    run = done.json()
    assert (run["state"], run["exit_code"], run["outputs_count"]) == ("failed", 4, 1)


def test_console_lines_in_order_without_a_terminal(spell: Spell, repo: Path) -> None:
    first = spell.run("echo data > data.txt").number
    done = spell("run", "-m", f"runs/{first}/data.txt", "cat data.txt; echo err >&2", cwd=repo)
    number, lines = done.number, done.out.splitlines()
    assert lines[:-2] == [
        f"💫 Casting spell #{number}…",
        "✨ Stop viewing logs with ^C",
        "✨ Machine_Requested… done",
        "✨ Building… done",
        "✨ Mounting… done",
        "✨ Run is running",
        "data",
        "err",
        "✨ Saving… done",
        "✨ Pushing… done",
    ]
    assert lines[-2].startswith("🎉 Total run time: ")
    assert (lines[-1], done.err) == (f"🎉 Run {number} complete", "")
    said = spell("run", "-v", "true", cwd=repo).out.splitlines()
    assert [line for line in said if line.startswith("✨")][1:] == [
        f"✨ Run is {state}" for state in ("machine_requested", "building", "running", "saving", "pushing")
    ]


def test_a_reader_that_goes_away_leaves_the_run_alone(spell: Spell) -> None:
    spell_ = shlex.quote(str(BIN / "spell"))
    words = f"{spell_} run 'seq 20000; sleep 0.2; seq 20000; echo x > done' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", words], env=spell.env, cwd=spell.cwd, capture_output=True, text=True, check=True
    )
    number = spell.client.runs.get("latest").number
    assert done.stdout == f"💫 Casting spell #{number}…\n141\n"
    assert f"✨ Use 'spell logs -f {number}' to view logs again\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert spell.ended(number).state == "complete"


def test_closed_standard_streams(spell: Spell) -> None:
    for redirection in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        words = f"{shlex.quote(str(BIN / 'spell'))} run 'echo hi; exit 5' {redirection}"
        done = subprocess.run(
            ["bash", "-c", words], env=spell.env, cwd=spell.cwd, capture_output=True, text=True, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (5, False), done
        assert spell.log(spell.client.runs.get("latest").number) == b"hi\n"


# -- parameters, variables, outputs -----------------------------------------------------------------------------------


def test_parameters_and_variables_reach_the_command(spell: Spell) -> None:
    done = spell("run", "--param", "WORD=a b:c", "-e", "SECRET=q=w e", "echo ':WORD:' \"$SECRET\"")
    assert "\na b:c q=w e\n" in done.out
    assert "q=w e" not in spell("info", str(done.number), "--json").out
    assert "WORD=a b:c" in spell("info", str(done.number)).out


def test_ignored_outputs(spell: Spell, repo: Path, tmp_path: Path) -> None:
    (repo / ".spellignore").write_text("# what nobody needs\n*.tmp\n/cache/\n")
    make = "mkdir cache deep; touch a.tmp deep/b.tmp cache/x deep/keep one.bin"
    for description in ("an untracked .spellignore", "a tracked one"):
        done = spell("run", "--ignore", "*.bin", make, cwd=repo)
        listed = [item["path"] for item in spell("ls", f"runs/{done.number}", "--json").json()]
        assert listed == ["deep"], description
        assert spell("ls", f"runs/{done.number}/deep").out.split()[-1] == "keep"
        git(repo, "add", ".")
        git(repo, "commit", "-q", "--allow-empty", "-m", "ignore")
    (tmp_path / ".spellignore").write_text("*.tmp\n")
    done = spell("run", "touch a.tmp b", cwd=tmp_path)  # without a repository, too
    assert [item["path"] for item in spell("ls", f"runs/{done.number}", "--json").json()] == ["b"]


def test_runs_are_mounted_by_number_name_and_latest(spell: Spell) -> None:
    spell.run("echo first > data.txt", name="maker")
    number = spell.run("echo second > data.txt", name="maker").number
    for reference in ("latest", "maker", "latest~2", str(number)):
        done = spell("run", "-m", f"runs/{reference}/data.txt:in/x.txt", "cat in/x.txt")
        assert "\nsecond\n" in done.out, reference
        assert spell.client.runs.get("latest").mounts == [{"resource": f"runs/{number}/data.txt", "path": "in/x.txt"}]


# -- code -------------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_repository_goes_along(spell: Spell, tmp_path: Path) -> None:
    project = tmp_path / "plain"
    (project / "deep").mkdir(parents=True)
    (project / "train.py").write_text("import deep.part, sys; print(sys.argv[1:])")
    (project / "deep" / "part.py").write_text("")
    for name in (".env", "data.bin"):
        (project / name).write_text("x")
    (project / ".gitignore").write_text("*.bin\n")
    done = spell("run", "python", "train.py", "--lr", "0.1", "data.bin", cwd=project)
    assert done.code == 0 and "\n['--lr', '0.1', 'data.bin']\n" in done.out
    assert done.out.startswith("✨ Preparing folder plain (3 files, ")
    assert "WARNING: Left out, as their names are those of secrets: .env\n" in done.err
    assert "WARNING: 'data.bin' is in the command, but it is left out" in done.err
    code = spell.client.runs.get("latest").spec["code"]
    assert (code["repository"], code["commit"], code["dirty"]) == ("plain", "", False)
    assert "Folder        plain\n" in spell("info", "latest").out
    git(project, "init", "-q")  # a repository without commits: the same, from any of its folders
    done = spell("run", "--json", "cat ../.gitignore", cwd=project / "deep")
    assert (done.code, done.json()["spec"]["code"]) == (0, {**code, "subdir": "deep"})
    assert spell("run", "-b", "--no-code", "true", cwd=project).code == 0
    assert spell.client.runs.get("latest").spec["code"] is None


def test_what_is_no_project_is_sent_only_when_asked_for(full: Spell, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("")
    home = {"HOME": str(tmp_path)}
    for folder, env in ((tmp_path, home), (Path("/"), {}), (tmp_path.parent, home)):
        done = full("run", "-b", "echo hi", cwd=folder, env=env)
        assert (done.code, done.err.startswith(NO_REPOSITORY)) == (0, True), folder
        assert full.client.runs.get("latest").spec["code"] is None
    before = full.client.runs.get("latest").number
    done = full("run", "-b", "python train.py", cwd=tmp_path, env=home)
    assert (done.code, "'train.py' is in the command, but no files of" in done.err) == (6, True)
    assert full.client.runs.get("latest").number == before
    done = full("run", "-b", "--whole-folder", "python train.py", cwd=tmp_path, env=home)
    assert (done.code, done.err) == (0, "") and "(1 file, 0B)" in done.out


def test_a_big_folder_is_sent_only_when_asked_for(full: Spell, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "b").open("wb") as file:
        file.truncate(300 << 20)
    before = full.client.runs.get("latest").number
    done = full("run", "-b", "-f", "true", cwd=tmp_path)
    assert (done.code, done.out) == (6, "")
    assert f"Folder {tmp_path.name} is big (2 files, 300M). The biggest in it: data (300M), a (1B)." in done.err
    assert "send all of it: --whole-folder" in done.err
    assert full.client.runs.get("latest").number == before
    (tmp_path / ".spellignore").write_text("/data\n")
    assert full("run", "-b", "true", cwd=tmp_path).code == 0


def test_code_goes_along_with_its_changes(spell: Spell, repo: Path) -> None:
    folder = repo / "sub"
    folder.mkdir()
    (folder / "mine.py").write_text("print('changed')\n")
    git(repo, "add", ".")
    (repo / "new.txt").write_text("new\n")
    (repo / "n\r\nERROR: not a line").touch()
    done = spell("run", "python mine.py; cat ../new.txt", cwd=folder)
    assert "✨ Preparing uncommitted changes…\n" in done.out
    assert "\nchanged\ncat: ../new.txt" in done.out
    assert "WARNING: There are some untracked files in repo project." in done.err
    assert "  n ERROR: not a line\n  new.txt\n  Send them with --include-untracked, or `git add` them.\n" in done.err
    (repo / "n\r\nERROR: not a line").unlink()
    sent = spell("run", "--include-untracked", "cat ../new.txt", cwd=folder)
    assert ("\nnew\n" in sent.out, sent.err) == (True, "")
    run = spell.client.runs.get("latest")
    assert (run.repository, run.dirty, run.description) == ("project", True, "Say hello")


def test_untracked_files_by_configuration(make_spell: Callable[..., Spell], repo: Path) -> None:
    spell = make_spell("tracking", config="include_untracked = true\n")
    (repo / "new.txt").write_text("new\n")
    (repo / ".gitignore").write_text("ignored.txt\n")
    (repo / "ignored.txt").write_text("x")
    done = spell("run", "cat new.txt; ls", cwd=repo)
    assert ("\nnew\n" in done.out, "ignored.txt" in done.out, done.err) == (True, False, "")


def test_other_commits_and_repositories(spell: Spell, repo: Path, tmp_path: Path) -> None:
    (repo / "hello.py").write_text("print('second')\n")
    git(repo, "commit", "-q", "-am", "Second")
    (repo / "hello.py").write_text("print('third')\n")
    done = spell("run", "-c", "HEAD~1", "python hello.py", cwd=repo)
    assert ("\nhello\n" in done.out, "uncommitted" in done.out) == (True, False)
    bad = spell("run", "-c", "HEAD~10", "python hello.py", cwd=repo)
    assert (bad.code, bad.err.splitlines()[0]) == (5, 'ERROR: Could not resolve commit "HEAD~10" for repo project')
    assert "Name a branch, a tag or a commit" in bad.err
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    git(repo, "branch", "old", "HEAD~1")
    cloned = spell("run", "--github-url", str(repo), "--github-ref", "old", "python hello.py", env=env)
    assert ("\nhello\n" in cloned.out, cloned.err) == (True, "")
    plain = spell("run", "--github-url", str(repo), "python hello.py", env=env)
    assert "\nsecond\n" in plain.out
    bad = spell("run", "--github-url", str(repo), "--github-ref", "no-such", "true", env=env)
    assert (bad.code, bad.err.splitlines()[0]) == (5, 'ERROR: Could not resolve commit "no-such" for repo project')
    info = spell("info", str(cloned.number)).out
    assert f"Git URL       {repo}" in info and "Description   Say hello" in info


def test_repository_without_commits_and_without_git(spell: Spell, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    empty = spell("run", "-c", "HEAD", "true", cwd=tmp_path)
    assert empty.code == 5
    without = spell("run", "true", cwd=tmp_path, env={"PATH": "/nonexistent"})
    assert (without.code, "git" in without.err, "Traceback" in without.err) == (6, True, False)


def test_working_directory_that_is_gone(spell: Spell, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = f"cd {gone} && rmdir {gone} && {shlex.quote(str(BIN / 'spell'))} run true"
    done = subprocess.run(["bash", "-c", words], env=spell.env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "ERROR: The current folder does not exist any more.\n       Change into one that exists.\n",
    )


def test_configuration_that_cannot_be_read_is_named(make_spell: Callable[..., Spell], repo: Path) -> None:
    spell = make_spell("broken", config="include_untracked = [\n")
    done = spell("run", "true", cwd=repo)
    assert (done.code, f"ERROR: {spell.home.config}: " in done.err) == (3, True)


# -- the tutorial -----------------------------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def jokes_url() -> Iterator[str]:
    """The shared jokes, served on this machine."""
    if not JOKES.exists():
        pytest.skip(f"{JOKES} is not here")
    handler = functools.partial(_Quiet, directory=str(JOKES.parent))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{JOKES.name}"
        server.shutdown()


def in_bash(spell: Spell, line: str) -> Done:
    """What a person gets who types this line."""
    env = spell.env | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", line], env=env, cwd=spell.cwd, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def test_second_command_of_the_tutorial_with_its_quoting(spell: Spell, jokes_url: str) -> None:
    if not shutil.which("wget"):
        pytest.skip("wget is not installed")
    line = (
        rf'spell run "wget -O data.csv {jokes_url} && python -c \"import csv; '
        r"f = open('data.txt', 'w'); [f.write(row['Joke'] + '\n') for row in csv.DictReader(open('data.csv'))]\""
        '"'
    )
    done = in_bash(spell, line)
    assert done.code == 0, done
    written = (spell.home.run_dir(done.number) / "data.txt").read_text().splitlines()
    with JOKES.open(newline="") as file:
        jokes = [row["Joke"] for row in csv.DictReader(file)]
    assert len(written) == 2950
    assert written == jokes
    assert (spell.home.run_dir(done.number) / "data.csv").read_bytes() == JOKES.read_bytes()
    third = in_bash(spell, f'spell run -m runs/{done.number}/data.txt "wc -l < data.txt && ls -l data.txt"')
    assert third.out.splitlines()[5:7] == ["✨ Run is running", "2950"]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (r'''spell run "echo \"a  b\" 'c  d' \$HOME_OF_NOBODY|"''', None),
        (r"""spell run 'echo "$SPELL_RUN" | wc -l'""", "1"),
        (r'''spell run "for i in 1 2; do echo n\$i; done"''', "n1"),
        (r"""spell run $'echo one\necho two'""", "one"),
        (r'''spell run echo "a  b"''', "a  b"),
        (r'''spell run "cat <<'END'
\$not expanded
END"''', "$not expanded"),
    ],
)  # fmt: skip
def test_quoting_of_a_real_shell(spell: Spell, typed: str, said: str | None) -> None:
    done = in_bash(spell, typed)
    if said is None:
        assert done.code == 2  # the run's shell refuses the pipe into nothing
    else:
        assert (done.code, done.out.splitlines()[5]) == (0, said)
