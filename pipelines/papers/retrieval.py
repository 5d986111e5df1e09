"""A bench of rewards on retrieved text, where right answer, sources and answerability are known (RAG-RewardBench).

    python -m pipelines.papers.retrieval

Rows of the four kinds over passages about scenes (`mmalign miniworld make retrieval`), judged by length, by how many
words an answer shares with its prompt, by each exact rule alone, and by the mean of the three rules.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmalign.core.types import Prompt
from mmalign.miniworld.retrieval import SUBSETS, retrieval
from mmalign.rewards import Mix, load_reward, rule
from mmalign.run.judge import judge_reward, read_comparisons
from pipelines.papers._experiment import Arms, Experiment, Means, main

COUNT = 400


@rule(modalities={"text"}, range=(0.0, 1.0))
def overlap(prompt: Prompt, output: str) -> float:
    """The share of an answer's words that stand in its prompt."""
    words, known = output.lower().split(), set(prompt.text.lower().replace(".", " ").split())
    return sum(word in known for word in words) / max(len(words), 1)


def measure(seed: int) -> Arms:
    """Accuracy of each reward by kind, and the macro mean."""
    made: dict[str, Any] = {
        "length": load_reward("length", low=60, rise=60),
        "overlap": overlap(),
        **{name: load_reward(name) for name in ("exact_match", "citations", "abstains")},
    }
    made["the three rules"] = Mix({name: made[name] for name in ("exact_match", "citations", "abstains")})
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in retrieval(COUNT, "heldout", seed)))
        rows = read_comparisons(str(file))
    arms: dict[str, dict[str, float]] = {}
    for name, reward in made.items():
        means = judge_reward(name, reward, rows).means()
        arms[name] = {**{subset: means[f"accuracy/{subset}"] for subset in SUBSETS}, "macro": means["macro"]}
    return arms


def holds(means: Means) -> bool:
    """The three rules are right everywhere; length no better than chance on citations and abstention."""
    blind = max(means["length"][subset] for subset in ("citation", "abstain"))
    alone = max(means[name]["macro"] for name in ("exact_match", "citations", "abstains"))
    return means["the three rules"]["macro"] == 1 and blind <= 0.5 and alone < 1


EXPERIMENT = Experiment(
    number=43,
    name="retrieval",
    claim="Each exact rule sees its own kinds alone, their mean all four; length tells neither sources nor abstention.",
    falsified_if="the mean of the rules is not always right, or length is above 0.5 on citations or on abstention",
    control="length, and the words that an answer shares with its prompt",
    measure=measure,
    holds=holds,
    caveat="Rows and rules are of one author; no fitted reward model is measured here.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
