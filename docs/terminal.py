"""Draws docs/terminal.svg, the picture of the README: a real session of `spell`, on a terminal and in a new home.

    python docs/terminal.py

It takes the `spell` that is installed beside the Python that runs it, types the commands of `SESSION` in a small
repository, and draws what came back. Nothing is made up, so times and hashes differ from one picture to the next.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 84
SESSION = [
    'spell run "seq 1 100000 > data.txt"',
    'spell run -m runs/1/data.txt --name train "python train.py --data data.txt"',
    "spell ps",
    "spell metrics train",
    "spell ls -h runs/train",
]
TRAIN = """
import argparse, pathlib, time
from orchestrator.runtime import send_metric

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=pathlib.Path)
numbers = [int(line) for line in parser.parse_args().data.read_text().split()]
for epoch in range(1, 4):
    loss = 1 / (epoch * epoch + 0.1)
    print(f"epoch {epoch}  {len(numbers)} numbers  loss {loss:.3f}", flush=True)
    send_metric("loss", loss, step=epoch)
    time.sleep(0.3)
pathlib.Path("model.bin").write_bytes(bytes(250_000))
"""
# Without the web fonts, which no picture in a README can load.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def on_a_terminal(command: str, cwd: Path, env: Mapping[str, str]) -> str:
    """What a terminal of `COLUMNS` columns is sent when this command is typed on it."""
    master, slave = os.openpty()
    process = subprocess.Popen(["sh", "-c", command], cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # EIO: no process holds the other end any more
        while piece := os.read(master, 1 << 16):
            said += piece
    os.close(master)
    if process.wait():
        sys.exit(f"{command} exited with {process.returncode}:\n{said.decode(errors='replace')}")
    return said.decode()


def record(folder: Path) -> list[tuple[str, str]]:
    """Type the whole session in `folder`; returns each command and what it said."""
    code, home = folder / "code", folder / "home"
    code.mkdir()
    home.mkdir()
    (code / "train.py").write_text(TRAIN.lstrip())
    (home / "config.toml").write_text('executor = "process"\n')
    for words in ("init -q -b main", "add .", "-c user.name=me -c user.email=me@localhost commit -q -m Train"):
        subprocess.run(["git", *words.split()], cwd=code, check=True)
    bin_folder = Path(sys.executable).parent
    env = {
        "HOME": str(folder),
        "SPELL_HOME": str(home),
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "COLUMNS": str(COLUMNS),
    }
    subprocess.run([bin_folder / "spell", "server", "start"], cwd=code, env=env, check=True, capture_output=True)
    try:
        return [(command, on_a_terminal(command, code, env)) for command in SESSION]
    finally:
        subprocess.run([bin_folder / "spell", "server", "stop"], cwd=code, env=env, check=True, capture_output=True)


def draw(session: list[tuple[str, str]]) -> str:
    """The session as an SVG. A line that a spinner drew again and again is shown as it was last."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        for number, (command, said) in enumerate(session):
            if number:
                console.print()
            console.print(Text.assemble(("$ ", "green"), (command, "bold")))
            console.print(Text.from_ansi(said.replace("\r\n", "\n").rstrip()))
        return console.export_svg(title="spell", theme=MONOKAI, code_format=_FORMAT, unique_id="terminal")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        picture = draw(record(Path(name)))
    (Path(__file__).parent / "terminal.svg").write_text(picture)
