"""Frozen weights in fewer bits: the numbers that the formats say, the layers that get them, and a LoRA that trains."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.adapters.weights.quantized import PACKAGES, block_layers, quantize, stored_bytes
from mmalign.core.errors import ConfigError, MissingExtra
from mmalign.core.types import Prompt

KINDS: list[Any] = list(PACKAGES)
#: The quantiles of a normal distribution that four bits stand for (QLoRA, arXiv 2305.14314, appendix E).
NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
]


class Blocks(torch.nn.Module):
    """A projection in, two blocks, a head."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, width)
        self.blocks: Any = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2))
        self.head = torch.nn.Linear(width, 3)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)


def expected(kind: str, weight: Tensor) -> Tensor:
    """What the formats make of a weight, in float64, by their definitions."""
    w = weight.double()
    if kind == "nf4":  # 64 values share the largest of them
        rows = w.reshape(-1, 64)
        scale = rows.abs().amax(1, keepdim=True)
        levels = torch.tensor(NF4, dtype=torch.float64)
        nearest = ((rows / scale)[..., None] - levels).abs().argmin(-1)
        return (levels[nearest] * scale).reshape(w.shape)
    top = w.abs().amax(1, keepdim=True)
    if kind == "int8":
        scale = top / 127.5  # torchao's symmetric range is that of the integers, [-128, 127]
        return (w / scale).round().clamp(-128, 127) * scale
    scale = top / 448  # the largest e4m3
    return (w / scale).float().to(torch.float8_e4m3fn).double() * scale


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_computes_with_the_weights_that_its_format_stands_for(kind: Any) -> None:
    network = Blocks()
    weights, head = [block.weight.clone() for block in network.blocks], network.head.weight
    told = quantize(network, kind, torch.device("cpu"), torch.float32)
    assert (told.layers, told.linear) == (2, 4) and network.head.weight is head
    x = torch.randn(5, 64, dtype=torch.float64)
    for block, weight in zip(network.blocks, weights, strict=True):
        wanted = x @ expected(kind, weight).T + block.bias.double()
        # nf4's scales are quantised themselves, int8's and fp8's are rounded
        tolerance = 5e-3 if kind == "nf4" else 1e-3
        assert (block(x.float()).double() - wanted).norm() < tolerance * wanted.norm()
        assert (wanted - x @ weight.double().T - block.bias.double()).norm() > 2 * tolerance * wanted.norm()
    lost = sum(float((expected(kind, w) - w).square().sum()) for w in weights) / sum(
        float(w.square().sum()) for w in weights
    )
    assert told.error == pytest.approx(lost**0.5, rel=0.02)


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4), ("int8", 8), ("fp8", 8)])
def test_what_it_stores_is_counted(kind: Any, bits: int) -> None:
    network = Blocks(256)
    assert stored_bytes(network) == 4 * sum(p.numel() for p in network.parameters())
    told = quantize(network, kind, torch.device("cpu"), torch.float32)
    outside = 4 * (8 * 256 + 256 + 256 * 3 + 3 + 2 * 256)  # layers outside the blocks, and the blocks' biases
    assert told.after == stored_bytes(network)
    assert bits < 8 * (told.after - outside) / (2 * 256 * 256) < bits + 0.3  # and the scales
    assert f"quantize: {kind}: 2 of 4 frozen linear layers" in str(told)


def test_what_trains_and_what_stands_outside_the_blocks_stays() -> None:
    network = Blocks()
    network.blocks[0].requires_grad_(True)
    layers, linear = block_layers(network)
    assert list(layers) == ["blocks.1"] and linear == 3
    with pytest.raises(ConfigError, match="Linear has no frozen linear layer in repeated blocks"):
        quantize(torch.nn.Linear(4, 4).requires_grad_(False), "int8", torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_language_model_trains_a_lora_beside_it(
    kind: Any, dtype: Any, lm: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mmalign"):
        adapter = lm(quantize=kind, dtype=dtype)
    assert f"quantize: {kind}: " in caplog.text and "frozen linear layers" in caplog.text
    inputs, rows = adapter.encode([Prompt("red")]), torch.tensor([0, 0])
    tokens, mask = adapter.tokenize(["a b", "two red"])

    def said(of: Any, upto: int = 2) -> Tensor:
        hidden = of.features(inputs, rows[:upto], tokens[:upto], mask[:upto])
        return of.logits(hidden.flatten(0, 1)).float().log_softmax(-1)

    said(adapter).square().mean().backward()
    trained = adapter.trainable()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in trained.values())
    with torch.no_grad():
        start = said(adapter)
        torch.testing.assert_close(said(adapter, 1), start[: tokens.shape[1]])  # whatever the batch
        for p in trained.values():
            p.add_(0.05 * torch.ones_like(p))
        with adapter.reference():
            assert torch.equal(said(adapter), start)
        moved = said(adapter)
        assert (moved - start).abs().max() > 1e-3
        adapter.save(tmp_path / "lora")
        again = lm(quantize=kind, dtype=dtype)
        again.restore(tmp_path / "lora")
        assert torch.equal(said(again), moved)
        whole = said(lm(dtype=dtype, start_lora=str(tmp_path / "lora")))  # on the base as it was published
        assert 0 < (whole - moved).norm() < 0.25 * moved.norm()


def test_options_that_do_not_go_with_it_are_refused(lm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.adapters.weights.lora import LoRA

    with pytest.raises(ConfigError, match=r"quantize: nf4, but train: full updates all weights.*train a lora"):
        lm(quantize="nf4", train="full")
    with pytest.raises(ConfigError, match=r"quantize: int8, but lora.use_dora.*set it to false"):
        lm(quantize="int8", lora=LoRA(use_dora=True))
    for kind in KINDS:
        monkeypatch.setitem(sys.modules, PACKAGES[kind], None)
        with pytest.raises(MissingExtra, match=rf"quantize: {kind} \(package \w+\) needs the 'quantized' extra"):
            lm(quantize=kind)
