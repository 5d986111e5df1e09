"""What watching over a rollout costs a call of a reward: `foreign_code.Shield` against the bare call.

16 outputs of 4 prompts, with the trajectory of 10 steps beside pictures. The CLIP is a ViT-B/32 with weights drawn at
random; the embedded one, the rule over pixels and the rule over texts are the cheapest rewards there are.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from mmalign import load_reward
from mmalign.core.types import Prompt, Rollout
from mmalign.rewards.engine.call import Shield
from tests.benchmarks.overhead import seconds

PROMPTS, EACH, STEPS = 4, 4, 10
ANSWER = "Two pens cost 4 euros, so that nine of them cost 18. The answer is 18."


def measure(repeats: int = 7) -> dict[str, Any]:
    """By reward the seconds of the watch and of the call, medians, and the share of the call that the watch takes."""
    cases = {
        "clip_vit_b_32_512px": (_vit(), _pictures(512)),
        "embedded_clip_96px": (load_reward("clip", checkpoint="assets/scenes_clip"), _pictures(96)),
        "sharpness_512px": (load_reward("sharpness"), _pictures(512)),
        "relaxed_accuracy_text": (load_reward("relaxed_accuracy"), _texts()),
    }
    return {name: _case(reward, rollout, repeats) for name, (reward, rollout) in cases.items()}


def _case(reward: Callable[[Rollout], Any], rollout: Rollout, repeats: int) -> dict[str, float]:
    def watch() -> None:
        Shield(rollout).check("it")

    def call() -> None:
        with torch.no_grad():
            reward(rollout)

    watch()
    call()
    watched, called = (
        statistics.median(side) for side in zip(*((seconds(watch), seconds(call)) for _ in range(repeats)), strict=True)
    )
    return {
        "watch_seconds": round(watched, 6),
        "call_seconds": round(called, 6),
        "share": round(watched / called, 4),
    }


def _vit() -> Callable[[Rollout], Any]:
    import open_clip

    model = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    tokens = open_clip.get_tokenizer("ViT-B-32")

    def score(rollout: Rollout) -> torch.Tensor:
        size = torch.nn.functional.interpolate(rollout.output, (224, 224), mode="bicubic", antialias=True)
        texts = model.encode_text(tokens([prompt.text for prompt in rollout.prompts]), normalize=True)
        return (model.encode_image(size, normalize=True) * texts).sum(1)

    return score


def _rollout(output: Any) -> Rollout:
    facts = {"answer": "18", "boxes": [[1, 2, 3, 4]] * 5}
    asked = [Prompt(f"{n} pens beside a box of ink", meta=facts) for n in range(PROMPTS)]
    return Rollout.of([prompt for prompt in asked for _ in range(EACH)], output)


def _pictures(size: int) -> Rollout:
    rollout, count = _rollout(torch.rand(PROMPTS * EACH, 3, size, size)), PROMPTS * EACH
    rollout.trajectory = {"latents": torch.randn(count, STEPS + 1, 16, size // 8, size // 8)}
    rollout.step_logp = torch.randn(count, STEPS)
    return rollout


def _texts() -> Rollout:
    rollout = _rollout([ANSWER] * (PROMPTS * EACH))
    rollout.step_logp = torch.randn(PROMPTS * EACH, 128)
    return rollout
