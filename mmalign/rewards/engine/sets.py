"""A set reward as a reward of rows: each row's share in the set's value.

A row that cannot be embedded leaves its set: its embedding is NaN, with a reason. Where none can be, the fault is the
reward's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import ScoreError
from mmalign.core.protocols import SetReward
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status
from mmalign.rewards.engine.contract import NOT_ABOUT_A_ROW, OF_A_ROW, bisect_calls, describe_error
from mmalign.rewards.engine.foreign_code import preserve_rng_state, preserve_working_directory
from mmalign.rewards.engine.traits import RewardTraits, data_check


@dataclass
class Embedded:
    """Rows of a set: NaN where one has no embedding, with the reason in `why` by its number.

    `places` are where the rows' prompts stand, "" where that is not known. `rows` is (B, 1) where none is embedded.
    """

    rows: Float[Tensor, "B D"]
    why: dict[int, str] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    @classmethod
    def failed(cls, rows: int, why: str) -> Embedded:
        """`rows` rows without an embedding, all for one reason."""
        return cls(torch.full((rows, 1), float("nan")), dict.fromkeys(range(rows), why))

    @classmethod
    def joined(cls, name: str, pieces: Sequence[Embedded]) -> Embedded:
        """One after another. ScoreError where reward `name` gave them different widths."""
        whole = [piece for piece in pieces if not piece.is_empty]
        widths = list(dict.fromkeys(piece.rows.shape[1] for piece in whole))
        if len(widths) > 1:
            raise ScoreError(
                f"reward '{name}' embedded rows as {widths[0]} numbers and others as {widths[1]}; a set has one width."
            )
        like = whole[0].rows if whole else pieces[0].rows
        rows = [
            like.new_full((len(piece.rows), like.shape[1]), float("nan")) if piece.is_empty else piece.rows
            for piece in pieces
        ]
        why: dict[int, str] = {}
        for start, piece in zip(_starts(pieces), pieces, strict=True):
            why |= {start + row: text for row, text in piece.why.items()}
        return cls(torch.cat(rows), why, [place for piece in pieces for place in piece.places])

    def __getitem__(self, rows: slice) -> Embedded:
        """Consecutive rows with their reasons and places."""
        numbers = range(len(self.rows))[rows]
        why = {place: self.why[row] for place, row in enumerate(numbers) if row in self.why}
        return Embedded(self.rows[rows], why, self.places[rows])

    @property
    def is_empty(self) -> bool:
        """Has no row an embedding?"""
        return len(self.why) == len(self.rows)

    @property
    def finite(self) -> Bool[Tensor, " B"]:
        """Which rows have an embedding without NaN and infinity."""
        return self.rows.detach().isfinite().all(1)

    def reasons(self) -> list[str]:
        """Why each row cannot be in a set; "" for one that can."""
        return [
            "" if finite else self.why.get(row, "the embedding is not finite")
            for row, finite in enumerate(self.finite.tolist())
        ]

    def to(self, device: torch.device | str) -> Embedded:
        """Float32 rows on `device`."""
        return Embedded(self.rows.float().to(device), self.why, self.places)

    def required(self, name: str) -> Float[Tensor, "B D"]:
        """The rows. ScoreError where reward `name` could embed none of them."""
        if len(self.rows) and self.is_empty:
            raise ScoreError(f"reward '{name}' could embed none of {len(self.rows)} rows; {self.first()}.")
        return self.rows

    def first(self) -> str:
        """The first row without an embedding, and why."""
        row = min(self.why)
        return f"the first, {self.places[row] or f'row {row}'}: {self.why[row]}"


def embed_rows(name: str, reward: SetReward, rollout: Rollout, step: int = 0) -> Embedded:
    """The embeddings of set reward `name`, `step` rows at a time (0: all); a row on which it raises is NaN.

    Raises:
        ScoreError: what it gives is no (B, D) of numbers.
        MmalignError: a fault of its set-up.
    """
    places = [prompt.place for prompt in rollout.prompts]

    def call(part: Rollout) -> Embedded:
        return Embedded(_checked(name, reward.embed(part), len(part)))

    step = step or len(rollout) or 1
    parts = [rollout[start : start + step] for start in range(0, len(rollout), step)] or [rollout]
    embedded = Embedded.joined(name, [piece for part in parts for piece in bisect_calls(call, part, Embedded.failed)])
    embedded.places = places
    return embedded


def _checked(name: str, value: object, rows: int) -> Tensor:
    if not isinstance(value, Tensor) or value.dim() != 2 or len(value) != rows or not value.is_floating_point():
        what = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ScoreError(f"reward '{name}' embedded {rows} rows as {what}; a tensor ({rows}, D) of floats is needed.")
    return value


@contextmanager
def scoring_a_set(name: str, rows: int) -> Iterator[None]:
    """Around what set reward `name` makes of `rows` embeddings: random state and working directory are kept.

    Raises:
        ScoreError: what it raised, with its name and where.
    """
    try:
        with preserve_rng_state(), preserve_working_directory():
            yield
    except NOT_ABOUT_A_ROW:
        raise
    except OF_A_ROW as error:
        raise ScoreError(f"reward '{name}' cannot score a set of {rows} rows: {describe_error(error)}.") from error


def _starts(pieces: Sequence[Embedded]) -> list[int]:
    """The number of each piece's first row."""
    ends = torch.tensor([0, *(len(piece.rows) for piece in pieces)]).cumsum(0).tolist()
    return ends[:-1]


@dataclass
class Credit:
    """Embeds every row once and scores it by its closed-form credit; `parts["set"]` is its set's value.

    Args:
        reward: what judges sets, with its options; `embed`, `score` and `credit` are its own.
        over: the set: the whole batch, or each prompt's group on its own (Vendi per prompt is diversity per prompt).
        rows: rows embedded at a time (0: all).
        name: how messages call it; the class's own by default.

    Rows whose embedding is not finite are errors and leave the set. A set of fewer than 3 rows has no credit:
    NOT_APPLICABLE. Where gradient flows, the *mean* over a set's rows has the gradient of the set's value.
    """

    reward: SetReward
    over: Literal["batch", "group"] = "batch"
    rows: int = 0
    name: str = ""
    range = (float("-inf"), float("inf"))
    batch_dependent = True  # a set cut in two is two other sets

    @property
    def modalities(self) -> frozenset[Modality]:
        """Outputs that the set reward judges."""
        return self.reward.modalities

    @property
    def differentiable(self) -> bool:
        """Whether gradient reaches the outputs through the set's value."""
        return self.reward.differentiable

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta` that the set reward cannot do without."""
        return RewardTraits.of(self.reward).needs

    @property
    def check_data(self) -> Callable[[Prompt], None]:
        """Raises ValueError where the set reward can never judge a row with these columns."""
        return data_check(self.reward)

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        embedded = self.embedded(rollout)
        if self.over == "batch":
            sets = torch.zeros(len(rollout), dtype=torch.long)
        else:
            sets = torch.unique(rollout.group, return_inverse=True)[1]
        return self._scored(embedded, sets.to(embedded.rows.device))

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """Embeddings of B rows, `rows` at a time. ScoreError where none can be embedded."""
        return self.embedded(rollout).required(self.called)

    def score(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
        """The value of the set of N embedded rows; higher is better."""
        return self.reward.score(embedding)

    def credit(self, embedding: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """Each row's contribution to `score`, mean 0; higher is better."""
        return self.reward.credit(embedding)

    def embedded(self, rollout: Rollout) -> Embedded:
        """Embed B rows; those that have no embedding are NaN, with the reason of each."""
        return embed_rows(self.called, self.reward, rollout, self.rows)

    @property
    def called(self) -> str:
        """How messages call it."""
        return self.name or type(self.reward).__name__

    def _scored(self, embedded: Embedded, sets: Int[Tensor, " B"]) -> Scores:
        embedding, finite, info = embedded.rows, embedded.finite, embedded.reasons()
        value = embedding.new_full((len(embedding),), float("nan"), dtype=torch.float32)
        whole, status = value.clone(), torch.full_like(value, int(Status.NOT_APPLICABLE), dtype=torch.int8)
        for number in sets.unique().tolist():
            index = ((sets == number) & finite).nonzero().flatten()
            if len(index) < 3:
                for row in index.tolist():
                    info[row] = f"a set of {len(index)} rows has no credit; it takes 3"
                continue
            members = embedding[index]
            total = self.reward.score(members).float()
            # The value carries the set's gradient on every row: the mean over rows then has it once.
            share = self.reward.credit(members.detach()).float() + (total - total.detach())
            value, whole = value.index_put((index,), share), whole.index_fill(0, index, float(total.detach()))
            status[index] = int(Status.OK)
        status[~finite] = int(Status.ERROR)
        return Scores(value, status, parts={"set": whole}, info=info if any(info) else None)


def scores_only_sets(reward: object) -> bool:
    """Does it embed rows and score sets of them, and not score rows?"""
    return isinstance(reward, SetReward) and not isinstance(reward, Credit)
