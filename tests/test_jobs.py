"""The jobs/jokes folder: its job files, its sample, and its scripts run as a person runs them.

The tests marked `torch` build an environment with torch and transformers first.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TORCH_REQUEST
from warm_python import WarmPython, warm_python

from orchestrator.environments import Environments
from orchestrator.home import Home

pytestmark = pytest.mark.xdist_group("torch_home")

REPO = Path(__file__).resolve().parents[1]
JOKES = REPO / "jobs" / "jokes"
JOB_FILES = sorted(set(JOKES.glob("*.yaml")) - {JOKES / "chain.yaml"})
PATIENCE_S = 120  # for one script; a smoke setting takes about 10 s on 2 idle cores
KNOWN_KEYS = set(
    "command description name labels machine_type framework pip mounts env params timeout_min ignore python".split()
)
END_OF_TEXT = "<|endoftext|>"


def run_script(
    script: str, *args: str, cwd: Path, warm: WarmPython | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    if warm:
        return warm.run(JOKES / script, args, cwd, script_env(**env))
    return subprocess.run(
        [sys.executable, str(JOKES / script), *args],
        cwd=cwd,
        env=script_env(**env),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def script_env(**more: str) -> dict[str, str]:
    """The environment of a script outside any run: on the CPU, without a hub."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPELL_")}
    fixed = {
        "PYTHONPATH": str(REPO),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # enough for models this small, and steady on a busy machine
    }
    return clean | fixed | more


# ---- job files ----


@pytest.mark.parametrize("path", JOB_FILES, ids=lambda path: path.stem)
def test_job_file(path: Path) -> None:
    job: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(job) <= KNOWN_KEYS
    assert {"name", "description", "command"} <= set(job)
    assert set(re.findall(r"(?<![\w:]):(\w+):(?![\w:])", job["command"])) == set(job.get("params", {}))
    assert all(isinstance(value, str) for value in job.get("params", {}).values())
    python, script, *_ = job["command"].split()
    assert python == "python"
    assert (REPO / script).is_file()
    assert job["params"]["ARGS"] == "--smoke"  # as it stands, a job file is its smoke setting


def test_job_files_mount_only_what_another_one_leaves() -> None:
    jobs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in JOB_FILES]
    names = [job["name"] for job in jobs]
    assert names == ["jokes-base", "jokes-data", "jokes-finetune", "jokes-generate"]
    mounted = {mount.split("/")[1] for job in jobs for mount in job.get("mounts", [])}
    assert mounted == {"jokes-base", "jokes-data", "jokes-finetune"}


def test_scripts_import_nothing_of_ours_but_the_runtime() -> None:
    for script in JOKES.glob("*.py"):
        found = set()
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
        assert {name for name in found if name.startswith("orchestrator")} <= {"orchestrator.runtime"}
        if script.name == "download.py":
            assert {name.partition(".")[0] for name in found} <= sys.stdlib_module_names


def test_sample_is_well_formed() -> None:
    with (JOKES / "sample.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    assert rows[0] == ["ID", "Joke"]
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(1, len(rows))]
    jokes = [row[1] for row in rows[1:]]
    assert len(set(jokes)) == len(jokes) >= 100
    assert all(joke == joke.strip() and "\n" not in joke and 20 < len(joke) < 200 for joke in jokes)


# ---- download.py ----

GOOD_CSV = 'ID,Joke\r\n1,"Two  lines\nin ""one"" joke"\r\n2,Ça va?\r\n3,  \r\n'.encode()
GOOD_TEXT = f'Two lines in "one" joke{END_OF_TEXT}\nÇa va?{END_OF_TEXT}\n'
BAD_BODIES = {
    "html": (b"<!doctype html><title>Not Found</title>", "must start with the columns ID,Joke"),
    "empty": (b"", "must start with the columns ID,Joke"),
    "columns": (b"id,text\n1,a\n", "must start with the columns ID,Joke"),
    "ragged": (b"ID,Joke\n1,a,b\n", "Row 1 has 3 columns instead of 2"),
    "latin1": ("ID,Joke\n1,Ça va?\n".encode("latin-1"), "not UTF-8"),
    "quote": (b'ID,Joke\n1,"never closed\n', "not a CSV"),
    "few": (b"ID,Joke\n1,a\n", "has 1 jokes, expected 2 or more"),
}


class Handler(BaseHTTPRequestHandler):
    """`/good`, `/short` (breaks off), and each of BAD_BODIES; 404 for the rest."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        bodies = {"good": GOOD_CSV, "short": GOOD_CSV} | {key: body for key, (body, _) in BAD_BODIES.items()}
        if name not in bodies:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(bodies[name]) + (10 if name == "short" else 0)))
        self.end_headers()
        self.wfile.write(bodies[name])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def download(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return run_script("download.py", *args, cwd=cwd, no_proxy="*")


def assert_refused(result: subprocess.CompletedProcess[str], folder: Path, words: str) -> None:
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR: ")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(folder.glob("data.*"))


def test_download_by_http(server: str, tmp_path: Path) -> None:
    result = download(tmp_path, "--url", f"{server}/good", "--least-rows", "2", "--output", "a/b")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a/b/data.csv").read_bytes() == GOOD_CSV
    assert (tmp_path / "a/b/data.txt").read_text(encoding="utf-8") == GOOD_TEXT
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == ["data.csv", "data.txt"]
    assert "2 jokes" in result.stdout


def test_download_from_file(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbf" + GOOD_CSV)  # as spreadsheets write it, with a byte order mark
    assert download(tmp_path, "--csv", "mine.csv", "--least-rows", "2").returncode == 0
    assert (tmp_path / "data.txt").read_text(encoding="utf-8") == GOOD_TEXT


def test_download_smoke_is_the_sample(tmp_path: Path) -> None:
    assert download(tmp_path, "--smoke").returncode == 0
    assert (tmp_path / "data.csv").read_bytes() == (JOKES / "sample.csv").read_bytes()
    lines = (tmp_path / "data.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 128
    assert all(line.endswith(END_OF_TEXT) for line in lines)


@pytest.mark.parametrize("name", BAD_BODIES)
def test_download_refuses_what_is_not_jokes(server: str, tmp_path: Path, name: str) -> None:
    result = download(tmp_path, "--url", f"{server}/{name}", "--least-rows", "2")
    assert_refused(result, tmp_path, BAD_BODIES[name][1])


def test_download_says_what_went_wrong_on_the_way(server: str, tmp_path: Path) -> None:
    assert_refused(download(tmp_path, "--url", f"{server}/nothing"), tmp_path, "answered 404")
    whole = len(GOOD_CSV) + 10
    assert_refused(download(tmp_path, "--url", f"{server}/short"), tmp_path, f"{len(GOOD_CSV)} of {whole} bytes")
    assert_refused(download(tmp_path, "--url", "http://127.0.0.1:1/x"), tmp_path, "cannot be reached")
    assert_refused(download(tmp_path, "--url", "nonsense"), tmp_path, "cannot be read")
    assert_refused(download(tmp_path, "--csv", "missing.csv"), tmp_path, "missing.csv cannot be read: No such file")


# ---- base.py, finetune.py, generate.py ----


@pytest.fixture(scope="module")
def python(torch_home: Home) -> str:
    """A Python with torch and transformers."""
    known = Environments(torch_home).ensure(TORCH_REQUEST, torch_home.store / "build.log", lambda: False)
    return str(known.path / "bin" / "python")


@pytest.fixture(scope="module")
def warm(python: str) -> Iterator[WarmPython]:
    """The same, which has imported them."""
    with warm_python(python, script_env()) as started:
        yield started


@pytest.fixture(scope="module")
def start(warm: WarmPython, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what finetune.yaml mounts: base/ and data.txt."""
    folder = tmp_path_factory.mktemp("start")
    assert download(folder, "--smoke").returncode == 0
    result = run_script("base.py", "--smoke", "--output", "base", cwd=folder, warm=warm)
    assert result.returncode == 0, result.stderr
    return folder


def finetune_args(start: Path, *more: str) -> list[str]:
    return ["--model", str(start / "base"), "--data", str(start / "data.txt"), "--smoke", *more]


def read_metric(path: Path, name: str) -> dict[int, float]:
    """step → value, to the bit."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["value"] for line in lines if line["name"] == name}


@pytest.mark.torch
def test_base_gives_the_same_files_again(warm: WarmPython, start: Path, tmp_path: Path) -> None:
    assert run_script("base.py", "--smoke", "--output", "base", cwd=tmp_path, warm=warm).returncode == 0
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "base" / name).read_bytes() == (start / "base" / name).read_bytes()


@pytest.mark.torch
def test_finetune_then_generate(warm: WarmPython, start: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    result = run_script("finetune.py", *finetune_args(start), cwd=tmp_path, warm=warm, SPELL_METRICS=str(metrics))
    assert result.returncode == 0, result.stderr
    assert re.search(r"^100%.*60/60.*loss=", result.stdout, re.MULTILINE)
    assert "\r" not in result.stdout  # a log file gets lines
    losses, perplexity = read_metric(metrics, "loss"), read_metric(metrics, "held_out_perplexity")
    assert list(losses) == list(range(1, 61))
    assert losses[60] < losses[1]
    assert list(perplexity) == [0, 60]
    assert perplexity[60] < perplexity[0] / 2
    rates = read_metric(metrics, "learning_rate")
    assert max(rates, key=rates.__getitem__) in (6, 7)  # the warm-up ends after a tenth of the steps
    assert rates[1] < rates[6] > rates[60]

    args = ["--model", "model", "--smoke", "--prompt", "My cat"]
    assert run_script("generate.py", *args, "--output", "again.txt", cwd=tmp_path, warm=warm).returncode == 0
    result = run_script("generate.py", *args, cwd=tmp_path, warm=warm)
    assert result.returncode == 0, result.stderr
    jokes = (tmp_path / "jokes.txt").read_text(encoding="utf-8").splitlines()
    assert len(jokes) == 4
    assert all(joke.startswith("My cat") and END_OF_TEXT not in joke for joke in jokes)
    assert all(f"- {joke}" in result.stdout for joke in jokes)
    assert (tmp_path / "again.txt").read_text(encoding="utf-8").splitlines() == jokes


STEPS = ["--steps", "10", "--checkpoint-every", "5"]  # 54 blocks, 16 a step: an epoch ends in the middle of a step


@pytest.fixture(scope="module")
def straight(warm: WarmPython, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that went through without a break: metrics.jsonl, model/ and checkpoints/."""
    folder = tmp_path_factory.mktemp("straight")
    args = finetune_args(start, *STEPS, "--resume", "auto")  # auto: there is nothing yet, so it starts afresh
    result = run_script("finetune.py", *args, cwd=folder, warm=warm, SPELL_METRICS=str(folder / "metrics.jsonl"))
    assert result.returncode == 0, result.stderr
    assert "Resumed" not in result.stdout
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000005", "step-000010"]
    return folder


@pytest.mark.torch
def test_resume_gives_the_same_bits(warm: WarmPython, start: Path, straight: Path, tmp_path: Path) -> None:
    half, metrics = str(straight / "checkpoints" / "step-000005"), tmp_path / "metrics.jsonl"
    args = finetune_args(start, *STEPS, "--resume", half)
    result = run_script("finetune.py", *args, cwd=tmp_path, warm=warm, SPELL_METRICS=str(metrics))
    assert result.returncode == 0, result.stderr
    assert f"Resumed from {half}" in result.stdout
    expected = {step: loss for step, loss in read_metric(straight / "metrics.jsonl", "loss").items() if step > 5}
    assert list(expected) == [6, 7, 8, 9, 10]
    assert read_metric(metrics, "loss") == expected
    for name in ("held_out_perplexity", "learning_rate"):
        assert read_metric(metrics, name).items() <= read_metric(straight / "metrics.jsonl", name).items()
    for weights in ("model/model.safetensors", "checkpoints/step-000010/model.safetensors"):
        assert (tmp_path / weights).read_bytes() == (straight / weights).read_bytes()


@pytest.mark.torch
def test_resume_auto_goes_on_after_the_newest(warm: WarmPython, start: Path, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight / "checkpoints" / "step-000005", tmp_path / "checkpoints" / "step-000005")
    args = finetune_args(start, "--resume", "auto", "--checkpoint-every", "1")
    result = run_script("finetune.py", *args, cwd=tmp_path, warm=warm)
    assert result.returncode == 0, result.stderr
    assert "Resumed from checkpoints/step-000005" in result.stdout
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000009", "step-000010"]
    assert (tmp_path / "model/model.safetensors").read_bytes() == (straight / "model/model.safetensors").read_bytes()


@pytest.mark.torch
def test_stop_writes_a_checkpoint_that_goes_on(python: str, warm: WarmPython, start: Path, tmp_path: Path) -> None:
    args = finetune_args(start, "--steps", "1000000", "--checkpoint-every", "1000000")
    command = [python, str(JOKES / "finetune.py"), *args]
    with subprocess.Popen(
        command, cwd=tmp_path, env=script_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = threading.Timer(PATIENCE_S, process.kill)
        deadline.start()
        assert process.stdout
        before = [line for line in iter(process.stdout.readline, "") if stop_when_trained(process, line)]
        deadline.cancel()
    assert process.returncode == 0, "".join(before)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert step > 0
    assert f"Stopped at step {step} of 1000000; go on with --resume checkpoints/{checkpoint.name}" in before[-1]
    assert not (tmp_path / "model").exists()
    progress = json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))["progress"]
    assert (progress["step"], progress["blocks_seen"]) == (step, step * 16)
    result = run_script("generate.py", "--model", str(checkpoint), "--smoke", cwd=tmp_path, warm=warm)
    assert result.returncode == 0, result.stderr


def stop_when_trained(process: subprocess.Popen[str], line: str) -> bool:
    """Ask `process` to stop when `line` shows that steps were done; always True."""
    if "loss=" in line:
        process.send_signal(signal.SIGTERM)
    return True


@pytest.mark.torch
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--learning-rate", "1", "--resume", "checkpoints"], "was trained with learning_rate = 0.002, not 1.0"),
        (["--data", "other.txt", "--resume", "checkpoints"], "other.txt is not the text that"),
        (["--resume", "nowhere"], "nowhere has no checkpoint"),
    ],
    ids=["knob", "data", "nothing"],
)
def test_resume_refuses(
    warm: WarmPython, start: Path, straight: Path, tmp_path: Path, more: list[str], words: str
) -> None:
    (tmp_path / "other.txt").write_text("Another joke that has a few more words than the last one.\n" * 50)
    (tmp_path / "checkpoints").symlink_to(straight / "checkpoints")
    result = run_script("finetune.py", *finetune_args(start, *more), cwd=tmp_path, warm=warm)
    assert result.returncode == 1
    assert result.stderr.startswith("ERROR: ")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.torch
def test_scripts_say_which_model_is_missing(warm: WarmPython, start: Path, tmp_path: Path) -> None:
    for script, more in (("finetune.py", ["--data", str(start / "data.txt")]), ("generate.py", [])):
        result = run_script(script, "--model", "nowhere", *more, cwd=tmp_path, warm=warm)
        assert result.returncode == 1
        assert "ERROR: cannot load model nowhere: " in result.stderr
        assert "Traceback" not in result.stderr
