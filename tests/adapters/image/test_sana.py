"""Sana against `SanaPipeline`, with the published DPM-Solver scheduler and with flow-matching Euler."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from mmalign.adapters.image.sana import Sana
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt
from tests.adapters.deterministic import sample
from tests.adapters.image.tiny_sana import write_sana
from tests.adapters.tiny_contract import CHECKS, NAMES, STEPS, TEXTS, Family, start_of

INSTRUCTION = ["Say more about it:", "- with colours", "User Prompt: "]


def call(pipe, texts, start, steps, scale, output, negative="", **more):
    """The pipeline's own; a DPM-Solver is replaced by Euler with its shift and its sigmas."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    if isinstance(solver := pipe.scheduler, DPMSolverMultistepScheduler):
        solver.set_timesteps(steps)
        s = solver.config.flow_shift
        more["sigmas"] = [float(v / (s - (s - 1) * v)) for v in solver.sigmas[:-1].double()]
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=s)
    try:
        return pipe(
            texts,
            negative_prompt=[negative] * len(texts),
            guidance_scale=scale,
            height=start.shape[2] * pipe.vae_scale_factor,
            width=start.shape[3] * pipe.vae_scale_factor,
            num_inference_steps=steps,
            latents=start,
            use_resolution_binning=False,
            output_type=output,
            **{"complex_human_instruction": INSTRUCTION} | more,
        ).images
    finally:
        pipe.scheduler = solver


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    from diffusers import SanaPipeline

    root, options = tmp_path_factory.mktemp("sana"), {"complex_human_instruction": INSTRUCTION}
    with torch.random.fork_rng():
        folders = {name: write_sana(root / name, solver=name == "solver") for name in ("solver", "euler")}
    # The decoder's attention rounds to float32 even in a double decoder: smaller steps drown in that.
    step: dict[str, Any] = {"decoder_step": 1e-4}
    return {name: Family(Sana, SanaPipeline, folder, call, options, **step) for name, folder in folders.items()}


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_contract(check, families, tmp_path):
    check(families["solver"], tmp_path)


@pytest.mark.parametrize("check", CHECKS[:3], ids=NAMES[:3])
def test_contract_of_euler(check, families, tmp_path):
    check(families["euler"], tmp_path)


def test_the_levels_are_the_solvers_own(families):
    family = families["solver"]
    adapter, solver = family.make(), family.plain().scheduler
    for steps in (1, 4, 20):
        solver.set_timesteps(steps)
        torch.testing.assert_close(adapter.schedule(steps).sigma, solver.sigmas, rtol=1e-5, atol=1e-6)
        # it rounds its times down to whole numbers
        assert ((adapter.schedule(steps).times[:-1] - solver.timesteps).abs() <= 1 + 1e-3).all()


def test_a_first_order_solver_with_its_own_scheduler_makes_the_same_image(families):
    from diffusers import DPMSolverMultistepScheduler

    family = families["solver"]
    adapter, pipe = family.make(), family.plain()
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, solver_order=1)
    start, kwargs = start_of(adapter), {"num_inference_steps": 8, "use_resolution_binning": False}
    expected = pipe(
        TEXTS,
        guidance_scale=3.0,
        latents=start,
        height=64,
        width=64,
        complex_human_instruction=INSTRUCTION,
        output_type="latent",
        **kwargs,
    ).images
    scale = expected.abs().max()
    assert (sample(adapter, TEXTS, start, 8, 3.0) - expected).abs().max() <= 0.01 * scale  # its times are rounded


def test_the_instruction_is_the_pipelines_unless_said_otherwise(families):
    family = families["euler"]
    own, none = family.make(complex_human_instruction=None), family.make(complex_human_instruction=[])
    pipe, start = family.plain(), start_of(own)
    published = inspect.signature(pipe.__call__).parameters["complex_human_instruction"].default
    assert len(published) > 3
    one = sample(own, TEXTS, start, STEPS)
    other = sample(none, TEXTS, start, STEPS)
    expected = [call(pipe, TEXTS, start, STEPS, 1.0, "latent", complex_human_instruction=c) for c in (published, None)]
    assert (one - expected[0]).abs().max() <= 1e-4
    assert (other - expected[1]).abs().max() <= 1e-4
    assert (one - other).abs().max() > 1e-4


def test_a_variance_half_is_left_out(tmp_path):
    from diffusers import SanaPipeline, SanaTransformer2DModel

    folder = write_sana(tmp_path / "two", solver=False)
    config = SanaTransformer2DModel.load_config(folder / "transformer")
    SanaTransformer2DModel.from_config(config, out_channels=8).save_pretrained(folder / "transformer")
    family = Family(Sana, SanaPipeline, folder, call, {"complex_human_instruction": INSTRUCTION})
    adapter = family.make()
    start = start_of(adapter)
    expected = call(family.plain(), TEXTS, start, STEPS, 3.0, "latent")
    assert (sample(adapter, TEXTS, start, STEPS, 3.0) - expected).abs().max() <= 1e-4


def test_latents_are_scaled_as_the_autoencoder_states(families):
    adapter = families["euler"].make()
    images = torch.rand(2, 3, 64, 64)
    vae = adapter.loaded.pipeline.vae
    with torch.no_grad():
        torch.testing.assert_close(adapter.latents(images), vae.encode(images * 2 - 1).latent * 0.41407)


def test_a_solver_that_is_not_of_flows_is_refused(tmp_path):
    from diffusers import DPMSolverMultistepScheduler

    folder = write_sana(tmp_path / "epsilon")
    DPMSolverMultistepScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(CapabilityError, match="prediction_type 'epsilon' and use_flow_sigmas False"):
        Sana(model=str(folder), device="cpu").load()


def test_a_size_the_pipeline_refuses_is_refused_at_once(families):
    with pytest.raises(ConfigError, match=r"width: 40 is not a positive multiple of 32.*the nearest is 32"):
        families["euler"].make(width=40)
    adapter = families["euler"].make(height=32, width=64)
    assert adapter.latent_shape == (4, 16, 32)
    assert adapter.encode([Prompt("x")])["encoder_attention_mask"].shape == (1, 300)


@pytest.mark.parametrize("instruction", [INSTRUCTION, []])
def test_a_prompt_that_is_too_long_is_cut_with_a_warning_as_the_pipeline_cuts_it(instruction, families, recwarn):
    family = families["euler"]
    adapter = family.make(complex_human_instruction=instruction, max_sequence_length=12)
    expected = family.plain().encode_prompt(
        ["a red cube, very red"],
        do_classifier_free_guidance=False,
        max_sequence_length=12,
        complex_human_instruction=instruction,
    )
    with pytest.warns(
        UserWarning, match=r"sana: the last \d+ of \d+ tokens of the prompt 'a red cube, very red' are cut"
    ):
        condition = adapter.encode([Prompt("a red cube, very red")])
    torch.testing.assert_close(condition["encoder_hidden_states"], expected[0])
    recwarn.clear()
    adapter.encode([Prompt("a red cube")])  # 10 letters and the start
    assert not [w for w in recwarn if "are cut" in str(w.message)]
