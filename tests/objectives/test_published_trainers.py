"""One step of fine-tuning against plain loops of diffusers and transformers: loss and gradients, same noise, levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.adapters.image.sd import SD
from mmalign.adapters.image.sd3 import SD3
from mmalign.adapters.sound.musicgen import MusicGen
from mmalign.core.types import Audio, Example, Prompt
from mmalign.objectives.sft import SFT
from mmalign.policies._surrogate import LevelDistribution, error_weight
from mmalign.policies.ddpm import Ddpm
from mmalign.policies.flow import Flow
from mmalign.policies.tokens import Tokens
from tests.adapters.sound.tiny_musicgen import RATE, write_musicgen
from tests.adapters.tiny import write_tiny_sd, write_tiny_sd3
from tests.objectives.driving import accumulate, collect, gradient, stream

TEXTS = ["a red cube", "two dogs", "slow"]
INDEX = torch.tensor([40, 500, 930])  # of a training schedule of 1,000


def pictures() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=stream(5))


def examples(outputs: Any) -> list[Example]:
    return [Example(Prompt(text), output) for text, output in zip(TEXTS, outputs, strict=True)]


def flat(network: Any) -> Tensor:
    return torch.cat([p.grad.flatten() if p.grad is not None else torch.zeros_like(p).flatten() for p in network])


def ours(policy: Any, levels: Tensor, **options: Any) -> tuple[float, Any, Tensor]:
    """The loss of a step, what it learned from, and its gradient; every row at its level."""
    objective = SFT(unit="mse", **options)
    experience = collect(policy, objective, examples(pictures()))
    experience.probe["u"] = levels[:, None]
    grads = gradient(policy, objective, experience)
    loss = -2 * accumulate(policy, objective, experience)["fit/target"]
    return loss, experience, grads


def same(found: tuple[float, Any, Tensor], loss: Tensor, parameters: Any) -> None:
    loss.backward()
    wanted = flat(parameters)
    assert found[0] == pytest.approx(loss.item(), rel=1e-4)
    assert (found[2] - wanted).norm() <= 1e-4 * wanted.norm()
    assert wanted.norm() > 0


def noisy_latents(pipe: Any, images: Tensor) -> Tensor:
    z = pipe.vae.encode(images * 2 - 1).latent_dist.mode()
    return (z - (pipe.vae.config.shift_factor or 0.0)) * pipe.vae.config.scaling_factor


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_a_step_of_train_text_to_image(tmp_path: Path, kind: str, gamma: float | None) -> None:
    from diffusers import DDPMScheduler, StableDiffusionPipeline
    from diffusers.training_utils import compute_snr

    folder = write_tiny_sd(tmp_path / "sd", kind)
    plain: Any = Ddpm.weighting
    policy = Ddpm(
        SD(str(folder), train="full", resolution=16).load("cpu"),
        weighting="min_snr" if gamma else plain,
        min_snr_gamma=gamma or 1.0,
    )
    step = ours(policy, (INDEX + 0.5) / 1000)
    noise = step[1].probe["noise"][:, 0]

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    with torch.no_grad():
        latents = noisy_latents(pipe, pictures())
        states = torch.cat([pipe.encode_prompt([t], "cpu", 1, False)[0] for t in TEXTS])
    noisy = scheduler.add_noise(latents, noise, INDEX)
    target = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, INDEX)
    error = (pipe.unet(noisy, INDEX, states, return_dict=False)[0] - target).square().mean((1, 2, 3))
    if gamma:
        snr = compute_snr(scheduler, INDEX)
        error = error * snr.clamp(max=gamma) / (snr if kind == "epsilon" else snr + 1)
    same(step, error.mean(), pipe.unet.parameters())


@pytest.mark.parametrize(
    ("weighting", "scheme", "preconditioned"),
    [
        ("const_v", "none", False),
        ("const_x0", "logit_normal", True),
        ("const_v", "sigma_sqrt", True),
        ("sigma_sqrt", "sigma_sqrt", False),
        ("cosmap", "cosmap", False),
    ],
)
def test_a_step_of_train_dreambooth_sd3(tmp_path: Path, weighting: Any, scheme: str, preconditioned: bool) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from diffusers.training_utils import compute_loss_weighting_for_sd3

    folder = write_tiny_sd3(tmp_path / "sd3", t5=False)
    adapter = SD3(str(folder), train="full", resolution=16, text_encoder_3=False, max_sequence_length=1).load("cpu")
    policy = Flow(adapter, weighting=weighting)
    step = ours(policy, 1 - INDEX / 1000)  # the script's index runs from noise to data
    noise = step[1].probe["noise"][:, 0]

    pipe = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    assert scheduler.config.shift == 3
    with torch.no_grad():
        latents = noisy_latents(pipe, pictures())
        encoded = [
            pipe.encode_prompt(t, None, None, do_classifier_free_guidance=False, max_sequence_length=1) for t in TEXTS
        ]
    states, pooled = torch.cat([e[0] for e in encoded]), torch.cat([e[2] for e in encoded])
    times, sigmas = scheduler.timesteps[INDEX], scheduler.sigmas[INDEX].view(-1, 1, 1, 1)
    noisy = (1 - sigmas) * latents + sigmas * noise
    prediction = pipe.transformer(noisy, states, pooled, times, return_dict=False)[0]
    target = noise - latents
    if preconditioned:
        prediction, target = prediction * -sigmas + noisy, latents
    weight = compute_loss_weighting_for_sd3(scheme, sigmas)
    loss = (weight * (prediction - target).square()).flatten(1).mean(1).mean()
    same(step, loss, pipe.transformer.parameters())


def test_a_step_of_musicgen(tmp_path: Path) -> None:
    from transformers import MusicgenForConditionalGeneration

    folder = write_musicgen(tmp_path / "musicgen")
    adapter = MusicGen(str(folder), device="cpu", train="full", guidance_scale=3.0, guided_density=False).load()
    policy = Tokens(adapter, max_new_tokens=9)
    sound = 0.5 * torch.randn(3, 1, RATE, generator=stream(3))
    objective = SFT(unit="mean")
    experience = collect(policy, objective, examples([Audio(row[None], RATE) for row in sound]))
    policy.module.zero_grad(set_to_none=True)
    loss = -accumulate(policy, objective, experience)["fit/per_token"]
    grads = {name.rpartition("decoder.")[2]: p.grad for name, p in adapter.trainable().items()}

    model = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    model.config.decoder.decoder_start_token_id = adapter.pad_id
    labels = experience.rollout.trajectory["tokens"]
    encoded = [adapter.tokenizer(text, return_tensors="pt").input_ids[0] for text in TEXTS]
    ids = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True)
    known = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in encoded], batch_first=True)
    theirs = model(input_ids=ids, attention_mask=known, labels=labels).loss
    steps = labels.shape[1]
    frames = adapter.delays.frames(steps)
    assert loss == pytest.approx(theirs.item() * frames / steps, rel=1e-4)  # our steps count those of the delay
    theirs.backward()
    wanted = {name.rpartition("decoder.")[2]: p.grad for name, p in model.decoder.named_parameters()}
    assert grads.keys() == wanted.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(grads[name], grad * frames / steps, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("kind", "options"), [("logit_normal", {"mean": 0.7, "std": 1.3}), ("mode", {"mode": 1.29})])
def test_levels_are_distributed_as_in_diffusers(kind: Any, options: dict[str, float]) -> None:
    from diffusers.training_utils import compute_density_for_timestep_sampling

    mean = -options.get("mean", 0.0)  # diffusers counts from the noisy end
    theirs = 1 - compute_density_for_timestep_sampling(
        kind, 400_000, mean, options.get("std"), options.get("mode"), generator=stream(1)
    )
    drawn = LevelDistribution(kind=kind, **options).draw((400_000,), stream(2), "cpu")
    shares = torch.linspace(0.02, 0.98, 25)
    torch.testing.assert_close(drawn["u"].quantile(shares), theirs.quantile(shares), rtol=0, atol=4e-3)
    bins = torch.linspace(0.05, 0.95, 19)  # what is said to be the density is the one that a histogram shows
    counts = torch.histogram(drawn["u"], bins).hist / len(drawn["u"]) / 0.05
    within = [(drawn["u"] >= low) & (drawn["u"] < low + 0.05) for low in bins[:-1]]
    stated = torch.stack([1 / drawn["density"][rows].reciprocal().mean() for rows in within])
    torch.testing.assert_close(stated, counts, rtol=0.05, atol=0.01)


def test_a_shift_moves_levels_and_their_density_as_the_schedulers_do() -> None:
    plain = LevelDistribution(kind="logit_normal").draw((1000,), stream(), "cpu")
    moved = LevelDistribution(kind="logit_normal", shift=3.0).draw((1000,), stream(), "cpu")
    torch.testing.assert_close(moved["u"], 3 * plain["u"] / (1 + 2 * plain["u"]))
    u = plain["u"].double().requires_grad_()
    slope = torch.autograd.grad((3 * u / (1 + 2 * u)).sum(), u)[0]
    torch.testing.assert_close(moved["density"].double(), plain["density"].double() / slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "v", "flow"])
def test_weights_say_the_same_of_every_prediction(kind: Any) -> None:
    """An error of the clean latents is one of ε and of v; what it weighs must not depend on how it is written."""
    angle = torch.linspace(0.1, 1.4, 9)
    alpha, sigma = (1 - angle / 1.5, angle / 1.5) if kind == "flow" else (angle.cos(), angle.sin())
    on_clean = (sigma / alpha if kind == "epsilon" else sigma).square()
    own: Callable[[Any], Tensor] = lambda weighting: error_weight(kind, alpha, sigma, weighting, 5.0)  # noqa: E731
    torch.testing.assert_close(own("const_x0"), on_clean)
    snr = (alpha / sigma).square()
    torch.testing.assert_close(own("min_snr"), own("const_eps") * (5 / snr).clamp(max=1))
    if kind == "flow":
        torch.testing.assert_close(own("sigma_sqrt") * sigma.square(), torch.ones_like(sigma))
        torch.testing.assert_close(own("cosmap"), 2 / (math.pi * (1 - 2 * sigma + 2 * sigma.square())))


def test_options_out_of_range_are_refused() -> None:
    from tests.toys import ToyLatent

    with pytest.raises(ValueError, match="cosmap weighs levels of a rectified flow, which policy 'ddpm' has not"):
        Ddpm(ToyLatent("v"), weighting="cosmap")
    with pytest.raises(ValueError, match=r"density_mode must be in \[-1, 1.752\], not 2"):
        Flow(ToyLatent(), density_levels="mode", density_mode=2.0)
