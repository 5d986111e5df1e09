import json
from typing import Any

import pytest
import torch

from mmalign.core.config import Trainer
from mmalign.core.errors import ConfigError
from mmalign.core.registry import construct
from mmalign.training.update import Update


def rates(trainer: Trainer) -> list[float]:
    """What each update of a run is made with."""
    weight = torch.nn.Parameter(torch.zeros(2))
    update, seen = Update([weight], trainer), []
    for _ in range(trainer.steps * trainer.minibatches):
        seen.append(update.lr)
        weight.grad = torch.ones(2)
        update.apply()
        assert update.optimizer.param_groups[0]["lr"] == seen[-1]
    return seen


def test_the_rate_is_constant_after_warm_up_unless_told() -> None:
    assert rates(Trainer(steps=4, lr=1.0, warmup=2)) == [0.5, 1.0, 1.0, 1.0]


def test_the_rate_falls_along_half_a_cosine_to_its_end_over_all_updates() -> None:
    seen = rates(Trainer(steps=4, minibatches=2, lr=2.0, warmup=2, lr_end=0.1))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=0.2)
    expected = []
    for _ in range(6):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert seen[:2] == [1.0, 2.0]
    assert seen[2:] == pytest.approx(expected)


def test_updates_that_are_skipped_count_in_the_schedule() -> None:
    trainer = Trainer(steps=6, lr=1.0, lr_end=0.1)
    weight = torch.nn.Parameter(torch.zeros(1))
    update, seen = Update([weight], trainer), []
    for step in range(6):
        seen.append(update.lr)
        weight.grad = torch.tensor([float("nan") if step == 3 else 1.0])
        update.forget() if step == 1 else update.apply()
    assert seen == rates(trainer) and seen[-1] == pytest.approx(0.1)


def test_an_end_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.lr_end: must be at most 1"):
        construct(Trainer, {"lr_end": 1.5}, "trainer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, r"keep: must be at least 1 \(got 0\)"),  # would drop the checkpoint that was just written
        ({"max_grad_norm": -1.0}, "max_grad_norm: must be at least 0"),  # would turn the gradient round
        (
            {"micro_batch_size": -1, "steps_per_pass": -2, "steps": 0},
            r"(?s)steps: must be at least 1.*micro_batch_size: must be at least 0.*steps_per_pass: must be at least 0",
        ),
        ({"betas": (1.5, 0.9)}, r"betas\.0: must be below 1"),
        ({"ema": 1.0}, "ema: must be below 1"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        construct(Trainer, options, "trainer")


def test_an_average_that_a_checkpoint_lacks_starts_from_its_weights() -> None:
    weight = torch.nn.Parameter(torch.full((2,), 3.0))
    kept = Update([weight], Trainer()).state_dict()
    fresh = Update([torch.nn.Parameter(torch.zeros(2))], Trainer(ema=0.9))
    fresh.load_state_dict(kept)
    assert fresh.average is not None and torch.equal(fresh.average[0], weight)


def scaled_update(gradients: list[float], **options: Any) -> tuple[Update, torch.nn.Parameter]:
    """An update rule after gradients of a scaled loss, each as the loss's own derivative would be without a scale."""
    weight = torch.nn.Parameter(torch.ones(1))
    update = Update([weight], Trainer(lr=0.1, max_grad_norm=0, **options), scaled=True)
    for gradient in gradients:
        update.scaler.scale(gradient * weight.sum()).backward()
        update.apply()
    return update, weight


def test_a_scaled_loss_moves_weights_as_an_unscaled_one() -> None:
    plain = torch.nn.Parameter(torch.ones(1))
    rule = Update([plain], Trainer(lr=0.1, max_grad_norm=0))
    for gradient in (0.5, -0.25, 2.0):
        plain.grad = torch.tensor([gradient])
        rule.apply()
    update, weight = scaled_update([0.5, -0.25, 2.0])
    assert torch.equal(weight, plain) and update.scaler.get_scale() > 1000


def test_a_gradient_that_overflows_halves_the_scale_and_moves_nothing() -> None:
    update, weight = scaled_update([0.5])
    before, scale = weight.detach().clone(), update.scaler.get_scale()
    weight.grad = torch.tensor([float("inf")])
    update.scaler.scale(torch.ones(()))  # as a loss would
    assert not update.apply().isfinite()
    assert torch.equal(weight, before) and update.count == 2  # the schedule moves on
    assert update.scaler.get_scale() == scale / 2


def test_a_checkpoint_keeps_the_scale() -> None:
    update, _ = scaled_update([0.5, float("inf")])
    state = json.loads(json.dumps(update.state_dict()["scale"]))
    fresh = Update([torch.nn.Parameter(torch.ones(1))], Trainer(), scaled=True)
    fresh.load_state_dict({**update.state_dict(), "scale": state})
    assert fresh.scaler.get_scale() == update.scaler.get_scale() == 2048
