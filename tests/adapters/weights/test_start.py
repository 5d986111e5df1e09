"""Every family starts from a LoRA: it goes on, or stays below a fresh one; the reference is the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.core.experience import Transitions
from mmalign.core.types import Rollout
from tests.adapters.language.reward_models import moved, reward_model, scores
from tests.adapters.language.tiny_lm import write_tiny_lm
from tests.adapters.moving import NAMES, check_on_policy, collected, loaded, move, policy_of
from tests.loading.writers import WRITERS


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path, Rollout, Tensor]]:
    """Of a family: a tiny checkpoint, a LoRA trained on it, outputs of that, and what it says of them."""
    made: dict[str, tuple[Path, Path, Rollout, Tensor]] = {}

    def of(name: str) -> tuple[Path, Path, Rollout, Tensor]:
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            folder = WRITERS[name](root / "model")
            first = loaded(name, folder)
            move(first)
            first.save(root / "lora")
            rollout = first_rollout(first)
            made[name] = (folder, root / "lora", rollout, said(first, rollout))
        return made[name]

    return of


def first_rollout(adapter: Any) -> Rollout:
    experience = collected(policy_of(adapter))
    assert isinstance(experience, Transitions)
    return experience.rollout


@torch.no_grad()
def said(adapter: Any, rollout: Rollout) -> Tensor:
    """The means of the steps, of texts the log-probs: where steps have little noise, roundings of a mean are nats."""
    dist = policy_of(adapter).step_dist(rollout)
    return dist.log_prob if dist.mean is None else dist.mean


def near(values: Tensor, wanted: Tensor, rtol: float = 1e-4) -> bool:
    return bool((values - wanted).abs().max() <= rtol * wanted.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_from_a_lora_of_its_own_rank_and_the_reference_is_that_lora(name: str, begun: Any) -> None:
    folder, lora, rollout, wanted = begun(name)
    base = said(loaded(name, folder), rollout)
    assert not near(base, wanted)
    adapter = loaded(name, folder, start_lora=str(lora), lora={})  # rank 2 stands in the file, not here
    assert torch.equal(said(adapter, rollout), wanted)
    check_on_policy(adapter, fresh=True)
    move(adapter, 0.2)
    assert not near(said(adapter, rollout), wanted)
    with adapter.reference():
        assert torch.equal(said(adapter, rollout), wanted)
    check_on_policy(adapter, fresh=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_lora_trains_beside_a_frozen_one_and_both_are_saved_as_one(
    name: str, begun: Any, tmp_path: Path
) -> None:
    folder, lora, rollout, wanted = begun(name)
    options = {"start_lora": str(lora), "freeze_start": True, "lora": {"rank": 3, "alpha": 5}}
    adapter = loaded(name, folder, **options)
    assert near(said(adapter, rollout), wanted)
    assert {min(w.shape[:2]) for w in adapter.trainable().values() if w.dim() == 2} == {3}
    check_on_policy(adapter, fresh=True)
    start = said(adapter, rollout)
    move(adapter)
    trained = said(adapter, rollout)
    assert not near(trained, wanted)
    with adapter.reference():
        assert near(said(adapter, rollout), start)
    check_on_policy(adapter, fresh=False)
    adapter.save(tmp_path / "both")
    again = loaded(name, folder, **options)
    again.restore(tmp_path / "both")
    assert torch.equal(said(again, rollout), trained)
    whole = loaded(name, folder, start_lora=str(tmp_path / "both"), lora={})
    assert near(said(whole, rollout), trained, 1e-3)


@pytest.mark.parametrize("name", ["sdxl", "stable_audio", "musicgen", "causal_lm", "image_text"])
def test_a_lora_is_merged_where_all_weights_train_and_used_where_none_do(name: str, begun: Any) -> None:
    folder, lora, rollout, wanted = begun(name)
    frozen = loaded(name, folder, start_lora=str(lora), train="frozen")
    assert near(said(frozen, rollout), wanted) and not frozen.trainable()
    full = loaded(name, folder, start_lora=str(lora), train="full")
    assert near(said(full, rollout), wanted)
    assert not any(".lora_" in key or "base_layer" in key for key in full.trainable())
    plain = loaded(name, folder, train="full")
    assert full.trainable().keys() == plain.trainable().keys()
    check_on_policy(full, fresh=True)


def test_several_loras_start_as_one_each_times_its_weight(begun: Any) -> None:
    folder, lora, rollout, wanted = begun("sd3")
    both = [{"path": str(lora), "weight": 0.25}, {"path": str(lora), "weight": 0.75}]
    for freeze in (False, True):
        adapter = loaded("sd3", folder, start_lora=both, freeze_start=freeze, lora={})
        assert near(said(adapter, rollout), wanted)
        check_on_policy(adapter, fresh=True)
    assert {min(w.shape) for w in loaded("sd3", folder, start_lora=both, lora={}).trainable().values()} == {4}
    halved = loaded("sd3", folder, start_lora={"path": str(lora), "weight": 0.5}, lora={})
    assert not near(said(halved, rollout), wanted)


def test_a_reward_model_starts_from_its_lora_with_the_head_or_from_a_language_models_without(tmp_path: Path) -> None:
    folder = write_tiny_lm(tmp_path / "model")
    first = moved(reward_model(folder, head={"kind": "mlp2"}))
    first.save(tmp_path / "first")
    wanted = scores(first)
    again = reward_model(folder, start_lora=str(tmp_path / "first"), lora={})  # which head it is, it knows itself
    assert torch.equal(scores(again), wanted)
    moved(again)
    with again.reference():
        assert torch.equal(scores(again), wanted)
    only_head = reward_model(folder, start_lora=str(tmp_path / "first"), train="head")
    assert torch.equal(scores(only_head), wanted) and all(".lora_" not in key for key in only_head.trainable())
    merged = reward_model(folder, start_lora=str(tmp_path / "first"), train="full")
    assert near(scores(merged), wanted)
    assert merged.trainable().keys() == reward_model(folder, train="full", head={"kind": "mlp2"}).trainable().keys()

    writer = loaded("causal_lm", folder)
    move(writer)
    writer.save(tmp_path / "writer")
    base = scores(reward_model(folder))
    for freeze in (False, True):
        judge = reward_model(folder, start_lora=str(tmp_path / "writer"), freeze_start=freeze)
        start = scores(judge)
        assert not near(start, base)  # the same fresh head on other features
        moved(judge)
        place = tmp_path / f"judge_{freeze}"
        judge.save(place)
        assert near(scores(reward_model(place)), scores(judge))
