"""Users whose descriptions are alike as positives of each other, beside the next item (SRA-CL, as a toy of tastes).

    python -m pipelines.papers.neighbours

A user has a taste, a colour and a shape; of four items seen, captions of one thing, most show it in part. The model is
the rewriter, whose features of the history should be near those of the next item: contrast of histories and next items,
and of histories and positives of half of the rows. Positives are: histories of users whose descriptions are nearest (by
annotator `retrieved`; a rule writes them, the two most typical items), the history with one item left out, or the
histories of any other users. Measured on other users: how often the next item is among the ten nearest of sixty.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from mmalign.adapters import load_adapter
from mmalign.annotators import annotators
from mmalign.annotators._rows import Row, Skipped
from mmalign.core.types import Prompt
from mmalign.evaluation.geometry import first_ranks
from mmalign.miniworld.scenes import COLORS, SHAPES, SIZES
from mmalign.objectives.contrast import Contrast
from mmalign.policies.scorer import Scorer
from pipelines.papers import _language as world
from pipelines.papers._experiment import Arms, Experiment, Means, main
from pipelines.papers._pictures import CLIP

USERS, HELD, SEEN, KEPT, STEPS, SIZE, NEAREST = 240, 300, 4, 0.6, 40, 64, 3
UNDER = "show me"  # the prompt that histories and items are read under
ITEMS = [f"a {size} {color} {shape}" for size in SIZES for color in COLORS for shape in SHAPES]


@dataclass(frozen=True)
class User:
    """What a user saw, and the item that comes next."""

    seen: tuple[str, ...]
    following: str

    @property
    def history(self) -> str:
        """All items as one text."""
        return " , ".join(self.seen)

    @property
    def described(self) -> str:
        """The two items that share most with all."""
        count = Counter(word for item in self.seen for word in item.split()[2:])
        typical = sorted(self.seen, key=lambda item: -sum(count[word] for word in item.split()[2:]))
        return " and ".join(typical[:2])


def drawn(rng: np.random.Generator, count: int) -> list[User]:
    """Users by chance; an attribute of an item is that of the taste with probability `KEPT`, else any."""
    made = []
    for _ in range(count):
        taste = (str(rng.choice(COLORS)), str(rng.choice(SHAPES)))
        items = []
        for _ in range(SEEN + 1):
            color, shape = (
                own if rng.random() < KEPT else str(rng.choice(every))
                for own, every in zip(taste, (COLORS, SHAPES), strict=True)
            )
            items.append(f"a {rng.choice(SIZES)} {color} {shape}")
        made.append(User(tuple(items[:-1]), items[-1]))
    return made


def retrieved(users: list[User], folder: Path) -> list[list[str]]:
    """The histories of the users whose descriptions are nearest, by user."""
    rows = [{"prompt": user.history, "described": user.described} for user in users]
    file = folder / "users.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {"name": "retrieved", "encoder": CLIP, "index": str(file), "column": "described", "count": NEAREST}
    result = annotators.build(spec, "retrieved")([Row.of(row) for row in rows])
    histories: dict[str, list[str]] = {}
    for user in users:
        histories.setdefault(user.described, []).append(user.history)
    near = [[] if isinstance(made, Skipped) else made[0]["positive"] for made in result]
    return [[history for text in texts for history in histories[text]] for texts in near]


def masked(user: User) -> list[str]:
    """The history with each item left out."""
    return [" , ".join(user.seen[:at] + user.seen[at + 1 :]) for at in range(SEEN)]


def hit_rate(model: Scorer, users: list[User]) -> float:
    """How often the next item is among the ten nearest."""

    @torch.no_grad()
    def features(texts: list[str]) -> np.ndarray:
        parts = [texts[i : i + 128] for i in range(0, len(texts), 128)]
        found = torch.cat([model.features(model.observe([Prompt(UNDER)] * len(part), part)) for part in parts])
        vectors: np.ndarray = found.numpy()
        return vectors

    right = np.array([[item == user.following for item in ITEMS] for user in users])
    ranks = first_ranks(features([user.history for user in users]), features(ITEMS), right)
    return float((ranks <= 10).mean())


def trained(users: list[User], positives: list[list[str]] | None, seed: int) -> Scorer:
    """The model after `STEPS` steps on next items, and on positives in as many rows where there are some."""
    torch.manual_seed(seed)
    model = Scorer(load_adapter(name="reward_model", model=world.MODEL, train="full", chat=False, device="cpu"))
    rows = [Prompt(user.history, meta={"positive": [user.following]}) for user in users]
    for user, texts in zip(users, positives or [], strict=positives is not None):
        if texts:
            rows.append(Prompt(user.history, meta={"positive": texts}))
    objective = Contrast(positives="column", temperature=0.1, instruction=UNDER)
    world.tune(model, objective, rows, STEPS, size=SIZE, lr=1e-3, seed=seed)
    return model


def measure(seed: int) -> Arms:
    """The hit rate by what the positives are, of the untrained model, and of the users' own items counted."""
    rng = np.random.default_rng([36, seed])
    users, held = drawn(rng, USERS), drawn(rng, HELD)
    with TemporaryDirectory() as folder:
        near = retrieved(users, Path(folder))
    others = [[users[int(i)].history for i in rng.integers(USERS, size=NEAREST)] for _ in users]
    arms = {
        "next items alone": None,
        "retrieved": near,
        "masked": [masked(user) for user in users],
        "any users": others,
    }
    rates = {arm: hit_rate(trained(users, positives, seed), held) for arm, positives in arms.items()}
    untrained = Scorer(load_adapter(name="reward_model", model=world.MODEL, train="full", chat=False, device="cpu"))
    return {
        **{arm: {"hit_rate": rate} for arm, rate in rates.items()},
        "untrained": {"hit_rate": hit_rate(untrained, held)},
        "words counted": {"hit_rate": counted(held)},
    }


def counted(users: list[User]) -> float:
    """The hit rate of items by how many words of the history are theirs; ties stand before the right one."""
    hits = 0
    for user in users:
        count = Counter(user.history.split())
        score = {item: sum(count[word] for word in item.split()[2:]) for item in ITEMS}
        hits += sum(value >= score[user.following] for value in score.values()) <= 10
    return hits / len(users)


def holds(means: Means) -> bool:
    """Retrieved positives help by 0.02, and more than masked ones and those of any users."""
    rate = {arm: one["hit_rate"] for arm, one in means.items()}
    return rate["retrieved"] >= 0.02 + rate["next items alone"] and rate["retrieved"] > max(
        rate["masked"], rate["any users"]
    )


EXPERIMENT = Experiment(
    number=36,
    name="neighbours",
    claim="Histories of users who are described alike are better positives beside the next item than masked histories.",
    falsified_if="the hit rate at ten is less than 0.02 above that of next items alone, or not above masked positives "
    "and those of any users",
    control="the histories of any other users as positives",
    measure=measure,
    holds=holds,
    caveat="A toy of tastes: no recommender, no data of people, and a rule in the place of the model that describes.",
)

if __name__ == "__main__":
    main(EXPERIMENT, __doc__)
