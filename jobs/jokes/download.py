"""Download the jokes, a CSV with the columns ID and Joke, check them, and write them as plain text too.

    python jobs/jokes/download.py                     # from the public repository amoudgl/short-jokes-dataset
    python jobs/jokes/download.py --csv my-jokes.csv  # from a file
    python jobs/jokes/download.py --smoke             # the sample beside this script, no network

Writes two files into --output, each under a temporary name first and then renamed, so that neither is ever incomplete:

    data.csv   the bytes as they came
    data.txt   one joke a line, each followed by <|endoftext|>, which marks the end of a text for GPT-2

It uses only the standard library, so a run of this script needs no environment.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import io
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

URL = "https://raw.githubusercontent.com/amoudgl/short-jokes-dataset/master/data/onelinefun.csv"
SAMPLE = Path(__file__).with_name("sample.csv")
END_OF_TEXT = "<|endoftext|>"
COLUMNS = ["ID", "Joke"]
MOST_BYTES = 256 * 2**20  # bytes; a joke file larger than this is something else


class BadData(Exception):
    """The source has no file of jokes; the message says why."""


def parse_knobs() -> argparse.Namespace:
    """The knobs of this script, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", default=URL, help="address of the CSV (default: %(default)s)")
    source.add_argument("--csv", type=Path, help="use this file instead")
    source.add_argument("--smoke", action="store_true", help=f"use the shipped sample {SAMPLE.name}")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for data.csv and data.txt (default: here)")
    parser.add_argument("--least-rows", type=int, default=100, help="fewer jokes are an error (default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=30, help="give up on a silent server (default: %(default)s)")
    return parser.parse_args()


def fetch(url: str, timeout_s: float) -> bytes:
    """Return the body of `url`.

    Raises:
        BadData: if it cannot be read, or only in part.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            body: bytes = answer.read(MOST_BYTES + 1)
            announced = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        raise BadData(f"{url} answered {error.code} {error.reason}.") from error
    except urllib.error.URLError as error:
        raise BadData(f"{url} cannot be reached: {error.reason}. Without a network, use --csv or --smoke.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BadData(f"{url} cannot be read: {error!r}.") from error
    # read() with a limit returns a short body without an error, so the length is compared here.
    if announced is not None and len(body) <= MOST_BYTES and len(body) != int(announced):
        raise BadData(f"{url} broke off after {len(body):,} of {int(announced):,} bytes.")
    return body


def read_file(path: Path) -> bytes:
    """Return the bytes of `path`.

    Raises:
        BadData: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}.") from error


def parse_jokes(body: bytes, least_rows: int) -> list[str]:
    """Return the jokes of a CSV in its order, each as one line.

    Raises:
        BadData: if `body` is not a UTF-8 CSV with the columns ID and Joke and at least `least_rows` jokes.
    """
    if len(body) > MOST_BYTES:
        raise BadData(f"The file has more than {MOST_BYTES:,} bytes.")
    try:
        rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise BadData(f"The file is not UTF-8: {error.reason} at byte {error.start:,}.") from error
    except csv.Error as error:
        raise BadData(f"The file is not a CSV: {error}.") from error
    if not rows or rows[0] != COLUMNS:
        found = ",".join(rows[0])[:60] if rows else "nothing"
        raise BadData(f"The file must start with the columns {','.join(COLUMNS)}, but it starts with {found!r}.")
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(COLUMNS):
            raise BadData(f"Row {number} has {len(row)} columns instead of {len(COLUMNS)}: {','.join(row)[:60]!r}.")
    jokes = [" ".join(joke.replace(END_OF_TEXT, " ").split()) for _, joke in rows[1:]]
    jokes = [joke for joke in jokes if joke]
    if len(jokes) < least_rows:
        raise BadData(f"The file has {len(jokes):,} jokes, expected {least_rows:,} or more (see --least-rows).")
    return jokes


def write_whole(path: Path, body: bytes) -> None:
    """Write a temporary file beside `path`, then rename it: a reader sees all of it or nothing."""
    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(body)
    beside.replace(path)
    print(f"{path}: {len(body):,} bytes")


def main() -> None:
    """Fetch, check, write."""
    knobs = parse_knobs()
    path: Path | None = SAMPLE if knobs.smoke else knobs.csv
    print(f"Jokes from {os.path.relpath(path) if path else knobs.url}", flush=True)
    try:
        body = read_file(path) if path else fetch(knobs.url, knobs.timeout_s)
        jokes = parse_jokes(body, knobs.least_rows)
    except BadData as error:
        sys.exit(f"ERROR: {error}")
    knobs.output.mkdir(parents=True, exist_ok=True)
    write_whole(knobs.output / "data.csv", body)
    write_whole(knobs.output / "data.txt", "".join(f"{joke}{END_OF_TEXT}\n" for joke in jokes).encode())
    print(f"{len(jokes):,} jokes, {sum(map(len, jokes)) / len(jokes):.0f} characters each on average")


if __name__ == "__main__":
    main()
