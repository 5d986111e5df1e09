"""Checkpoints are complete or ignored, and a resumed run is the uninterrupted one, bit for bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.errors import CheckpointError
from mmalign.objectives.grpo import GRPO
from mmalign.rewards import Mix
from mmalign.rewards.combine.lagrangian import Lagrangian
from mmalign.training import checkpoint
from mmalign.training.loop import train
from tests.toys import NearPoint
from tests.training.problem import Problem, save_into


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "minibatches": 2, "weight_decay": 0.1}])
def test_resume_equals_the_uninterrupted_run(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = Problem(**options)
    train(whole.policy, whole.objective, whole.session)

    first = Problem(**{**options, "steps": 3})
    train(first.policy, first.objective, first.session, [save_into(tmp_path, first)])
    torch.manual_seed(123)  # resume must not lean on global random state
    second = Problem(**options)
    checkpoint.load(checkpoint.latest(tmp_path), second.session, {"policy": second.policy})
    assert second.session.step == 3
    train(second.policy, second.objective, second.session)

    for name, value in whole.weights().items():
        assert torch.equal(second.weights()[name], value), name
    untimed = [{k: v for k, v in n.items() if not k.startswith("time/")} for _, n in whole.lines[3:]]
    again = [{k: v for k, v in n.items() if not k.startswith("time/")} for _, n in second.lines]
    assert again == untimed
    if options:
        for one, other in zip(second.session.update_rule.average, whole.session.update_rule.average, strict=True):
            assert torch.equal(one, other)


def held_at_threshold() -> GRPO:
    """GRPO on a reward that is kept near a threshold by a multiplier that learns."""
    held = Lagrangian({"held": -1.0}, multiplier="projected", lr=0.3, momentum=0.5)
    return GRPO(Mix({"main": NearPoint(), "held": NearPoint((-1.0, 1.0))}, held), group_size=4)


def test_multipliers_resume_exactly(tmp_path: Path) -> None:
    whole = Problem(objective=held_at_threshold())
    train(whole.policy, whole.objective, whole.session)

    first = Problem(objective=held_at_threshold(), steps=3)
    train(first.policy, first.objective, first.session, [save_into(tmp_path, first)])
    halfway = first.objective.reward.combination.multipliers["held"]
    second = Problem(objective=held_at_threshold())
    checkpoint.load(checkpoint.latest(tmp_path), second.session, second.stateful())
    assert second.objective.reward.combination.multipliers["held"] == halfway > 0
    train(second.policy, second.objective, second.session)

    assert [n["multiplier/held"] for _, n in second.lines] == [n["multiplier/held"] for _, n in whole.lines[3:]]
    assert second.lines[-1][1]["multiplier/held"] != pytest.approx(halfway)
    assert all(torch.equal(second.weights()[name], value) for name, value in whole.weights().items())


def trained(tmp_path: Path, steps: int = 3) -> Problem:
    problem = Problem(steps=steps)
    train(problem.policy, problem.objective, problem.session, [save_into(tmp_path, problem)])
    return problem


def test_only_the_newest_are_kept_and_unfinished_ones_are_ignored(tmp_path: Path) -> None:
    trained(tmp_path)
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step_000002", "step_000003"]
    (tmp_path / "step_000003" / "done").unlink()
    assert checkpoint.latest(tmp_path).name == "step_000002"
    shutil.rmtree(tmp_path / "step_000002")
    with pytest.raises(CheckpointError, match=r"no complete checkpoint \(.*incomplete: step_000003\); start the run"):
        checkpoint.latest(tmp_path)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    trained(tmp_path)
    weights = tmp_path / "step_000003" / "state" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"step_000003: cannot be read .* resume from an earlier checkpoint"):
        checkpoint.load(checkpoint.latest(tmp_path), Problem().session)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    other = Problem()
    other.session.update_rule.parameters = other.session.update_rule.parameters[:2]
    with pytest.raises(CheckpointError, match=r"holds 4 trained tensors, the run has 2"):
        checkpoint.load(checkpoint.latest(tmp_path), other.session)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """The operating system itself refuses the write: files of this process may not grow beyond 600 bytes."""
    import resource
    import signal

    problem = trained(tmp_path, steps=2)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    problem.session.step = 9
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(
            CheckpointError, match=r"step_000009: could not be written .*still whole: step_000001, step_000002"
        ):
            checkpoint.save(tmp_path, problem.session, problem.adapter)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
