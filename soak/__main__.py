"""`python -m soak --kills 1000 --seed 7`: see the package. The exit code is 1 if anything did not hold."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import docker

from orchestrator.client.client import Client
from soak import checks
from soak.faults import Faults
from soak.people import Story, ask_for_end, cast
from soak.place import Place, engine
from soak.plan import KILLS, Plan

_CASTERS = 4
_STUCK_S, _REMAINS_S = 120.0, 30.0


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--kills", default=1000, help="Kill so many processes and containers, or more.")
@click.option("--runs", default=0, help="Cast until so many were active. 0: half as many as kills.")
@click.option("--seed", type=int, help="Repeat a run of this seed. [default: a random one]")
@click.option(
    "--executor", "executors", multiple=True, help="`process` or `docker`. [default: both, where an engine is]"
)
@click.option("--wave", default=24, help="Cast so many runs before all is checked.")
@click.option("--keep", is_flag=True, help="Keep the home if anything did not hold.")
def main(kills: int, runs: int, seed: int | None, executors: tuple[str, ...], wave: int, *, keep: bool) -> None:
    """Kill at random moments, and check that nothing is lost, doubled, stuck or left."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    api = engine() if "docker" in (executors or ("docker",)) else None
    names = list(executors) or ["process", *(["docker"] if api else [])]
    again = f"python -m soak --kills {kills} --runs {runs} --wave {wave} --seed {seed}"
    click.echo(f"Again: {again} {' '.join(f'--executor {name}' for name in names)}")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    place = Place(folder)
    place.make()
    if not place.has_disk:
        click.echo("The disk is not filled: only root can mount a small one.")
    soak = Soak(place, Plan(seed, names), api, wave)
    began = time.monotonic()
    try:
        soak.run(kills, runs or kills // 2)
    finally:
        place.end()
    soak.report(time.monotonic() - began)
    if soak.complaints and keep:
        click.echo(f"Its home and what was broken when: {folder}")
    else:
        place.remove()
    raise SystemExit(int(bool(soak.complaints)))


class Soak:
    """Waves of runs, each of them checked when its faults are over."""

    def __init__(self, place: Place, plan: Plan, api: docker.APIClient | None, wave: int) -> None:
        self._place, self._plan, self._api, self._wave_size = place, plan, api, wave
        self._stories: list[Story] = []
        self._faults = Faults(place, plan, api, self._stories)
        self._states: Counter[str] = Counter()
        self._started = self._cast = 0
        self.counts = self._faults.counts
        self.complaints: list[str] = []

    @property
    def kills(self) -> int:
        """How many processes and containers have been killed."""
        return sum(self.counts[name] for name in KILLS)

    def run(self, kills: int, runs: int) -> None:
        """Make waves until there were so many kills and runs."""
        with Client(self._place.home) as client:
            while (self.kills < kills or self._started < runs) and not self.complaints:
                self._stories[:] = [Story(self._plan.run()) for _ in range(self._wave_size)]
                self._wave(client)
                self._check(client)
                click.echo(f"{self._cast} runs, {self.kills} kills, {len(self.complaints)} complaints")
            self.complaints += checks.complaints_about_events(client)
        self.complaints += checks.complaints_about_store(self._place)

    def _wave(self, client: Client) -> None:
        """Cast the runs while things break, until all have ended."""
        is_over = threading.Event()
        breaking = threading.Thread(target=self._faults.break_things, args=(is_over,))
        breaking.start()
        try:
            with ThreadPoolExecutor(_CASTERS) as casters, ThreadPoolExecutor(self._wave_size) as askers:

                def one(story: Story) -> None:
                    cast(self._place, story)
                    if story.number:
                        askers.submit(ask_for_end, client, story)

                for done in [casters.submit(one, story) for story in self._stories]:
                    done.result()
            time.sleep(1)  # the last ones are hit, too
        finally:
            is_over.set()
            breaking.join()
            self._place.set_clock(0)

    def _check(self, client: Client) -> None:
        self._cast += len(self._stories)
        for name in ("cli", "git"):
            self.counts[name] += sum(name in story.hits for story in self._stories)
        self.complaints += checks.wait_until_over(client, _STUCK_S)
        for story in self._stories:
            self.complaints += checks.complaints_about(self._place, client, story, self._faults.hits)
        self.complaints += checks.complaints_about_remains(self._place, self._api, _REMAINS_S)
        ended = [client.runs.get(story.number) for story in self._stories if story.number]
        self._states.update(run.state for run in ended)
        self._started += sum(run.started_at is not None for run in ended)

    def report(self, took_s: float) -> None:
        """Print what was done, and what did not hold."""
        click.echo(f"\n{self._cast} runs were wanted, {self._started} were active, in {took_s / 60:.1f} min")
        click.echo("ended as: " + ", ".join(f"{count} {name}" for name, count in self._states.most_common()))
        click.echo(f"{self.kills} kills: " + ", ".join(f"{self.counts[name]} {name}" for name in KILLS))
        click.echo(f"clock set {self.counts['clock']} times, disk filled {self.counts['disk']} times")
        for complaint in self.complaints:
            click.echo(f"NOT SO: {complaint}")
        click.echo("Nothing was lost, doubled, stuck or left." if not self.complaints else "Something did not hold.")


main()
