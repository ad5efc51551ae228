"""The index of packages is away: what was built before starts, and whoever asks for more is told why it cannot be."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import Spell
from wheels import make_index, make_wheel


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of an index, which is away afterwards."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


def test_f36_a_run_starts_without_the_index(make_spell: Callable[..., Spell], tmp_path: Path) -> None:
    """A known environment needs no index, also after the server has started anew; an unknown one says what is wrong."""
    make_index(tmp_path / "index", make_wheel(tmp_path, "tiny"))
    uses = "python -c 'import tiny; print(tiny.VERSION)'"
    with serving(tmp_path / "index") as url:
        spell = make_spell(
            PIP_INDEX_URL=url,
            PIP_CONFIG_FILE="/dev/null",
            UV_CACHE_DIR=str(tmp_path / "cache"),
            UV_HTTP_RETRIES="0",
            NO_PROXY="*",
        )
        first = spell("run", "--pip", "tiny", uses)
        assert first.code == 0 and "1.0" in first.out, first
    known = spell("run", "--pip", "tiny", uses)
    assert known.code == 0 and "1.0" in known.out, known
    assert spell("server", "stop").code == 0
    known = spell("run", "--pip", "tiny", uses)
    assert known.code == 0 and "1.0" in known.out, known
    assert len({spell.client.runs.get(str(number)).environment for number in (1, 2, 3)}) == 1

    unknown = spell("run", "--pip", "absent", "true")
    assert unknown.code not in (0, 2), unknown
    run = spell.client.runs.get("latest")
    assert (run.state, run.reason) == ("build_failed", "build_failed")
    assert "index could not be reached" in (run.message or "") + unknown.out + unknown.err
