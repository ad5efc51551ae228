"""A test that needed a second run is a flake. A few are tolerated and named; more than that fail the whole run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where `--reruns` says how often a test may be run again, this says how many tests may need it."""
    parser.addoption("--most-reruns", type=int, metavar="N", help="fail when more than N tests needed to be run again")


def _again(config: pytest.Config) -> list[str]:
    """The tests that were run again. Only the process that reports knows; a worker of xdist knows none."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return sorted({report.nodeid for report in reporter.getreports("rerun")}) if reporter else []


def _too_many(config: pytest.Config) -> bool:
    most = config.getoption("most_reruns")
    return most is not None and len(_again(config)) > most


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run with too many of them."""
    if exitstatus == pytest.ExitCode.OK and _too_many(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name each."""
    again = _again(config)
    if not again:
        return
    terminalreporter.section("tests that were run again")
    for name in again:
        terminalreporter.line(name)
    if _too_many(config):
        terminalreporter.line(
            f"{len(again)} tests were run again, {config.getoption('most_reruns')} may: this run failed."
        )
