"""MetaRM: a reward model that keeps telling the outputs of a policy apart that has moved away from its comparisons.

Paper: "Secrets of RLHF in Large Language Models Part II: Reward Modeling" (Wang et al. 2024, arXiv 2401.06080, section
on meta-learning), and "MetaRM" (Dou et al. 2024, arXiv 2405.00438).

    J(θ) = mean over prompts of 2/k² Σ_{i<j} σ(|r_i - r_j|),   θ' = θ + η ∇J(θ),   θ ← θ - α ∇L(θ')

| symbol | here | meaning |
|---|---|---|
| r_1 … r_k | scores of the texts in the column `outputs` | what the policy says now, without a judgement |
| η | `step_size` | of the inner step |
| L | Bradley-Terry of the comparisons, with all its options | `bradley_terry` |

The gradient of L is taken at θ' and moves θ: the first-order form, as in the papers' algorithm. Training ends where θ'
minimises L, not θ. θ' is set once for a
batch, so any cut of its rows has the same gradient; several processes take the mean of ∇J over all of them.
Reconstruction: the papers' bodies were out of reach for the constants; J is their public form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float

from mmalign.core.errors import DataError
from mmalign.core.experience import Comparisons
from mmalign.core.options import AtLeastOne, Positive
from mmalign.core.protocols import Gather, Mean, Metrics, ScorePolicy, one_process
from mmalign.core.tensor import Module, Tensor
from mmalign.core.types import Prompt
from mmalign.objectives.bradley_terry import BradleyTerry


@dataclass
class MetaRM(BradleyTerry):
    """Bradley-Terry at weights that tell the policy's present outputs apart.

    The rows have a column of outputs that nobody judged, two or more texts that the policy draws now; rows without it
    count in Bradley-Terry alone. Not with `adapter.gradient_checkpointing`: what is recomputed would be at θ.

    Args:
        outputs: the column with a list of texts.
        step_size: η, of the inner step, in the weights' own units.
        score_rows: outputs per forward pass of the inner step.
    """

    outputs: str = "outputs"
    step_size: Positive = 1e-3
    score_rows: AtLeastOne = 64

    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)
    _shift: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def collect(self, policy: ScorePolicy, batch: Sequence[Any], rng: torch.Generator) -> Comparisons:
        """The comparisons; and, for the losses that follow, how far θ' lies from θ."""
        comparisons = super().collect(policy, batch, rng)
        drawn = [(row.prompt, self._drawn(row.prompt)) for row in batch]
        self._shift = self._inner_step(policy, [(prompt, texts) for prompt, texts in drawn if texts])
        return comparisons

    def loss(self, policy: ScorePolicy, chunk: Comparisons, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """Bradley-Terry's loss of these comparisons at θ', with the gradient that moves θ; and its metrics."""
        with _at(policy.module, self._shift):
            return super().loss(policy, chunk, rng)

    def tie_rows(
        self, policy: ScorePolicy, experience: Comparisons, rows: int, gather: Gather, rank: int
    ) -> Comparisons:
        """Bradley-Terry's, at θ' as the loss."""
        with _at(policy.module, self._shift):
            return super().tie_rows(policy, experience, rows, gather, rank)

    def check_data(self, prompt: Prompt) -> None:
        """Raise DataError where a row's columns cannot be read; asked of every row before anything is loaded."""
        super().check_data(prompt)
        self._drawn(prompt)

    def _drawn(self, prompt: Prompt) -> list[str]:
        """The outputs of a row, [] where it has none."""
        value = prompt.meta.get(self.outputs)
        if value in (None, "", []):
            return []
        if not isinstance(value, list | tuple) or len(value) < 2 or not all(isinstance(text, str) for text in value):
            raise DataError(
                f"{prompt.place or repr(prompt.text[:40])}: '{self.outputs}' is {str(value)[:60]!r}; expected a list "
                "of two texts at least, or nothing."
            )
        return list(value)

    def _inner_step(self, policy: ScorePolicy, rows: Sequence[tuple[Prompt, list[str]]]) -> dict[str, Tensor]:
        """η ∇J by name of the weight; every process calls it, whatever rows it has."""
        trained = {name: weight for name, weight in policy.module.named_parameters() if weight.requires_grad}
        total = {name: torch.zeros_like(weight) for name, weight in trained.items()}
        for part in _parts(rows, self.score_rows):
            prompts = [prompt for prompt, texts in part for _ in texts]
            with torch.enable_grad():
                scores = policy.score(policy.observe(prompts, [text for _, texts in part for text in texts]))
                each = scores.split([len(texts) for _, texts in part])
                gradient = torch.autograd.grad(
                    torch.stack([difference(own) for own in each]).sum(), list(trained.values()), allow_unused=True
                )
            for name, own in zip(trained, gradient, strict=True):
                total[name] += 0.0 if own is None else own
        count = float(self.over_ranks(torch.tensor(float(len(rows)))))
        scale = self.step_size / max(count, 1.0)
        return {name: self.over_ranks(own) * scale for name, own in total.items()} if count else {}


def difference(scores: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """2/k² Σ_{i<j} σ(|r_i - r_j|) of the scores of one prompt's k outputs: how well they are told apart."""
    apart = (scores[:, None] - scores).abs().sigmoid().triu(1)
    own = torch.ones_like(apart).triu(1)
    return 2 * (apart * own).sum() / len(scores) ** 2


def _parts(rows: Sequence[tuple[Prompt, list[str]]], size: int) -> Iterator[list[tuple[Prompt, list[str]]]]:
    """Rows in their order, cut where `size` texts are full; a row's texts stay together."""
    part: list[tuple[Prompt, list[str]]] = []
    for row in rows:
        if part and sum(len(texts) for _, texts in part) + len(row[1]) > size:
            yield part
            part = []
        part.append(row)
    if part:
        yield part


@contextmanager
def _at(module: Module, shift: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside it the module computes with weights + shift; gradients are with regard to the weights themselves."""
    places = []
    try:
        for name, by in shift.items():
            path, _, last = name.rpartition(".")
            owner = module.get_submodule(path)
            weight = owner._parameters[last]
            places.append((owner, last, weight))
            assert weight is not None
            owner._parameters[last] = weight + by  # type: ignore[assignment]  # a tensor that leads back to the weight
        yield
    finally:
        for owner, last, weight in places:
            owner._parameters[last] = weight


__all__ = ["MetaRM", "difference"]
