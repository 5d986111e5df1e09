"""Answers that agree with those to another wording of the question: a reward without any label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int

from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt, Rollout, Scores, Status, equal_numbers
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.functional import majority_agreement, vote_share
from mmalign.rewards.parsing import Unreadable, Where, answer_of, normalized, quantity, unwrapped

__all__ = ["Consensus", "value_numbers"]


@dataclass
class Consensus:
    """1 where the answer is what most answers to the other wordings of the question say, else 0; in [0, 1].

    Co-Reward (2508.00410): r(y | q) = 1[ans(y) = majority of the answers to q̃], and crosswise for q̃. Wordings of one
    question share the value of a column and a step (`data: {name: views, …}`). No label is read, so that what all
    wordings get wrong alike is learned, too: watch a held-out `exact_match`, and how alike the answers become.

    An answer that cannot be read is PARSE_FAIL and has no vote; a row whose voters have no answer, or that has none in
    this step, is NOT_APPLICABLE. Equal are texts up to case, blanks, punctuation at the ends and markup, and numbers by
    value. `parts`: `share`, of the voters that say the same, and `own`, of the others of the row's own group.

    Args:
        column: of `Prompt.meta`: what the wordings of one question have in common.
        vote: whose: `partner`, the answers to the other wordings; `own`, the other answers to the same wording, which
            is plain self-consistency; `all`, both.
        soft: the value is the share of votes for the answer, in place of 0 and 1.
        where: the answer stands, see `parsing.answer_of`.
    """

    column: str = "view_of"
    vote: Literal["partner", "own", "all"] = "partner"
    soft: bool = False
    where: Where = "auto"
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False
    batch_dependent = True  # other rows vote: calls are neither split nor cached by row

    @property
    def needs(self) -> tuple[str, ...]:
        """The column that wordings share; of answers to one wording alone nobody asks for it."""
        return () if self.vote == "own" else (self.column,)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows, whole steps of them."""
        read, scores = read_rows(self._read, rollout, self.range[0], self.needs)
        answer = value_numbers([read.get(row) for row in range(len(rollout))])
        within, between = _neighbours(rollout, self.column)
        voters = {"partner": between, "own": within, "all": within | between}[self.vote]
        value = vote_share(answer, voters) if self.soft else majority_agreement(answer, voters)
        info = scores.info or [""] * len(scores)
        for row in read:
            scores.value[row] = value[row]
            if bool(value[row].isnan()):
                scores.status[row] = int(Status.NOT_APPLICABLE)
                info[row] = "no other answer votes about it in this step; are other wordings in it?"
        scores.parts |= {"share": vote_share(answer, voters).float(), "own": vote_share(answer, within).float()}
        scores.info = info if any(info) else None
        return scores

    def _read(self, prompt: Prompt, output: str) -> str:
        """What the answer is, equal for equal answers."""
        text = unwrapped(answer_of(output, self.where))
        try:
            number = quantity(text)
        except Unreadable:
            return f"text {normalized(text)}"
        return f"number {number.value} {number.currency}"


def _neighbours(rollout: Rollout, column: str) -> tuple[Bool[Tensor, "B B"], Bool[Tensor, "B B"]]:
    """Which rows are others of each row's own group, and which are of another group that asks the same."""
    group = rollout.group.cpu()
    numbers = value_numbers([prompt.meta.get(column) for prompt in rollout.prompts])
    same = group[:, None] == group[None]
    alike = (numbers[:, None] == numbers[None]) & (numbers >= 0)[None]
    return same & ~torch.eye(len(group), dtype=torch.bool), alike & ~same


def value_numbers(values: list[object]) -> Int[Tensor, " B"]:
    """A number for each value, equal for equal ones; -1 for None."""
    there = torch.tensor([value is not None for value in values], dtype=torch.bool)
    return equal_numbers(repr(value) for value in values).where(there, -1)
