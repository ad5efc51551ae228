"""Opens a URL with a token in the browser, by a page that leads there: arguments of programs are seen by everybody."""

from __future__ import annotations

from pathlib import Path

import click

_PAGE = '<!doctype html><meta http-equiv="refresh" content="0; url={url}">\n'


def browse(url: str, folder: Path) -> None:
    """Open a URL in the browser.

    Args:
        folder: for the page; only its owner can read it. It must stay as long as the browser may need.
    """
    page = folder / "open.html"
    page.write_text(_PAGE.format(url=url))
    click.launch(page.as_uri())
