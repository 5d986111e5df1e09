"""Questions to a judge and its answers: how a judge is named, loaded and read, wherever it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.digests import value_digest
from mmalign.core.errors import ConfigError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.rewards.models.endpoint import Server

Make = Callable[..., Any]


@dataclass
class JudgeServer(Server):
    """Where a judge answers by OpenAI's interface: `url` is what stands before "/chat/completions".

    Args:
        samples: 0 reads the log-probs of the first token; for servers that give none, so many answers are drawn at
            temperature 1 and counted.
    """

    samples: int = 0

    def __post_init__(self) -> None:
        faults = self.faults("judge.server.")
        if self.samples < 0:
            faults.append(f"judge.server.samples: {self.samples} must be at least 0.")
        if faults:
            raise ConfigError(faults)


@dataclass
class Asking:
    """How a judge is loaded and read.

    Args:
        adapter: further options of the model's adapter ({dtype: bf16, system: …}), its `name` among them: `image_text`,
            `audio_text` or `causal_lm`. Without a name a folder's files tell; of the Hub it is `image_text`.
        yes: the word for yes, in any letter case.
        no: the word for no.
        least_mass: P(yes) + P(no) below this is no answer but the judge's fault, an ERROR.
        rows: questions per forward.
        isolated: judge in a process of its own, row by row, where the slot's `timeout` can end it; slower.
        server: asks a server elsewhere in place of loading the model here; `checkpoint` is its name there.
    """

    adapter: dict[str, Any] = field(default_factory=dict)
    yes: str = "yes"
    no: str = "no"
    least_mass: float = 0.5
    rows: int = 32
    isolated: bool = False
    server: JudgeServer | None = None

    def __post_init__(self) -> None:
        faults = [] if self.rows >= 1 else ["judge.rows: must be at least 1."]
        if not 0 <= self.least_mass < 1:
            faults.append(f"judge.least_mass: {self.least_mass} is not in [0, 1).")
        if self.server is not None and self.adapter:
            faults.append(
                f"judge.adapter: {', '.join(self.adapter)} say how a model is loaded here; remove it, or judge.server."
            )
        if faults:
            raise ConfigError(faults)


@dataclass
class Answers:
    """Answers to N questions: `margin` log P(yes) - log P(no) and `mass` P(yes) + P(no), NaN where there is no answer.

    `why` says why there is none; `too_long` marks questions longer than the judge can read.
    """

    margin: Float[Tensor, " N"]
    mass: Float[Tensor, " N"]
    why: list[str]
    too_long: list[bool]


def each_once(questions: Sequence[Prompt], answer: Callable[[Sequence[Prompt], Sequence[bytes]], Answers]) -> Answers:
    """Answers of N questions, of which equal ones (texts, pictures and sounds) are asked once.

    `answer` is given the different questions, and the digest of the media of each (empty without any).
    """
    digests = _digests(questions)
    keys = [(question.text, digest) for question, digest in zip(questions, digests, strict=True)]
    first: dict[tuple[str, bytes], int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    answers = answer([questions[i] for i in first.values()], [digests[i] for i in first.values()])
    places = {key: n for n, key in enumerate(first)}
    rows = [places[key] for key in keys]
    picked = torch.tensor(rows, dtype=torch.long)
    return Answers(
        answers.margin[picked],
        answers.mass[picked],
        [answers.why[n] for n in rows],
        [answers.too_long[n] for n in rows],
    )


def _digests(questions: Sequence[Prompt]) -> list[bytes]:
    """What each question's pictures and sounds are; empty without any."""
    known: dict[int, bytes] = {}

    def digest(media: Mapping[str, Any]) -> bytes:
        total = hashlib.blake2b(digest_size=16)
        for name, value in media.items():
            if id(value) not in known:
                known[id(value)] = value_digest(value)
            total.update(f"{name} ".encode() + known[id(value)])
        return total.digest() if media else b""

    return [digest(question.media) for question in questions]
