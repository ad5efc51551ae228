"""`spell lineage`: what a run was made of, and what was made of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from conftest import Spell

from orchestrator.spec.mounts import Mount


@pytest.fixture(scope="module")
def spell(make_shared: Callable[..., Spell]) -> Spell:
    """A home that the tests of this module share."""
    return make_shared("lineage")


def test_a_diamond(spell: Spell) -> None:
    (spell.home.root / "uploads" / "set").mkdir(parents=True, exist_ok=True)
    (spell.home.root / "uploads" / "set" / "f").write_text("x")
    base = spell.run("cp set/f data", mounts=(Mount("uploads/set", "set"),), name="base").number
    left, right = (spell.run(f"cp data {n}", mounts=(Mount(f"runs/{base}/data", "data"),)).number for n in "lr")
    both = (Mount(f"runs/{left}/l", "l"), Mount(f"runs/{right}/r", "r"))
    top = spell.run("cat l r > all", mounts=both, name="top").number
    done = spell("lineage", "top")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"run {top} top (Complete (0)): cat l r > all\n"
        "Made of\n"
        f"├─ runs/{left}/l at l: run {left} (Complete (0)): cp data l\n"
        f"│  └─ runs/{base}/data at data: run {base} base (Complete (0)): cp set/f data\n"
        "│     └─ uploads/set at set: uploads/set\n"
        f"└─ runs/{right}/r at r: run {right} (Complete (0)): cp data r\n"
        f"   └─ runs/{base}/data at data: run {base} base (Complete (0)): cp set/f data (see above)\n"
        "No run mounted its outputs.\n"
    )
    assert "Made of" not in spell("lineage", str(base), "--down").out
    down = spell("lineage", str(base), "--down").out.splitlines()
    assert down[-1].endswith("(see above)") is False and sum(f"run {top} top" in line for line in down) == 2
    found = spell("lineage", "top", "--json").json()
    assert [node["id"] for node in found["nodes"]] == [f"runs/{n}" for n in (base, left, right, top)] + ["uploads/set"]
    assert len(found["edges"]) == 5 and found["complete"] is True
    shutil.rmtree(spell.home.root / "uploads" / "set")
    assert "uploads/set (gone)" in spell("lineage", "top", "--up").out


def test_outputs_that_are_gone(spell: Spell) -> None:
    one = spell.run("echo x > f").number
    spell.run("true", mounts=(Mount(f"runs/{one}/f", "f"),))
    folder = spell.home.run_dir(one)
    folder.chmod(0o755)
    shutil.rmtree(folder)
    assert "outputs removed" in spell("lineage", "latest").out
    assert spell("lineage", "nobody").code == 1


def test_a_chain_of_thousands(spell: Spell) -> None:
    first = spell.run("echo x > f").number
    count = 3000
    with spell.changed_store() as store:
        names = [row[1] for row in store.execute("PRAGMA table_info(runs)") if row[1] != "number"]
        columns = ", ".join(f'"{name}"' for name in names)
        for number in range(first + 1, first + count):
            values = (number, first)
            store.execute(
                f"INSERT INTO runs (number, {columns}) SELECT ?, {columns} FROM runs WHERE number = ?", values
            )
            values = (number, f"runs/{number - 1}/f", number - 1)
            store.execute("INSERT INTO mounts VALUES (?, 0, ?, 'f', ?)", values)
    found = spell.client.lineage.get(str(first))
    assert (len(found.nodes), len(found.edges), found.complete) == (count, count - 1, True)
    shown = spell("lineage", str(first))
    assert shown.code == 0 and len(shown.out.splitlines()) == 23 and "--depth 30" in shown.out
    deep = spell("lineage", str(first + count - 1), "--depth", "10000")
    assert deep.code == 0 and "The tree is not complete." in deep.err
