"""What every adapter owes: generators of latents, and generators of tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.core.protocols import Adapter, Inputs, LatentAdapter, TokenAdapter
from mmalign.core.types import Audio, Prompt
from mmalign.testing.faults import Faults, has_members


def check_latent_adapter(adapter: Any, prompts: Sequence[str], steps: int = 3) -> None:
    """Try a loaded `LatentAdapter` on B prompts, at least two different ones.

    Checked: its members; conditions with a row for each prompt; a schedule of `steps` + 1 levels from noise to data;
    predictions of the latents' shape, finite, with gradient to the trainable weights, the same for a row alone; outputs
    in range after decoding; `latents` as the way back to the latents' shape; the reference equal before training and
    untouched by it; `save` and `restore` exact.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(adapter).__name__)
    if has_members(faults, adapter, LatentAdapter):
        with faults.stage("the schedule"):
            _check_schedule(faults, adapter, steps)
        with faults.stage("prediction"):
            _check_prediction(faults, adapter, [Prompt(text) for text in prompts])
        with faults.stage("decoding"):
            _check_decoding(faults, adapter, len(prompts))
        with faults.stage("the reference, save and restore"):
            _check_weights(faults, adapter, lambda: _predict(adapter, [Prompt(text) for text in prompts]))
    faults.report()


def check_token_adapter(adapter: Any, prompts: Sequence[str], outputs: Any) -> None:
    """Try a loaded `TokenAdapter` on B prompts and as many given outputs.

    Checked: its members; that `decode` inverts `tokenize`; that a completion read at once (`features`) and one step
    after another (`begin`, `advance`) has the same logits; gradient to the trainable weights; the reference equal
    before training and untouched by it; `save` and `restore` exact.

    Raises:
        AssertionError: everything that does not hold.
    """
    faults = Faults(type(adapter).__name__)
    if has_members(faults, adapter, TokenAdapter):
        inputs = adapter.encode([Prompt(text) for text in prompts])
        tokens, mask = adapter.tokenize(outputs)
        rows = torch.arange(len(prompts))
        if isinstance(outputs, list):
            with faults.stage("decode"):
                back = adapter.decode(tokens, mask)
                faults.require(back == outputs, f"decode gives {back} for {outputs}")
        with faults.stage("features and logits"):
            logits = adapter.logits(adapter.features(inputs, rows, tokens, mask)[mask])
            gradients = torch.autograd.grad(logits.float().square().sum(), _trained(adapter), allow_unused=True)
            faults.require(any(_moves(gradient) for gradient in gradients), "no gradient reaches the trainable weights")
            with faults.stage("begin and advance"), torch.no_grad():
                _check_stepwise(faults, adapter, inputs, rows, tokens, mask)
        with faults.stage("the reference, save and restore"):
            _check_weights(
                faults, adapter, lambda: adapter.logits(adapter.features(inputs, rows, tokens, mask)[mask]).detach()
            )
    faults.report()


def _check_schedule(faults: Faults, adapter: LatentAdapter, steps: int) -> None:
    levels = adapter.schedule(steps)
    shapes = {tuple(part.shape) for part in (levels.times, levels.alpha, levels.sigma)}
    if faults.require(shapes == {(steps + 1,)}, f"schedule({steps}) gives shapes {shapes}, not ({steps + 1},) of each"):
        faults.require((levels.sigma.diff() < 0).all(), f"sigma must fall from noise to data: {levels.sigma.tolist()}")
    u = torch.tensor([0.1, 0.5, 0.9])
    faults.require((adapter.level(u).sigma.diff() > 0).all(), "level(u) must have more noise for a larger u")


def _predict(adapter: LatentAdapter, prompts: list[Prompt]) -> Tensor:
    with torch.no_grad():
        result: Tensor = adapter.predict(*_inputs(adapter, len(prompts)), adapter.encode(prompts))
    return result


def _inputs(adapter: LatentAdapter, rows: int) -> tuple[Tensor, Tensor]:
    noise = torch.randn(rows, *adapter.latent_shape, generator=torch.Generator().manual_seed(0))
    times = adapter.level(torch.linspace(0.9, 0.3, rows)).times
    return noise.to(adapter.device), times.to(adapter.device)


def _check_prediction(faults: Faults, adapter: LatentAdapter, prompts: list[Prompt]) -> None:
    rows = len(prompts)
    condition, empty = adapter.encode(prompts), adapter.unconditional(rows)
    sizes = {name: len(value) for name, value in {**condition, **empty}.items()}
    faults.require(set(sizes.values()) == {rows}, f"conditions of {rows} prompts have rows {sizes}")
    faults.require(condition.keys() == empty.keys(), "encode and unconditional give other entries")
    x, times = _inputs(adapter, rows)
    prediction = adapter.predict(x, times, condition)
    if not faults.require(
        prediction.shape == x.shape and prediction.dtype == torch.float32 and bool(prediction.isfinite().all()),
        f"predicts {prediction.dtype} {tuple(prediction.shape)} for {tuple(x.shape)}; finite float32 of it is meant",
    ):
        return
    gradients = torch.autograd.grad(prediction.square().sum(), _trained(adapter), allow_unused=True)
    faults.require(any(_moves(gradient) for gradient in gradients), "no gradient reaches the trainable weights")
    for row in range(rows):
        one = slice(row, row + 1)
        alone = adapter.predict(x[one], times[one], {name: value[one] for name, value in condition.items()})
        if not faults.require(_close(alone[0], prediction[row]), f"row {row} is predicted otherwise alone"):
            return


def _check_decoding(faults: Faults, adapter: LatentAdapter, rows: int) -> None:
    x, _ = _inputs(adapter, rows)
    with torch.no_grad():
        output = adapter.decode(x)
    tensor = output.samples if isinstance(output, Audio) else output
    expected = 3 if isinstance(output, Audio) else 4
    if faults.require(
        tensor.ndim == expected and len(tensor) == rows and tensor.dtype == torch.float32,
        f"decodes {rows} latents to {tensor.dtype} {tuple(tensor.shape)}",
    ):
        inside = Audio(tensor.clamp(-1, 1), output.rate) if isinstance(output, Audio) else tensor.clamp(0, 1)
        back = adapter.latents(inside)
        faults.require(back.shape == x.shape, f"latents gives {tuple(back.shape)}; decode was given {tuple(x.shape)}")


def _check_stepwise(
    faults: Faults, adapter: TokenAdapter, inputs: Sequence[Inputs], rows: Tensor, tokens: Tensor, mask: Tensor
) -> None:
    at_once = adapter.features(inputs, rows, tokens, mask)
    decoding = adapter.begin(inputs, rows, tokens.shape[1])
    for step in range(tokens.shape[1]):
        live = mask[:, step]
        one, other = adapter.logits(decoding.features[live]), adapter.logits(at_once[live, step])
        if not faults.require(
            torch.allclose(one, other, rtol=1e-3, atol=1e-3),
            f"step {step}: the logits of begin and advance differ from those of features by "
            f"{float((one - other).abs().max()):.2g}",
        ):
            return
        if step + 1 < tokens.shape[1]:
            decoding.advance(tokens[:, step])


def _check_weights(faults: Faults, adapter: Adapter, compute: Callable[[], Tensor]) -> None:
    weights = adapter.trainable()
    if not faults.require(bool(weights), "trainable() names no weights"):
        return
    start = compute()
    with adapter.reference():
        faults.require(torch.equal(compute(), start), "the reference differs before anything was trained")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(torch.randn(weight.shape, generator=generator).to(weight), alpha=0.05)
    moved = compute()
    faults.require(not torch.equal(moved, start), "moving the trainable weights changes nothing")
    with adapter.reference():
        faults.require(_close(compute(), start), "the reference moved with the trained weights")
    faults.require(torch.equal(compute(), moved), "leaving reference() does not bring the trained weights back")
    with tempfile.TemporaryDirectory() as folder:
        adapter.save(Path(folder) / "saved")
        with torch.no_grad():
            for weight in weights.values():
                weight.zero_()
        adapter.restore(Path(folder) / "saved")
    faults.require(_close(compute(), moved), "restore does not bring back what save wrote")


def _trained(adapter: Adapter) -> list[Tensor]:
    return list(adapter.trainable().values())


def _moves(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.abs().sum() > 0)


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)
