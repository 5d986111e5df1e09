"""Features in which what belongs together is near and everything else is far.

Papers: InfoNCE, van den Oord et al. 2018 (1807.03748), eq. 4; several positives, Khosla et al. 2020 (2004.11362),
eq. 2; the temperature's part, Wang & Liu 2020 (2012.09740); triplets of people's similarity queries, SIRL, Bobu et al.
2023 (2301.00810); sigmoid against softmax weights over a list, 2510.14824; a gate per pair, Hydra (a reconstruction).
The formulas are in `_contrast.py`.

| symbol | here | meaning |
|---|---|---|
| a, p, n | `sides` | of a row: the anchor, its positive, its hard negatives; each is an output that `features` reads |
| s | cosine of features, or a score | `of` |
| τ | `temperature` | of `softmax` and `sigmoid` |
| m | `margin` | of `triplet` |
| g | `policy.gates` | what each dimension counts in a row, where `gated` |

With `of: features` the positives and hard negatives of all rows of a minibatch, over all processes, are candidates of
each (`in_batch`): the rows are tied, and the gradient is that of the whole minibatch however it is split (`_tied.py`).
`trainer.minibatches` are minibatches, so it does change who meets whom, as `prompts_per_step` does. With
`of: scores` a row's candidates are its own.

Left out: a memory of earlier batches' features (MoCo), directions of the yes and the no apart: a reward model has one
head, whose score is their difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float

from mmalign.core.capabilities import offers
from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.experience import Contrasts
from mmalign.core.options import Count, NotNegative, Positive, must, refuse, requires
from mmalign.core.protocols import FeaturePolicy, GatedPolicy, Gather, Metrics, ScorePolicy
from mmalign.core.setting import Setting
from mmalign.core.tensor import Tensor
from mmalign.core.types import Preference, Prompt
from mmalign.objectives import _contrast
from mmalign.objectives._rollouts import batch_outputs, masked_means
from mmalign.objectives._sides import by_side, features_missing
from mmalign.objectives._tied import Facts, need_tied, tied
from mmalign.objectives._weights import RowsAlike, weighted_sum
from mmalign.objectives._wordings import key_of, texts_of


@dataclass
class Contrast(RowsAlike):
    """Train features, or scores, by what belongs together.

    Args:
        positives: what a row's anchor belongs with. `chosen`: of preferences, the prompt's text (or picture, or sound)
            is the anchor, `chosen` its positive and `rejected` a hard negative. `column`: of prompts, a text of
            `positive`. `partners`: of prompts, the rows of the minibatch with the same value of `alike`.
        positive: the column of texts, of which one is drawn each step; `annotate --with retrieved` writes one.
        negatives: the column of texts that are hard negatives; "" is none.
        hard: how many of these a row takes each step, drawn anew; of preferences at most 1.
        alike: a column; rows with the same value are positives of each other, and never negatives.
        of: `features` (cosines), or a reward model's `scores` of a row's own candidates under its own prompt.
        loss_type: `softmax` (InfoNCE), `sigmoid` (each candidate for itself), or `triplet` (squared distances).
        temperature: τ.
        margin: m of triplets, in squared distance.
        in_batch: whether other rows' positives and hard negatives are candidates.
        gated: compare in the dimensions that the policy opens for a row's pair.
        instruction: the prompt that items are read under, e.g. "Represent this text:".
    """

    positives: Literal["chosen", "column", "partners"] = "chosen"
    positive: str = "positive"
    negatives: str = ""
    hard: Count = 1
    alike: str = ""
    of: Literal["features", "scores"] = "features"
    loss_type: Literal["softmax", "sigmoid", "triplet"] = "softmax"
    temperature: Positive = 0.05
    margin: NotNegative = 1.0
    in_batch: bool = True
    gated: bool = False
    instruction: str = ""

    needs: ClassVar[type] = FeaturePolicy

    def __post_init__(self) -> None:
        own = self.positives == "chosen" or bool(self.negatives)
        scores, triplets = self.of == "scores", self.loss_type == "triplet"
        refuse(
            must(self.temperature > 0, f"temperature: {self.temperature} must be positive."),
            must(self.margin >= 0, f"margin: {self.margin} must be at least 0."),
            requires(
                self.positives == "partners", bool(self.alike), "alike: positives: partners share a column; name it."
            ),
            requires(
                scores or not self.in_batch,
                own and self.hard > 0,
                "negatives: without in_batch, or of scores, a row's candidates are its own; name their column.",
            ),
            requires(scores, not triplets, "loss_type: triplet is of distances between features; set of: features."),
            requires(scores, self.positives != "partners", "positives: partners have features, and no scores."),
            requires(scores, not self.gated, "gated: a gate is of features; set of: features."),
            requires(self.gated, not triplets, "gated: a gate is of cosines; set loss_type: softmax."),
            requires(scores, not self.alike, "alike: of: scores compares a row's own candidates only; remove it."),
        )

    @property
    def reads(self) -> frozenset[str]:
        """The kind of rows that batches hold."""
        return frozenset({"preferences"} if self.positives == "chosen" else {"prompts"})

    def check(self, setting: Setting) -> Iterator[str]:
        """What the policy or the adapter cannot do of what is asked."""
        if self.of == "features":
            yield from features_missing(setting, "objective.of: features")
        elif setting.policy is not None and not offers(setting.policy, ScorePolicy):
            yield "objective.of: scores are of a reward model; set of: features, or policy: {name: scorer}."
        if self.gated and setting.adapter is not None and not hasattr(setting.adapter, "gates"):
            yield "objective.gated: this adapter has no gates; use adapter embedder with `gate`, or set it to false."

    def check_data(self, prompt: Prompt) -> None:
        """Raise DataError where a row's columns cannot be read; asked of every row before anything is loaded."""
        place = prompt.place or f"'{prompt.text[:40]}'"
        if self.positives == "column" and not texts_of(prompt, self.positive, place):
            raise DataError(f"{place}: '{self.positive}' holds no text; the row has no positive.")
        if self.negatives:
            texts_of(prompt, self.negatives, place)
        if self.positives == "partners" and prompt.meta.get(self.alike) is None:
            raise DataError(f"{place}: has no '{self.alike}', which its partners share.")

    def collect(self, policy: Any, batch: Sequence[Any], rng: torch.Generator) -> Contrasts:
        """Return the items of every row as rollouts; nothing is sampled but which of several texts counts."""
        kind = Preference if self.positives == "chosen" else Prompt
        if others := [type(row).__name__ for row in batch if not isinstance(row, kind)]:
            raise DataError(f"contrast with positives: {self.positives} reads {kind.__name__}s, got {others[0]}.")
        prompts = [row.prompt if isinstance(row, Preference) else row for row in batch]
        chosen: dict[str, list[Any]] = {} if self.of == "scores" else {"anchor": [_own(policy, p) for p in prompts]}
        if self.positives != "partners":
            chosen["positive"] = [self._positive(row, rng) for row in batch]
        wrong = [self._wrong(row, rng) for row in batch]
        most = self.hard if self.negatives else min(self.hard, int(self.positives == "chosen"))  # in every process
        there = torch.tensor([[at < len(texts) for at in range(most)] for texts in wrong], dtype=torch.bool)
        stand_in = next(iter(chosen.values()))
        for at in range(most):  # a row with fewer has its own item there, which counts for nothing
            chosen[f"negative {at}"] = [
                texts[at] if at < len(texts) else own for texts, own in zip(wrong, stand_in, strict=True)
            ]
        under = prompts if self.of == "scores" else [Prompt(self.instruction)] * len(batch)
        sides = {name: policy.observe(under, batch_outputs(items, name)) for name, items in chosen.items()}
        device = next(iter(sides.values())).group.device
        return Contrasts(
            prompts=prompts,
            sides=sides,
            there=there.view(len(batch), most).to(device),
            key=torch.tensor([self._key(*pair) for pair in zip(prompts, stand_in, strict=True)], device=device),
            mask=torch.ones(len(batch), dtype=torch.bool, device=device),
        )

    def _positive(self, row: Any, rng: torch.Generator) -> Any:
        if isinstance(row, Preference):
            return row.chosen
        texts = texts_of(row, self.positive, row.place or "a row of the batch")
        if not texts:
            raise DataError(f"{row.place or 'a row of the batch'}: '{self.positive}' holds no text.")
        return texts[int(torch.randint(len(texts), (1,), generator=rng))]

    def _wrong(self, row: Any, rng: torch.Generator) -> list[Any]:
        prompt = row.prompt if isinstance(row, Preference) else row
        known = texts_of(prompt, self.negatives, prompt.place or "a row of the batch") if self.negatives else []
        if isinstance(row, Preference) and not self.negatives:
            known = [row.rejected]
        order = torch.randperm(len(known), generator=rng).tolist()
        return [known[i] for i in order[: self.hard]]

    def _key(self, prompt: Prompt, anchor: Any) -> int:
        """Equal for rows that are alike: by their column, else where their anchor is the same."""
        return key_of(prompt.meta.get(self.alike) if self.alike else anchor)

    def tie_rows(self, policy: Any, experience: Contrasts, rows: int, gather: Gather, rank: int) -> Contrasts:
        """Return the weighted rows with what each needs of all the others, see `_tied.py`; of scores as they are."""
        if self.of == "scores":
            return experience
        facts: Facts = {"there": experience.there, "key": experience.key}
        held = tied(lambda part: self._vectors(policy, part), self._losses, experience, facts, rows, gather, rank)
        return replace(experience, tied=held)

    def _vectors(self, policy: Any, part: Contrasts) -> Float[Tensor, "B K D"]:
        """The features of every side, and behind them the gate of each row where there are gates."""
        features = by_side(policy.features, list(part.sides.values()))
        if not self.gated:
            return torch.stack(features, 1)
        if not isinstance(policy, GatedPolicy):
            raise CapabilityError("gated: this policy has no gates.")
        return torch.stack([*features, policy.gates(part.prompts)], 1)

    def _losses(self, features: Float[Tensor, "N K D"], facts: Facts) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of every row from the features of all."""
        gate = features[:, -1] if self.gated else None
        features = features[:, :-1] if self.gated else features
        anchor, counts, key = features[:, 0], facts["weight"] != 0, facts["key"]
        paired = self.positives != "partners"
        positive, negatives = features[:, 1 if paired else 0], features[:, 2 if paired else 1 :]
        rows = torch.arange(len(key), device=key.device)
        itself, alike = rows[:, None] == rows[None], key[:, None] == key[None]
        right = (alike & counts[None] & self.in_batch) | itself if paired else alike & counts[None] & ~itself
        between = right | (counts[None] & ~alike & self.in_batch)
        hard = facts["there"] & counts[:, None]
        if self.loss_type == "triplet":
            return self._triplets(anchor, positive, negatives, (right, between), hard)
        same_row = rows.repeat_interleave(hard.shape[1])[None] == rows[:, None]
        reach = hard.flatten()[None] & (same_row | (~alike.repeat_interleave(hard.shape[1], 1) & self.in_batch))
        similarity = _contrast.cosine(anchor, torch.cat([positive, negatives.flatten(0, 1)]), gate)
        candidate = torch.cat([between, reach], 1)
        positives = torch.cat([right, torch.zeros_like(reach)], 1)
        value = _contrast.contrastive(similarity, positives, candidate, self.temperature, self.loss_type)
        return value, self._seen(similarity.detach(), positives, candidate)

    def _triplets(
        self, anchor: Tensor, positive: Tensor, negatives: Tensor, among: tuple[Tensor, Tensor], hard: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        right, between = among
        if self.positives == "partners":  # the first partner of each row; none: nothing is said
            positive = anchor[right.float().argmax(1)]
        others = positive[None].expand(len(anchor), -1, -1)
        far = torch.cat([negatives, others], 1) if self.in_batch else negatives
        there = torch.cat([hard, between & ~right], 1) if self.in_batch else hard
        there = there & right.any(1)[:, None]
        value = _contrast.triplet(anchor, positive, far, there, self.margin)
        near = (anchor - positive).square().sum(1)
        nearest = (anchor[:, None] - far).square().sum(2).masked_fill(~there, float("inf")).amin(1)
        return value, {"contrast/found": (near < nearest).to(value)}

    def _seen(self, similarity: Tensor, positive: Tensor, candidate: Tensor) -> dict[str, Tensor]:
        wrong = candidate & ~positive
        share = similarity.where(positive, 0.0).sum(1) / positive.sum(1).clamp(min=1)
        return {
            "contrast/found": _contrast.ranks_first(similarity, positive, candidate),
            "contrast/hardest": _contrast.hardest_share(similarity, wrong, self.temperature),
            "contrast/positive": share,
            "contrast/negative": similarity.where(wrong, 0.0).sum(1) / wrong.sum(1).clamp(min=1),
        }

    def loss(self, policy: Any, chunk: Contrasts, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """Σ weight × loss of these rows, with the gradient of the whole minibatch's loss, and its metrics."""
        if self.of == "scores":
            return self._loss_of_scores(policy, chunk)
        whole = need_tied(chunk.tied)
        value = weighted_sum(chunk, whole.loss) + whole.surrogate(self._vectors(policy, chunk))
        return value, masked_means(chunk.mask, {"contrast/loss": whole.loss, **whole.seen})

    def _loss_of_scores(self, policy: ScorePolicy, chunk: Contrasts) -> tuple[Tensor, Metrics]:
        scores = torch.stack(by_side(policy.score, list(chunk.sides.values())), 1)
        candidate = torch.cat([torch.ones_like(chunk.mask)[:, None], chunk.there], 1)
        right = torch.zeros_like(candidate)
        right[:, 0] = True
        weighting: _contrast.Weighting = "sigmoid" if self.loss_type == "sigmoid" else "softmax"
        value = _contrast.contrastive(scores, right, candidate, self.temperature, weighting)
        seen = self._seen(scores.detach(), right, candidate)
        return weighted_sum(chunk, value), masked_means(chunk.mask, {"contrast/loss": value, **seen})


def _own(policy: Any, prompt: Prompt) -> Any:
    """The anchor of a row: its text, or its picture or sound where the policy reads such."""
    if policy.modality == "text":
        return prompt.text
    if (media := prompt.media.get(policy.modality)) is None:
        raise DataError(f"{prompt.place or 'a row of the batch'}: has no {policy.modality}, which is its anchor.")
    return media


__all__ = ["Contrast"]
