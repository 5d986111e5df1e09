"""What every flow family must do, checked against its own diffusers pipeline.

A test file describes its family with `Family` and runs every function of `CHECKS` on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.core.errors import CapabilityError, MediaError
from mmalign.core.protocols import LatentAdapter
from mmalign.core.types import Prompt
from tests.adapters.deterministic import sample
from tests.typecheck import unchecked

TEXTS = ["a red cube", "two dogs, one of them asleep"]
STEPS = 3
SCALE = 3.0


@dataclass
class Family:
    """One checkpoint: its adapter class, its pipeline class, and how the pipeline is called.

    `call(pipe, texts, start, steps, scale, output)` gives the pipeline's latents (B, C, h, w) for output "latent", its
    pictures (B, 3, H, W) for "pt"; `scale` 1 means unguided. `decoder_step`: of the finite differences. `component` and
    `encoder`: the pipeline's network that trains, and the module that is called once per text.
    """

    adapter: type
    pipeline: type[Any]
    folder: Path
    call: Callable[..., Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    decoder_step: float = 1e-5
    component: str = "transformer"
    encoder: str = "text_encoder"

    def make(self, **more: Any) -> Any:
        """The adapter, loaded on the CPU."""
        from mmalign.adapters.weights.lora import LoRA

        given = {"lora": LoRA(rank=2, alpha=4), "device": "cpu"} | self.options | more
        return self.adapter(model=str(self.folder), **given).load()

    def plain(self) -> Any:
        """The diffusers pipeline, nothing of ours in it."""
        pipe = self.pipeline.from_pretrained(self.folder)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def start_of(adapter: Any, rows: int = len(TEXTS), seed: int = 0) -> Tensor:
    """Reproducible starting latents."""
    return torch.randn(rows, *adapter.latent_shape, generator=torch.Generator().manual_seed(seed))


def disturb(adapter: Any, amount: float = 0.05) -> None:
    """Move every trainable weight, so that a LoRA is no longer the identity."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in adapter.trainable().values():
            p.add_(torch.randn(p.shape, generator=rng), alpha=amount)


def velocity(adapter: Any) -> Tensor:
    """One prediction for all texts, without gradient."""
    with torch.no_grad():
        condition = adapter.encode([Prompt(t) for t in TEXTS])
        return adapter.predict(start_of(adapter), torch.tensor([900.0, 300.0]), condition)


def latents_and_images_are_the_pipelines(family: Family, tmp_path: Path) -> None:
    adapter, pipe = family.make(), family.plain()
    start = start_of(adapter)
    unlike = []
    for scale in (1.0, SCALE):
        expected = family.call(pipe, TEXTS, start, STEPS, scale, "latent")
        ours = sample(adapter, TEXTS, start, STEPS, scale)
        assert (ours - expected).abs().max() <= 1e-4
        pictures = family.call(pipe, TEXTS, start, STEPS, scale, "pt")
        assert (adapter.decode(ours).clamp(0, 1) - pictures).abs().max() <= 1e-4
        unlike.append(expected)
    assert (unlike[0] - unlike[1]).abs().max() > 1e-3  # guidance does something
    assert (unlike[0] - start).abs().max() > 1e-1


def a_negative_prompt_is_the_pipelines(family: Family, tmp_path: Path) -> None:
    adapter, pipe = family.make(negative_prompt="blurry"), family.plain()
    start = start_of(adapter)
    expected = family.call(pipe, TEXTS, start, STEPS, SCALE, "latent", negative="blurry")
    assert (sample(adapter, TEXTS, start, STEPS, SCALE) - expected).abs().max() <= 1e-4
    assert (family.call(pipe, TEXTS, start, STEPS, SCALE, "latent") - expected).abs().max() > 1e-4


def it_is_a_latent_adapter(family: Family, tmp_path: Path) -> None:
    adapter = family.make()
    assert isinstance(adapter, LatentAdapter)
    levels = adapter.schedule(STEPS)
    assert levels.sigma.shape == levels.alpha.shape == levels.times.shape == (STEPS + 1,)
    assert levels.sigma[-1] == 0 and (levels.sigma.diff() < 0).all()
    torch.testing.assert_close(levels.times, 1000 * levels.sigma)
    u = torch.tensor([[0.1, 0.5], [0.9, 0.99]])
    assert adapter.level(u).sigma.shape == u.shape and (adapter.level(u).sigma.flatten().diff() > 0).all()


def prompts_matter_and_media_is_refused(family: Family, tmp_path: Path) -> None:
    adapter = family.make()
    x, times = start_of(adapter, 1).expand(2, -1, -1, -1), torch.full((2,), 500.0)
    with torch.no_grad():
        one, other = adapter.predict(x, times, adapter.encode([Prompt(t) for t in TEXTS]))
    assert (one - other).abs().max() > 1e-4
    with pytest.raises(CapabilityError, match=r"row 1: the prompt carries media \(image\)"):
        adapter.encode([Prompt("x"), Prompt("y", media={"image": torch.zeros(3, 4, 4)})])


def each_text_is_encoded_once(family: Family, tmp_path: Path) -> None:
    adapter, calls = family.make(), []
    encoder = attrgetter(family.encoder)(adapter.loaded.pipeline)
    encoder.register_forward_hook(lambda *_: calls.append(1))
    prompts = [Prompt(t) for t in (TEXTS[0], TEXTS[1], TEXTS[0])]
    first, again = adapter.encode(prompts), adapter.encode(prompts[:2])
    assert len(calls) == 2
    for name, value in first.items():
        assert len(value) == 3 and torch.equal(value[0], value[2])
        assert torch.equal(again[name], value[:2])
    assert {k: v.shape[1:] for k, v in adapter.unconditional(5).items()} == {k: v.shape[1:] for k, v in first.items()}
    adapter.unconditional(2)
    assert len(calls) == 3


def a_row_does_not_depend_on_its_batch(family: Family, tmp_path: Path) -> None:
    adapter = family.make()
    x, times = start_of(adapter), torch.tensor([900.0, 300.0])
    with torch.no_grad():
        together = adapter.predict(x, times, adapter.encode([Prompt(t) for t in TEXTS]))
        for i, text in enumerate(TEXTS):
            alone = adapter.predict(x[i : i + 1], times[i : i + 1], adapter.encode([Prompt(text)]))
            torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def _a_plain_pipeline_reads_the_lora(
    family: Family, folder: Path, read: Callable[[Any, Path], None], relative: bool
) -> None:
    """`read` puts the saved LoRA into a pipeline; `relative`: to the size of what it makes (weights are merged)."""
    adapter, pipe = family.make(), family.plain()
    start = start_of(adapter)
    before = family.call(pipe, TEXTS, start, STEPS, 1.0, "latent")
    assert (sample(adapter, TEXTS, start, STEPS) - before).abs().max() <= 1e-4  # an untrained LoRA is the identity
    disturb(adapter, 0.3)
    adapter.save(folder)
    read(pipe, folder)
    after = family.call(pipe, TEXTS, start, STEPS, 1.0, "latent")
    assert (after - before).abs().max() > 1e-2
    size = after.abs().max() if relative else 1.0
    assert (sample(adapter, TEXTS, start, STEPS) - after).abs().max() <= 1e-4 * size
    fresh = family.make()
    fresh.restore(folder)
    assert torch.equal(velocity(fresh), velocity(adapter))


def plain_diffusers_loads_the_lora(family: Family, tmp_path: Path) -> None:
    _a_plain_pipeline_reads_the_lora(
        family, tmp_path / "lora", lambda pipe, folder: pipe.load_lora_weights(folder), relative=False
    )


def plain_peft_loads_the_lora(family: Family, tmp_path: Path) -> None:
    from peft import PeftModel

    def merge(pipe: Any, folder: Path) -> None:
        adapted = PeftModel.from_pretrained(getattr(pipe, family.component), folder)
        setattr(pipe, family.component, adapted.merge_and_unload())

    _a_plain_pipeline_reads_the_lora(family, tmp_path / "lora", merge, relative=True)


def plain_diffusers_loads_the_full_fine_tune(family: Family, tmp_path: Path) -> None:
    adapter, pipe = family.make(train="full"), family.plain()
    disturb(adapter, 0.01)
    adapter.save(tmp_path / "full")
    start = start_of(adapter)
    before = family.call(pipe, TEXTS, start, STEPS, 1.0, "latent")
    kind = type(getattr(pipe, family.component))
    setattr(pipe, family.component, kind.from_pretrained(tmp_path / "full" / family.component))
    after = family.call(pipe, TEXTS, start, STEPS, 1.0, "latent")
    assert (after - before).abs().max() > 1e-3
    assert (sample(adapter, TEXTS, start, STEPS) - after).abs().max() <= 1e-4
    fresh = family.make(train="full")
    fresh.restore(tmp_path / "full")
    assert torch.equal(velocity(fresh), velocity(adapter))


def the_reference_is_exact_and_comes_back_from_errors(family: Family, tmp_path: Path) -> None:
    for train in ("lora", "full"):
        adapter = family.make(train=train)
        original = velocity(adapter)
        disturb(adapter)
        trained = velocity(adapter)
        assert (trained - original).abs().max() > 1e-4
        with adapter.reference():
            gap = (velocity(adapter) - original).abs().max()
        # The same weights at another address may be summed in another order.
        assert gap == 0 if train == "lora" else gap <= 1e-5 * original.abs().max()
        with pytest.raises(RuntimeError, match="stop"), adapter.reference():
            raise RuntimeError("stop")
        assert torch.equal(velocity(adapter), trained)


def gradients_reach_what_trains_and_the_latents(family: Family, tmp_path: Path) -> None:
    adapter = family.make()
    disturb(adapter)
    x = start_of(adapter).requires_grad_()
    said = adapter.predict(x, torch.tensor([900.0, 300.0]), adapter.encode([Prompt(t) for t in TEXTS]))
    images = adapter.decode(said)
    assert said.dtype == images.dtype == torch.float32
    assert images.shape == (2, 3, adapter.height, adapter.width)
    images.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.trainable().values())
    assert any(p.grad.abs().max() > 0 for p in adapter.trainable().values())
    assert x.grad.abs().max() > 0
    assert all(not p.requires_grad for p in adapter.loaded.autoencoder.vae.parameters())


def the_decoders_gradient_is_its_slope(family: Family, tmp_path: Path) -> None:
    adapter = family.make()
    adapter.loaded.autoencoder.vae.double()
    x = start_of(adapter, 1).double()
    direction = start_of(adapter, 1, seed=5).double()
    weight = torch.randn(1, 3, adapter.height, adapter.width, generator=torch.Generator().manual_seed(6)).double()

    def value(at: Tensor) -> Tensor:
        return (adapter.loaded.autoencoder._picture(at) * weight).sum()

    x.requires_grad_()
    (slope,) = torch.autograd.grad(value(x), x)
    with torch.no_grad():
        ends = [value(x + sign * family.decoder_step * direction) for sign in (1, -1)]
    finite = (ends[0] - ends[1]) / (2 * family.decoder_step)
    torch.testing.assert_close((slope * direction).sum(), finite, rtol=1e-3, atol=1e-4)


def images_become_the_latents_the_autoencoder_says(family: Family, tmp_path: Path) -> None:
    adapter = family.make(decode_rows=1)
    images = torch.rand(2, 3, adapter.height, adapter.width, generator=torch.Generator().manual_seed(2))
    latents = adapter.latents(images)
    assert latents.shape == (2, *adapter.latent_shape) and not latents.requires_grad
    assert (latents[0] - latents[1]).abs().max() > 1e-3
    with unchecked(), pytest.raises(MediaError, match=r"images must be \(B, 3, H, W\) in \[0, 1\]; got \(2, 1, 4, 4\)"):
        adapter.latents(torch.zeros(2, 1, 4, 4))


def low_precision_and_checkpointing_stay_near(family: Family, tmp_path: Path) -> None:
    exact = velocity(family.make())
    low = family.make(dtype="bf16", gradient_checkpointing=True)
    said = velocity(low)
    assert said.dtype == torch.float32 and (said - exact).abs().max() < 0.15 * exact.abs().max()
    assert all(p.dtype == torch.float32 for p in low.trainable().values())
    trained = low.predict(start_of(low), torch.tensor([900.0, 300.0]), low.encode([Prompt(t) for t in TEXTS]))
    low.decode(trained).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in low.trainable().values())


def fewer_bits_stay_near_and_say_the_same_of_a_row(family: Family, tmp_path: Path) -> None:
    """The base in fewer bits: near, the LoRA beside it trains and fits the plain base, no row hangs on its batch."""
    exact = velocity(family.make())
    x, times = start_of(family.make()), torch.tensor([900.0, 300.0])
    for quantize, near in (("nf4", 0.35), ("int8", 0.03), ("fp8", 0.1)):
        adapter = family.make(quantize=quantize)
        said = velocity(adapter)
        assert 0 < (said - exact).norm() < near * exact.norm(), quantize
        with adapter.reference():
            assert torch.equal(velocity(adapter), said)
        with torch.no_grad():
            alone = adapter.predict(x[:1], times[:1], adapter.encode([Prompt(TEXTS[0])]))
        torch.testing.assert_close(alone[0], said[0], rtol=1e-4, atol=1e-5)
        disturb(adapter)
        adapter.predict(x, times, adapter.encode([Prompt(t) for t in TEXTS])).square().mean().backward()
        assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in adapter.trainable().values())
        adapter.save(tmp_path / quantize)
        family.make().restore(tmp_path / quantize)  # onto the base as it was published


CHECKS = [
    latents_and_images_are_the_pipelines,
    a_negative_prompt_is_the_pipelines,
    it_is_a_latent_adapter,
    prompts_matter_and_media_is_refused,
    each_text_is_encoded_once,
    a_row_does_not_depend_on_its_batch,
    plain_diffusers_loads_the_lora,
    plain_diffusers_loads_the_full_fine_tune,
    the_reference_is_exact_and_comes_back_from_errors,
    gradients_reach_what_trains_and_the_latents,
    the_decoders_gradient_is_its_slope,
    images_become_the_latents_the_autoencoder_says,
    low_precision_and_checkpointing_stay_near,
    fewer_bits_stay_near_and_say_the_same_of_a_row,
]
NAMES = [check.__name__ for check in CHECKS]
