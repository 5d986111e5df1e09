"""Every optimizer and schedule: stopped and resumed it goes on as if it had not been, and its library does the sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmalign.core.config import BITSANDBYTES, Trainer
from mmalign.core.errors import CheckpointError, ConfigError, MissingExtra, importable
from mmalign.core.registry import construct
from mmalign.training import optimizers
from mmalign.training.update import Update

NAMES = ["adamw", "adafactor", "muon", *BITSANDBYTES]
#: Pages are of a GPU's memory.
DEVICE = {"paged_adamw": "cuda"}


def fresh(name: str, **options: Any) -> Update:
    """An update rule over two matrices, large enough for 8 bits."""
    if name in BITSANDBYTES:
        pytest.importorskip("bitsandbytes", reason="the extra `optimizers` is not installed (`dev` has it on Linux)")
    rng = torch.Generator().manual_seed(0)
    device = DEVICE.get(name, "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"{name} is of GPUs")
    weights = [torch.nn.Parameter(torch.randn(shape, generator=rng).to(device)) for shape in ((64, 96), (80, 80))]
    given: dict[str, Any] = {"steps": 8, "lr": 1e-2, "weight_decay": 0.01, "optimizer": name} | options
    return Update(weights, Trainer(**given))


def updated(update: Update, first: int, last: int) -> Update:
    for step in range(first, last):
        rng = torch.Generator().manual_seed(100 + step)
        for weight in update.parameters:
            weight.grad = torch.randn(weight.shape, generator=rng).to(weight.device)
        update.apply()
    return update


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_stopped_goes_on_exactly(name: str, tmp_path: Path) -> None:
    options = {"schedule": "wsd", "lr_end": 0.1, "warmup": 2, "ema": 0.9}
    straight = updated(fresh(name, **options), 0, 8)
    stopped = updated(fresh(name, **options), 0, 5)
    state = stopped.state_dict()
    save_file(state.pop("tensors"), tmp_path / "state.safetensors")
    again = fresh(name, **options)
    again.load_state_dict({**json.loads(json.dumps(state)), "tensors": load_file(tmp_path / "state.safetensors")})
    updated(again, 5, 8)
    for one, other, start in zip(again.parameters, straight.parameters, fresh(name).parameters, strict=True):
        assert torch.equal(one, other) and not torch.allclose(one, start)
    assert again.average is not None and straight.average is not None
    assert all(torch.equal(one, other) for one, other in zip(again.average, straight.average, strict=True))
    assert again.state_dict()["tensors"].keys() == straight.state_dict()["tensors"].keys()


def test_no_two_optimizers_take_the_same_step() -> None:
    made = [updated(fresh(name), 0, 3).parameters[0] for name in ("adamw", "adafactor", "muon")]
    assert all(not torch.allclose(one, other) for n, one in enumerate(made) for other in made[:n])
    plain = torch.nn.Parameter(fresh("adamw").parameters[1].detach().clone())
    theirs = torch.optim.AdamW([plain], lr=1e-2, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.01)
    ours = fresh("adamw", betas=(0.8, 0.95), eps=1e-3, max_grad_norm=0)
    for step in range(2):
        rng = torch.Generator().manual_seed(step)
        gradients = [torch.randn(weight.shape, generator=rng) for weight in ours.parameters]
        for weight, gradient in zip(ours.parameters, gradients, strict=True):
            weight.grad = gradient.clone()
        plain.grad = gradients[1].clone()
        ours.apply()
        theirs.step()
    assert torch.equal(plain, ours.parameters[1])


def rates(**options: Any) -> list[float]:
    update = Update([torch.nn.Parameter(torch.zeros(2))], Trainer(steps=11, lr=2.0, **options))
    seen = []
    for _ in range(11):
        seen.append(update.lr)
        update.forget()
    return seen


def test_schedules_rise_from_the_first_update_and_end_with_the_last() -> None:
    linear = rates(schedule="linear", lr_end=0.0, warmup=0)
    assert linear == pytest.approx([2 - 0.2 * n for n in range(11)])
    assert rates(schedule="linear", lr_end=0.5) == pytest.approx([2 - 0.1 * n for n in range(11)])
    wsd = rates(schedule="wsd", lr_end=0.1, decay=0.5, warmup=1)
    assert wsd[:6] == [2.0] * 6 and wsd[6:] == sorted(wsd[6:], reverse=True) and wsd[-1] == pytest.approx(0.2)
    assert rates(schedule="constant", warmup=4) == rates(warmup=4) == [0.5, 1.0, 1.5, *[2.0] * 8]
    assert rates(schedule="cosine", lr_end=0.1, warmup=3) == rates(lr_end=0.1, warmup=3)
    for name in ("linear", "cosine", "wsd"):
        assert rates(schedule=name, lr_end=0.25, warmup=4)[:4] == [0.5, 1.0, 1.5, 2.0] or name == "wsd"
        assert rates(schedule=name, lr_end=0.25, warmup=4)[-1] == pytest.approx(0.5)


def test_what_does_not_fit_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"lr_end: schedule linear falls to it, and it is 1; set the share"):
        construct(Trainer, {"schedule": "linear"}, "trainer")
    with pytest.raises(ConfigError, match=r"lr_end: 0\.5, but schedule is constant"):
        construct(Trainer, {"schedule": "constant", "lr_end": 0.5}, "trainer")
    with pytest.raises(ConfigError, match=r"muon is of matrices, and 1 of 1 trained tensors are none \(\(3,\)\)"):
        Update([torch.nn.Parameter(torch.zeros(3))], Trainer(optimizer="muon"))
    with pytest.raises(
        CheckpointError, match=r"trainer\.optimizer: the state is of adamw, which muon cannot go on from"
    ):
        fresh("muon").load_state_dict(fresh("adamw").state_dict())
    if importable("bitsandbytes"):
        with pytest.raises(ConfigError, match=r"paged_adamw moves its state between a GPU's memory and the machine's"):
            Update([torch.nn.Parameter(torch.zeros(3, 3))], Trainer(optimizer="paged_adamw"))
    monkeypatch.setattr(optimizers, "importable", lambda package: False)
    with pytest.raises(MissingExtra, match=r"trainer\.optimizer: lion needs the 'optimizers' extra: pip install"):
        Update([torch.nn.Parameter(torch.zeros(3, 3))], Trainer(optimizer="lion"))
