"""Checkpoints are complete or ignored, and a resumed run is the uninterrupted one, bit for bit."""

import json
import os
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
from mmalign.training.loop import training_loop
from tests.toys import NearPoint
from tests.training.problem import Problem, save_into


@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "minibatches": 2, "weight_decay": 0.1}])
def test_resume_equals_the_uninterrupted_run(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = Problem(**options)
    training_loop(whole.policy, whole.objective, whole.session)

    first = Problem(**{**options, "steps": 3})
    training_loop(first.policy, first.objective, first.session, [save_into(tmp_path, first)])
    torch.manual_seed(123)  # resume must not lean on global random state
    second = Problem(**options)
    checkpoint.load_checkpoint(checkpoint.latest(tmp_path), second.session, {"policy": second.policy})
    assert second.session.step == 3
    training_loop(second.policy, second.objective, second.session)

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
    training_loop(whole.policy, whole.objective, whole.session)

    first = Problem(objective=held_at_threshold(), steps=3)
    training_loop(first.policy, first.objective, first.session, [save_into(tmp_path, first)])
    halfway = first.objective.reward.combination.multipliers["held"]
    second = Problem(objective=held_at_threshold())
    checkpoint.load_checkpoint(checkpoint.latest(tmp_path), second.session, second.stateful())
    assert second.objective.reward.combination.multipliers["held"] == halfway > 0
    training_loop(second.policy, second.objective, second.session)

    assert [n["multiplier/held"] for _, n in second.lines] == [n["multiplier/held"] for _, n in whole.lines[3:]]
    assert second.lines[-1][1]["multiplier/held"] != pytest.approx(halfway)
    assert all(torch.equal(second.weights()[name], value) for name, value in whole.weights().items())


def trained(tmp_path: Path, steps: int = 3) -> Problem:
    problem = Problem(steps=steps)
    training_loop(problem.policy, problem.objective, problem.session, [save_into(tmp_path, problem)])
    return problem


def test_only_the_newest_are_kept_and_unfinished_ones_are_ignored(tmp_path: Path) -> None:
    trained(tmp_path)
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step_000002", "step_000003"]
    (tmp_path / "step_000003" / "done").unlink()
    assert checkpoint.latest(tmp_path).name == "step_000002"
    shutil.rmtree(tmp_path / "step_000002")
    told = r"no complete checkpoint; not whole: step_000003 \(no 'done' file, so it is incomplete\); start the run"
    with pytest.raises(CheckpointError, match=told):
        checkpoint.latest(tmp_path)


def damage(kind: str, file: Path) -> None:
    """One file as a crash, a bad disk or somebody's hand may leave it."""
    if kind == "missing":
        file.unlink()
    else:
        held = file.read_bytes()
        file.write_bytes({"truncated": held[:-9], "empty": b"", "garbled": b"\xff\xfe" * 9, "text": b"none\n"}[kind])


@pytest.mark.parametrize("kind", ["truncated", "empty", "garbled", "text", "missing"])
@pytest.mark.parametrize("name", ["done", "state/state.json", "state/weights.safetensors", "state/random.safetensors"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    tmp_path: Path, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path)
    damage(kind, tmp_path / "step_000003" / name)
    taken = checkpoint.latest(tmp_path, "state")
    assert taken.name == "step_000002"
    assert "taking step_000002; passed over: step_000003 (" in caplog.text
    problem = Problem()
    checkpoint.load_checkpoint(taken, problem.session)
    assert problem.session.step == 2


def test_a_truncated_checkpoint_is_named_with_the_way_on(tmp_path: Path) -> None:
    trained(tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / "step_000003"
    damage("truncated", path / "state" / "weights.safetensors")
    with pytest.raises(CheckpointError, match=rf"step_000003: cannot be read .*--resume {tmp_path}@2\.$"):
        checkpoint.load_checkpoint(path, Problem().session)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": checkpoint.VERSION + 1}, r"of version 2, and this mmalign reads up to 1; resume with the mmalign"),
        ({"step": None}, r"state\.json has no usable step; resume from an earlier one with --resume"),
        ({"batches": [], "updates": "x"}, r"state\.json has no usable updates, batches;"),
        ({"batches": {}}, r"holds what was not written there \(KeyError: 'seed'\); resume from"),
        ({"step": 2}, r"state\.json is of step 2;"),
    ],
)
def test_a_state_that_is_not_understood_is_a_sentence(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    trained(tmp_path)
    file = tmp_path / "step_000003" / "state" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=told):
        checkpoint.load_checkpoint(file.parents[1], Problem().session)


def test_a_state_from_before_versions_is_read(tmp_path: Path) -> None:
    trained(tmp_path)
    path = tmp_path / "step_000003"
    plain = json.loads((path / "state" / "state.json").read_text())
    assert plain.pop("version") == 1 and plain.pop("seconds") > 0
    (path / "state" / "state.json").write_text(json.dumps(plain))
    (path / "files.json").unlink()
    problem = Problem()
    checkpoint.load_checkpoint(checkpoint.latest(tmp_path, "state"), problem.session)
    assert problem.session.step == 3


def test_checkpoints_are_in_the_order_of_numbers_and_copies_are_somebody_s_own(tmp_path: Path) -> None:
    def made(name: str, done: str) -> None:
        (tmp_path / name / "adapter").mkdir(parents=True)
        (tmp_path / name / "done").write_text(done)

    for step in (999_999, 1_000_000, 999_998):
        made(f"step_{step}", f"{step}\n")
    for name, done in {"step_000003_backup": 3, "step_best": 3, "step_0000005": 5, "step_7000000": 3}.items():
        made(name, f"{done}\n")
    assert [checkpoint.step_of(path) for path in checkpoint.complete(tmp_path)] == [999_998, 999_999, 1_000_000]
    assert checkpoint.latest(tmp_path).name == "step_1000000"
    problem = Problem(keep=1)
    problem.session.step = 1_000_001
    checkpoint.save_checkpoint(tmp_path, problem.session, problem.adapter)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"step_000003_backup", "step_best", "step_0000005", "step_7000000", "step_1000001"}


def test_older_ones_go_only_when_the_new_one_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = trained(tmp_path, steps=2)
    there: list[int] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        there.append(len(checkpoint.complete(tmp_path)))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    problem.session.step = 9
    checkpoint.save_checkpoint(tmp_path, problem.session, problem.adapter)
    assert there[-1] == 3 and set(there) == {2, 3}  # the last thing to reach it is the folder with the new name
    assert [checkpoint.step_of(path) for path in checkpoint.complete(tmp_path)] == [2, 9]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    other = Problem()
    other.session.update_rule.parameters = other.session.update_rule.parameters[:2]
    with pytest.raises(CheckpointError, match=r"holds 4 trained tensors, the run has 2"):
        checkpoint.load_checkpoint(checkpoint.latest(tmp_path), other.session)


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
            checkpoint.save_checkpoint(tmp_path, problem.session, problem.adapter)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
