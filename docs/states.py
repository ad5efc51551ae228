"""Writes docs/states.md: the states of a run, drawn from the tables of `orchestrator/states.py`.

    python docs/states.py > docs/states.md

The diagram is Mermaid, https://mermaid.js.org/syntax/stateDiagram.html, which code hosts draw. A test compares the page with
what this script prints.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.states import ACTIVE, ENDS, FINAL, KEEPS_OUTPUTS, MOVES, State

_TEXT = """# States of a run

<!-- Written by docs/states.py from the tables of orchestrator/states.py. Change those, and run it again. -->

```mermaid
{diagram}
```

A run starts as `{start}`. An arrow that leaves the box `active` can be taken from every state in it. An arrow back to
`{start}` takes the run to the queue again: its attempt failed and another one is allowed, or the server
ended before it had started anything. A final state never changes. Only `Store` in
`store/store.py` writes a state; `store/imports.py` records an imported run in its final one.

| final state | outputs | end reasons |
| --- | --- | --- |
{states}

| end reason | what a person reads | `--retries` may try again |
| --- | --- | --- |
{reasons}
"""


def diagram() -> Iterator[str]:
    """The lines of the diagram. A move that is legal from every active state is drawn once, from the box around them."""
    always = frozenset.intersection(*(MOVES[state] for state in ACTIVE))
    yield "stateDiagram-v2"
    yield "    state active {"
    yield f"        [*] --> {State.MACHINE_REQUESTED}"
    yield from (f"        {state} --> {to}" for state in State for to in State if to in MOVES[state] & ACTIVE)
    yield "    }"
    yield from (f"    active --> {to}" for to in State if to in always)
    yield from (f"    {state} --> {to}" for state in State for to in State if to in (MOVES[state] & FINAL) - always)
    yield from (f"    {state} --> [*]" for state in State if state in FINAL)


def _states() -> Iterator[str]:
    for state in State:
        if state in FINAL:
            reasons = ", ".join(f"`{reason}`" for reason, end in ENDS.items() if end.state == state)
            yield f"| `{state}` | {'kept' if state in KEEPS_OUTPUTS else 'none'} | {reasons} |"


def _reasons() -> Iterator[str]:
    for reason, end in ENDS.items():
        words = end.text.format(code="N", signal="N", detail=end.usual or "…")
        yield f"| `{reason}` | {words} | {'yes' if end.retryable else 'no'} |"


def page() -> str:
    """The whole page."""
    return _TEXT.format(
        diagram="\n".join(diagram()),
        start=State.MACHINE_REQUESTED,
        states="\n".join(_states()),
        reasons="\n".join(_reasons()),
    )


if __name__ == "__main__":
    print(page(), end="")
