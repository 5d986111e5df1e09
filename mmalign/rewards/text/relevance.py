"""How near an answer is to what was asked, or to a reference answer, in a text encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mmalign.core.protocols import TextEncoder
from mmalign.core.types import Prompt, Rollout, Scores
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.columns import references_of
from mmalign.rewards.encoders import SeesThroughEncoder, make_encoder, no_side
from mmalign.rewards.engine.contract import is_empty
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["Relevance"]


@dataclass
class Relevance(SeesThroughEncoder):
    """The cosine of the embeddings of an answer and of its prompt, or of the best of its references; in [-1, 1].

    The relevance of R³ (2402.03469). Alone it is hacked by answers that copy the question: the paper multiplies it by a
    length incentive and by the share of distinct trigrams, here `combine: product` of it, `length` and `repetition`,
    each with its `map` to [0, 1] (`text/lm_relevance`); a `router` sends open prompts to the one form and those with a
    reference to the other. An empty prompt is NOT_APPLICABLE.

    Args:
        encoder: of texts: an encoder's spec {name: text, checkpoint: …}, or a CLIP checkpoint; required.
        column: of `Prompt.meta`: the reference, or several; "": the prompt itself.
        where: the answer stands, see `parsing.answer_of`.
    """

    encoder: str | dict[str, Any] = ""
    column: str = ""
    where: Where = "whole"
    modalities = frozenset({"text"})
    range = (-1.0, 1.0)
    differentiable = False
    deterministic = True

    def __post_init__(self) -> None:
        encoder = make_encoder(self.encoder)
        if not isinstance(encoder, TextEncoder):
            raise no_side(TextEncoder, "embeds no texts")
        self.embedder: TextEncoder = encoder

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        return (self.column,) if self.column else ()

    def fingerprint(self) -> str:
        """The digest of the encoder."""
        return self.embedder.fingerprint()

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        read, scores = read_rows(self._read, rollout, self.range[0], self.needs)
        if not read:
            return scores
        texts = [text for answer, wanted in read.values() for text in (answer, *wanted)]
        with torch.no_grad():
            embedded = iter(self.embedder.texts(texts).float().cpu().split([1 + len(w) for _, w in read.values()]))
        for row in read:
            answer, *wanted = next(embedded)
            scores.value[row] = max(float(answer @ each) for each in wanted)
        scores.value.clamp_(-1.0, 1.0)  # unit vectors, up to rounding
        return scores

    def _read(self, prompt: Prompt, output: str) -> tuple[str, list[str]] | None:
        """The answer, and what it should be near to."""
        if not self.column and is_empty(prompt):
            return None
        wanted = references_of(prompt, self.column) if self.column else [prompt.text]
        return bounded(answer_of(output, self.where), LONG), wanted
