"""What the experiments on papers share: sums over seeds, the JSON, and every experiment's own statement."""

from __future__ import annotations

import importlib
import json
import pkgutil
from pathlib import Path

import pytest
import torch
from scipy.stats import mannwhitneyu, t

import pipelines.papers
from mmalign.papers import founding_papers
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, run, summary

NAMES = [module.name for module in pkgutil.iter_modules(pipelines.papers.__path__) if not module.name.startswith("_")]


def experiment(holds: bool = True) -> Experiment:
    def measure(seed: int) -> Arms:
        return {"own": {"truth": 0.5 + seed}, "control": {"truth": 0.25}}

    return Experiment(
        number=4,
        name="none",
        claim="It rises.",
        falsified_if="it does not",
        control="nothing",
        measure=measure,
        holds=lambda means: (means["own"]["truth"] > means["control"]["truth"]) == holds,
    )


def test_intervals_over_seeds_are_students() -> None:
    own = summary([{"own": {"truth": value}} for value in (0.1, 0.2, 0.6)])["own"]["truth"]
    low, high = t.interval(0.95, 2, loc=0.3, scale=torch.tensor([0.1, 0.2, 0.6]).std().item() / 3**0.5)
    assert own["mean"] == pytest.approx(0.3) and own["interval"] == pytest.approx([low, high], abs=1e-4)
    assert summary([{"own": {"truth": 1.0}}])["own"]["truth"]["interval"] == [None, None]


@pytest.mark.parametrize("holds", [True, False])
def test_a_claim_that_does_not_hold_is_written_too(holds: bool, tmp_path: Path) -> None:
    run(experiment(holds), [0, 1], tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["holds"] is holds and result["falsified_if"] == "it does not" and result["commit"]
    assert result["arms"]["own"]["truth"]["by_seed"] == [0.5, 1.5] and result["command"].endswith("none --seeds 0 1")


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_states_what_would_falsify_it(name: str) -> None:
    """It is of a paper, under its own name; a committed result says what the code says."""
    own: Experiment = importlib.import_module(f"pipelines.papers.{name}").EXPERIMENT
    assert own.name == name and own.number in {paper.number for paper in founding_papers()}
    assert own.claim and own.falsified_if and own.control
    if own.path.exists():
        result = json.loads(own.path.read_text())
        assert [result[key] for key in ("paper", "claim", "falsified_if")] == [own.number, own.claim, own.falsified_if]
        means = {arm: {k: v["mean"] for k, v in measures.items()} for arm, measures in result["arms"].items()}
        assert own.holds(means) == result["holds"] and "+" not in result["commit"]


def test_the_worlds_truths() -> None:
    assert world.means_the_same("a red circle and two stars", "two stars and a red circle")
    assert not world.means_the_same("no caption", "a red circle")
    assert world.clause_share("a red circle", "a red circle") == 1
    assert 0 < world.clause_share("a blue circle", "a red circle") < 1 and world.clause_share("x", "a red circle") == 0
    assert world.edited([1, 2, 3, 9], [1, 5, 3]) == [False, True, False, True]


def test_auroc_is_that_of_scipy() -> None:
    rng = torch.Generator().manual_seed(0)
    one, other = torch.randint(6, (40,), generator=rng).float(), torch.randint(5, (30,), generator=rng).float()
    assert world.auroc(one, other) == pytest.approx(mannwhitneyu(one, other).statistic / (40 * 30))
