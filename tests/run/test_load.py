"""A finished run is opened, sampled by a seed, compared with its start and scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import CheckpointError, ConfigError, DataError

ASKED = ["a picture of 3 things", "a picture of 3 things", "a picture of 4 things"]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_is_sampled_by_a_seed_and_its_start_beside_it(
    run_file: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "run"
    mmalign.train(run_file(kind), out=out)
    run = mmalign.load_run(out)
    assert run.step == 4
    after = run.generate(ASKED, seed=7)
    with run.start():
        before = run.generate(ASKED, seed=7)
    assert torch.equal(after.output, run.generate([mmalign.Prompt(text) for text in ASKED], seed=7).output)
    assert not torch.equal(after.output[0], after.output[1])  # one prompt, two draws
    assert not torch.equal(after.output, run.generate(ASKED, seed=8).output)
    assert not torch.equal(after.output, before.output)

    untouched = mmalign.load_adapter(**run.parts.file.adapter)
    policy: Any = run.parts.policy
    policy.adapter = untouched
    assert torch.equal(run.generate(ASKED, seed=7).output, before.output)


def test_outputs_made_anywhere_are_scored_as_the_run_was(run_file: Callable[..., Path], tmp_path: Path) -> None:
    mmalign.train(run_file(), out=tmp_path / "run")
    run = mmalign.load_run(tmp_path / "run")
    given = mmalign.Rollout.of(ASKED, torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert given.group.tolist() == [0, 0, 1]
    found = run.score(given)
    assert list(found) == ["crisp", "small"]
    assert torch.equal(found["crisp"].value, mmalign.load_reward("sharpness")(given).value)


def test_what_cannot_be_opened_is_said(run_file: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run.yaml in it; name a directory that `mmalign train` wrote"):
        mmalign.load_run(tmp_path / "nowhere")
    mmalign.train(run_file(), out=tmp_path / "run")
    with pytest.raises(DataError, match="there are no prompts; give at least one"):
        mmalign.load_run(tmp_path / "run").generate([])
    for done in (tmp_path / "run" / "checkpoints").glob("*/done"):
        done.unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        mmalign.load_run(tmp_path / "run")
    with pytest.raises(ValueError, match="3 prompts for 2 outputs; give one for each"):
        mmalign.Rollout.of(ASKED, torch.zeros(2, 3, 8, 8))


def test_a_reward_that_cannot_be_built_here_is_a_sentence(run_file: Callable[..., Path], tmp_path: Path) -> None:
    """Its module is not allowed, its reference is gone: the others, and what was learned, are there."""
    mmalign.train(run_file(), out=tmp_path / "run")
    said = (file := tmp_path / "run" / "run.yaml").read_text()
    gone = {"crisp": ["rewards.crisp={name: 'mine:Gone'}"], "small": ["evaluation.judges.small={name: 'mine:Gone'}"]}
    for name, changes in gone.items():
        run = mmalign.load_run(tmp_path / "run", changes=changes)
        made = run.generate(ASKED, seed=7)
        found = run.score(made)
        assert set(found) == {"crisp", "small"} and not found[name].valid.any()
        assert "mine" in found[name].info[0] and found[({*gone} - {name}).pop()].valid.all()
    with pytest.raises(ConfigError, match=r"adapter\.modl"):
        mmalign.load_run(tmp_path / "run", changes=["adapter.modl=x"])
    assert file.read_text() == said and "step 4 of image" in repr(run)


def test_what_a_notebook_shows_is_a_line(run_file: Callable[..., Path], tmp_path: Path) -> None:
    finished = mmalign.train(run_file(), out=tmp_path / "run")
    assert repr(finished).startswith(f"Finished({tmp_path / 'run'}: crisp ") and "tensor" not in repr(finished)
    shown = repr(mmalign.Rollout.of(ASKED, torch.zeros(3, 3, 8, 8)))
    assert shown == "Rollout(3 pictures (3, 3, 8, 8), 2 groups)"
    assert repr(mmalign.Rollout.of(["a"], ["b"])) == "Rollout(1 texts, 1 groups)"
