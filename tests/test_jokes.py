"""The jokes story through the product: the four job files, each mounting the ones before; one by one, and as a workflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TORCH_REQUEST, Spell

from orchestrator.home import Home

CHECKOUT = Path(__file__).resolve().parents[1]
FRAMEWORKS = f"[frameworks]\ntransformers = {json.dumps(TORCH_REQUEST.requirements)}\n"


def one_by_one(spell: Spell) -> None:
    for number, job in enumerate(("base", "download", "finetune", "generate"), start=1):
        done = spell("run", "--force", "--file", f"jobs/jokes/{job}.yaml", timeout=600)
        assert done.code == 0, done
        assert done.out.endswith(f"🎉 Run {number} complete\n")


def as_a_workflow(spell: Spell) -> None:
    done = spell("workflow", "--force", "jobs/jokes/chain.yaml", timeout=800)
    assert done.code == 0, done
    assert done.out.endswith("🎉 Workflow 1 complete\n")


@pytest.mark.torch
@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", [pytest.param("process", marks=pytest.mark.xdist_group("torch_home")), "docker"])
def test_chain_of_jokes(make_spell: Callable[..., Spell], request: pytest.FixtureRequest, executor: str) -> None:
    known: Home | None = None if executor == "docker" else request.getfixturevalue("torch_home")
    spell = make_spell(config=FRAMEWORKS, cwd=CHECKOUT, root=known and known.root, docker=executor == "docker")
    (one_by_one if executor == "docker" else as_a_workflow)(spell)

    sent = spell("metrics", "jokes-finetune", "--json").json()
    before, after = (item["value"] for item in sent if item["name"] == "held_out_perplexity")
    assert after < before / 2, "finetuning taught it something"
    assert any(item["name"].endswith("loss") for item in sent)

    told = spell("cat", "runs/jokes-generate/jokes.txt").out
    assert told.strip(), "it tells something"
    assert told.splitlines()[0] in spell("logs", "jokes-generate").out

    finetune = spell("info", "jokes-finetune", "--json").json()
    assert [mount["resource"] for mount in finetune["mounts"]] == ["runs/1/model", "runs/2/data.txt"]
    assert finetune["mounted_by"] == [4]
    assert any(package.startswith("torch==") for package in finetune["packages"])
    assert spell("info", "1", "--json").json()["environment"] == finetune["environment"]
    assert finetune["executor"] == executor
    assert {path.name for path in spell.home.run_dir(3).iterdir()} >= {"model"}
    assert not list(spell.home.run_dir(4).rglob("data.txt")), "what was mounted is no output"
