"""A family's adapter, its policy and one session on it, at any size: pictures, sound, texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmalign import rule
from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.core.types import Audio, Prompt
from mmalign.data.batches import Batches
from mmalign.training.session import Session
from mmalign.training.update import Update

PROMPTS = [Prompt(f"a picture of {n} things") for n in ("one", "two", "three", "four")]

#: Options beyond what every family takes: short texts, so that figures are the generator's.
OWN: dict[str, dict[str, Any]] = {
    "sd3": {"text_encoder_3": False},
    "flux": {"max_sequence_length": 64},
    "qwen_image": {"max_sequence_length": 64},
    "sana": {"max_sequence_length": 64, "complex_human_instruction": []},
}


def loaded(
    name: str, folder: Path, dtype: str, device: str = "cuda", resolution: int = 512, **more: Any
) -> tuple[Any, Any]:
    """Adapter with LoRA and its step policy, at `resolution` pixels."""
    from mmalign.adapters import adapters
    from mmalign.policies import policies

    options = {
        "model": str(folder),
        "dtype": dtype,
        "resolution": resolution,
        "gradient_checkpointing": True,
        "device": device,
    }
    adapter = adapters.build({"name": name, **options, **OWN.get(name, {}), **more}, "adapter").load()
    kind = "flow" if adapter.prediction == "flow" else "ddpm"
    policy = {"name": kind, "num_inference_steps": 6, "rows": 4}
    return adapter, policies.build(policy, "policy", adapter=adapter)


def grpo_session(adapter: Any, spans: int = 1) -> tuple[Any, Session]:
    """GRPO on a reward that costs nothing, so that figures are the generator's."""
    from mmalign.objectives.grpo import GRPO
    from mmalign.rewards import Mix, load_reward

    trainer = Trainer(steps=1, prompts_per_step=2, micro_batch_size=4, steps_per_pass=spans, lr=1e-4)
    rule = Update(list(adapter.trainable().values()), trainer)
    session = Session(trainer, rule, Batches(PROMPTS, 2, 0), Streams(0))
    return GRPO(reward=Mix({"crisp": load_reward("sharpness")}), group_size=4, beta=0.01), session


@rule(modalities={"audio"}, range=(0.0, float("inf")))
def level(prompt: Prompt, output: Audio) -> float:
    """Root mean square: a reward that costs nothing."""
    return float(output.samples.square().mean().sqrt())


@rule(modalities={"text"}, range=(0.0, float("inf")))
def variety(prompt: Prompt, output: str) -> float:
    """Different words: a reward that costs nothing."""
    return float(len(set(output.split())))


def sounding(name: str, folder: Path, dtype: str, eta: float, seconds: float, device: str = "cuda") -> tuple[Any, Any]:
    """Adapter of sound with LoRA and its policy, for sounds of `seconds`; eta 0 for whole sets, 1 for its own steps."""
    from mmalign.adapters import adapters
    from mmalign.policies import policies

    options = {"model": str(folder), "dtype": dtype, "gradient_checkpointing": True, "device": device}
    adapter = adapters.build({"name": name, "seconds": seconds, **options}, "adapter").load()
    policy = {"name": "ddpm", "num_inference_steps": 6, "rows": 4, "eta": eta}
    return adapter, policies.build(policy, "policy", adapter=adapter)


def sound_session(adapter: Any, kind: str) -> tuple[Any, Session]:
    """GRPO on a level, or DRAGON on the Vendi score of spectra, of eight sounds."""
    from mmalign.objectives.dragon import DRAGON
    from mmalign.objectives.grpo import GRPO
    from mmalign.rewards import Mix, load_reward

    if kind == "grpo":
        objective: Any = GRPO(reward=Mix({"level": level()}), group_size=4, beta=0.01)
    else:
        objective = DRAGON(load_reward("vendi", encoder={"name": "spectral", "rate": 4000, "bands": 8}))
    return objective, _session(adapter, 2 if kind == "grpo" else 4)


def speaking(name: str, folder: Path, dtype: str, device: str = "cuda", **more: Any) -> tuple[Any, Any, list[Prompt]]:
    """Language model with LoRA, its policy for 64 tokens, and prompts (about pictures for one that sees)."""
    from mmalign.adapters import adapters
    from mmalign.policies import policies

    sees = name.startswith("mllm")
    options = {"model": str(folder), "dtype": dtype, "device": device, "lora": {"rank": 16, "alpha": 32}, **more}
    adapter = adapters.build({"name": "image_text" if sees else "causal_lm", **options}, "adapter").load()
    policy = policies.build({"name": "tokens", "max_new_tokens": 64}, "policy", adapter=adapter)
    seen = [{"image": torch.rand(3, 32, 32)} if sees else {} for _ in range(4)]
    texts = ("say two dogs", "red cube", "a b c", "good")
    return adapter, policy, [Prompt(text, media) for text, media in zip(texts, seen, strict=True)]


def text_session(adapter: Any, prompts: list[Prompt]) -> tuple[Any, Session]:
    """GRPO on the variety of words, of 4 prompts with 8 answers each."""
    from mmalign.objectives.grpo import GRPO
    from mmalign.rewards import Mix

    return GRPO(reward=Mix({"variety": variety()}), group_size=8), _session(adapter, 4, rows=8, prompts=prompts)


def _session(adapter: Any, batch: int, rows: int = 4, prompts: list[Prompt] = PROMPTS) -> Session:
    trainer = Trainer(steps=1, prompts_per_step=batch, micro_batch_size=rows, lr=1e-4)
    rule_of = Update(list(adapter.trainable().values()), trainer)
    return Session(trainer, rule_of, Batches(prompts, batch, 0), Streams(0))
