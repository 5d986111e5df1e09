"""A family's adapter, its step policy and one GRPO session on it, at any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.core.config import Trainer
from mmalign.core.rng import Streams
from mmalign.core.types import Prompt
from mmalign.data._batches import Batches
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


def loaded(name: str, folder: Path, dtype: str, device: str = "cuda", resolution: int = 512) -> tuple[Any, Any]:
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
    adapter = adapters.build({"name": name, **options, **OWN.get(name, {})}, "adapter").load()
    kind = "flow" if adapter.prediction == "flow" else "ddpm"
    policy = {"name": kind, "num_inference_steps": 6, "rows": 4}
    return adapter, policies.build(policy, "policy", adapter=adapter)


def grpo_session(adapter: Any, spans: int = 1) -> tuple[Any, Session]:
    """GRPO on a reward that costs nothing, so that figures are the generator's."""
    from mmalign.objectives.grpo import GRPO
    from mmalign.rewards import Mix, load_reward

    trainer = Trainer(steps=1, batch=2, rows=4, spans=spans, lr=1e-4)
    rule = Update(list(adapter.trainable().values()), trainer)
    session = Session(trainer, rule, Batches(PROMPTS, 2, 0), Streams(0))
    return GRPO(reward=Mix({"crisp": load_reward("sharpness")}), group_size=4, beta=0.01), session
