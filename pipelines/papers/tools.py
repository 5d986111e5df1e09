"""What partial credit for tool calls leaves to learn from where hardly any call is right (ToolRL).

    python -m pipelines.papers.tools

200 prompts with a right call of three parameters, and 8 outputs to each of a start that gets a name right nine times in
ten and a parameter three times in ten. Measured: the share of groups whose outputs all score alike, and how far the
credit follows the number of parts that are right.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from mmalign.core.types import Prompt, Rollout
from mmalign.rewards import load_reward
from pipelines.papers._experiment import Arms, Experiment, Means, main

PROMPTS, GROUP, NAMED, RIGHT = 200, 8, 0.9, 0.3
VALUES: dict[str, list[Any]] = {
    "shape": ["circle", "square", "star"],
    "colour": ["red", "blue", "green"],
    "count": [1, 2, 3, 4],
}


def outputs(seed: int) -> tuple[Rollout, np.ndarray]:
    """The outputs of every group, and how many parts of each are right, (B,)."""
    rng = np.random.default_rng([26, seed])
    prompts, texts, parts = [], [], []
    for _ in range(PROMPTS):
        right = {name: values[int(rng.integers(len(values)))] for name, values in VALUES.items()}
        prompt = Prompt("draw", meta={"ground_truth": [{"name": "draw", "parameters": right}]})
        for _ in range(GROUP):
            named, hits = rng.random() < NAMED, rng.random(len(right)) < RIGHT
            said = {
                name: value if hit else _other(value, VALUES[name], rng)
                for (name, value), hit in zip(right.items(), hits, strict=True)
            }
            call = json.dumps({"name": "draw" if named else "paint", "parameters": said})
            prompts.append(prompt)
            texts.append(f"<think>so</think>\n<tool_call>\n{call}\n</tool_call>")
            parts.append(int(named) + int(hits.sum()) if named else 0)
    return Rollout(prompts, texts, torch.arange(PROMPTS).repeat_interleave(GROUP)), np.array(parts)


def _other(value: Any, values: list[Any], rng: np.random.Generator) -> Any:
    wrong = [other for other in values if other != value]
    return wrong[int(rng.integers(len(wrong)))]


def measure(seed: int) -> Arms:
    """Flat groups and the rank correlation with the parts that are right, by credit."""
    rollout, parts = outputs(seed)
    arms: dict[str, dict[str, float]] = {}
    for arm in ("exact", "coarse", "intermediate", "fine"):
        reward = load_reward("tool_call", credit="fine" if arm == "exact" else arm)
        values = reward(rollout).parts["match"]
        values = (values == reward.scale).float() if arm == "exact" else values
        each = values.view(PROMPTS, GROUP)
        flat = float((each.amax(1) == each.amin(1)).float().mean())
        arms[arm] = {"flat": flat, "spearman": float(spearmanr(values.numpy(), parts).statistic)}
    return arms


def holds(means: Means) -> bool:
    """Exact match leaves most groups flat, fine credit hardly any, and it follows the parts best."""
    best = max(means[arm]["spearman"] for arm in ("exact", "coarse"))
    flat = means["exact"]["flat"] > 0.6 and means["fine"]["flat"] < 0.1
    return flat and means["fine"]["spearman"] > best


EXPERIMENT = Experiment(
    number=26,
    name="tools",
    claim="Where calls are rarely right, exact match leaves most groups without a signal, and fine credit hardly any.",
    falsified_if="exact match leaves at most 0.6 of groups flat, fine credit 0.1 or more, or follows the parts less",
    control="exact match, and the coarse credit of the paper's ablation",
    measure=measure,
    holds=holds,
    caveat="Outputs are drawn, no policy learns; how often a part is right is set here.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
