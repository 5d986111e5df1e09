"""The names of the numbers that a run logs, with a sentence each, and averages that no split changes.

A metric is an entry of a plain dict under a key of `METRICS`; `<…>` in a key stands for a name that the run file gives
(or a part of a reward, a phase of a step). They go to `metrics.jsonl` and the trackers; what
is measured beside a step stands in lines of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from mmalign.core.tensor import Tensor

Sums = Mapping[str, tuple[float, float]]  # total and count by name

METRICS: dict[str, str] = {
    # the optimizer
    "lr": "The learning rate of the step's last update.",
    "grad/norm": "The norm of the gradient before clipping, mean over the step's updates.",
    "update/skipped": "The share of the step's updates that moved nothing: no valid row, or no finite gradient.",
    # GRPO
    "ratio/mean": "The importance ratio π_θ / π_old (in the form that the surrogate reads), mean over trained steps.",
    "ratio/clipped": "The share of trained steps whose ratio is clipped, so that they give no gradient.",
    "kl/old": "The k1 estimate of KL(π_old ‖ π_θ), nats of the joint per trained step: how far the updates moved.",
    "kl/reference": "The KL from the reference by the objective's own estimator, nats of the joint per trained step.",
    "kl/velocity": "‖v_θ - v_ref‖² in the place of the KL: summed over the latent elements, per trained step.",
    "policy/entropy": "The entropy of the token distribution, nats, mean over trained steps.",
    "advantage/size": "The mean absolute advantage over trained steps.",
    "rows/invalid": "The share of sampled rows that no reward could score.",
    "rows/dropped": "The share of sampled rows that have a score and do not train, as groups of equal rewards.",
    "rows/truncated": "The share of sampled outputs that were cut off at the limit of steps.",
    "rows/skipped": "The share of prompts without an output to imitate.",
    "groups/live": "The share of rows in groups whose rewards differ, where the objective keeps some groups.",
    "distill/distance": "KL from the teacher per token in nats, or half the squared distance of predictions per draw.",
    "distill/pull": "What that distance is multiplied with: β / w of AlignDistil, or β times the density's weight.",
    "drift/old": "The mean squared distance of a prediction from that of the policy that sampled, per element.",
    "drift/reference": "The mean squared distance of a prediction from the reference's, per element.",
    # preferences
    "margin/mean": "Chosen minus rejected: log-ratios in nats of the joint, or scores of a reward model.",
    "margin/accuracy": "The share of pairs whose margin has the sign that the label says; half where it has none.",
    "margin/chosen": "log π_θ - log π_ref of the chosen output, nats of the joint (log π_θ without a reference).",
    "margin/rejected": "log π_θ - log π_ref of the rejected output, nats of the joint (log π_θ without a reference).",
    "fit/chosen": "log π_θ of the chosen output per event dimension, up to a constant.",
    "fit/rejected": "log π_θ of the rejected output per event dimension, up to a constant.",
    "fit/reference_chosen": "log π_ref of the chosen output per event dimension, up to a constant.",
    "fit/reference_rejected": "log π_ref of the rejected output per event dimension, up to a constant.",
    "pairs/gap": "The reward of the chosen output (or set) minus that of the rejected one.",
    "pairs/skipped": "The share of pairs that say nothing: ties, and sides without a score.",
    "score/chosen": "The reward model's score of the chosen output.",
    "score/rejected": "The reward model's score of the rejected output.",
    "score/loss": "The negative log-likelihood of the recorded comparison, with the centring term.",
    # features
    "contrast/loss": "The contrastive loss, mean over rows.",
    "contrast/found": "The share of rows whose positive is nearer than every other candidate.",
    "contrast/hardest": "The share of all negatives' weight that is on the hardest, max softmax(s / temperature).",
    "contrast/positive": "The similarity to positives (a cosine, or a score), mean over rows.",
    "contrast/negative": "The similarity to negatives (a cosine, or a score), mean over rows.",
    "contrast/twins": "The contrastive loss of a reward model's features with themselves under other dropout.",
    "contrast/goals": "The contrastive loss of a reward model's states with those of good and bad ends.",
    # imitation
    "fit/target": "log π_θ of the imitated output per event dimension, up to a constant.",
    "fit/per_token": "The same per token of the output.",
    "fit/prior": "log π_θ per event dimension of the start's own outputs, which prior preservation holds.",
    # reward gradients
    "gradient/<reward>": "The norm of a reward's gradient with respect to the output, mean over scored rows.",
    "gradient/guidance": "The norm of the guidance direction, mean over rows.",
    "invalid/<reward>": "The share of rows that a reward could not score.",
    "cosine/<reward>~<reward>": "The cosine between the output gradients of two rewards, mean over rows.",
    "weights/distance": "The squared L2 distance of the trained weights from the initial ones.",
    # rewards
    "reward/<reward>": "A reward's mean value over the scored rows of the step.",
    "reward/<reward>/std": "The standard deviation (population) of its values.",
    "reward/<reward>/min": "Its least value.",
    "reward/<reward>/max": "Its greatest value.",
    "reward/<reward>/ok": "The share of rows with status ok.",
    "reward/<reward>/not_applicable": "The share of rows that the reward does not apply to.",
    "reward/<reward>/parse_fail": "The share of rows that could not be read, which score the floor.",
    "reward/<reward>/error": "The share of rows that the reward failed on.",
    "reward/<reward>/timeout": "The share of rows that the reward did not answer for in time.",
    "reward/<reward>/seconds": "The median seconds of a call of the reward.",
    "reward/<reward>/sets": "How many sets of embedded rows the objective had scored.",
    "reward/<reward>/sets_seconds": "The seconds of scoring all of them.",
    "reward/<reward>/seconds_p95": "The 95th percentile of the seconds of a call.",
    "reward/<reward>/cached": "The share of rows that came from the cache.",
    "reward/<reward>/texts_cut": "How many texts the reward's model read only in part.",
    "reward/<reward>/requests": "How many requests a server was sent for the reward.",
    "reward/<reward>/retries": "How many of them were sent once more.",
    "reward/<reward>/prompt_tokens": "The tokens of the questions, where the server counts them.",
    "reward/<reward>/completion_tokens": "The tokens of its answers.",
    "reward/<reward>/flat_groups": "The share of groups whose scored rows are all equal.",
    "reward/<reward>/parts/<part>": "The mean of a named part of the reward over the rows that have it.",
    "correlation/<reward>/<reward>": "Pearson's correlation of two rewards over the rows of the step.",
    "multiplier/<reward>": "The Lagrange multiplier of a reward that is held at a threshold.",
    "threshold/<reward>": "The threshold at which a reward is held now, while thresholds are searched for.",
    # the machine, and held-out prompts
    "time/<phase>": "Seconds of a phase of the step (calibrate, collect, check, update), of the slowest process.",
    "time/evaluate": "Seconds of the evaluation after the step, in the main process; no phase contains them.",
    "time/preview": "Seconds of the samples that were made after the step, in the main process.",
    "time/save": "Seconds of the checkpoint that was written after the step, in the main process.",
    "time/hooks": "Seconds of hooks of one's own after the step, in the main process.",
    "memory/peak_gib": "The most GPU memory allocated so far, GiB, of the fullest process.",
    "eval/loss": "The loss of imitation on held-out rows, with the same noise each time: before, along the way, after.",
    "eval/<measure>": "The mean of a measure on held-out prompts.",
}


@dataclass(frozen=True)
class Average:
    """A sum and the number of entries in it, both 0-dimensional: parts of a step add up to the average of the whole.

    `float` gives the average. Means of means would weigh a short part as much as a long one.
    """

    total: Tensor
    count: Tensor

    @classmethod
    def of(cls, values: Tensor, mask: Tensor) -> Average:
        """Of the entries of `values` where `mask` (of the same shape) is true, without gradient."""
        return cls(values.detach().double()[mask].sum(), mask.sum())

    def __float__(self) -> float:
        return float(self.total) / float(self.count)


def meaning(name: str) -> str | None:
    """Return the sentence of `METRICS` on a logged name; None if the table does not know it."""
    if name in METRICS:
        return METRICS[name]
    return next((text for pattern, text in _patterns() if pattern.fullmatch(name)), None)


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """The keys with names in them, those of the longest fixed text first."""
    keys = sorted((key for key in METRICS if "<" in key), key=lambda key: -len(re.sub("<[^>]*>", "", key)))
    return [
        (re.compile(re.sub("<[^>]*>", "[^/~]+", key).replace("/parts/[^/~]+", "/parts/.+")), METRICS[key])
        for key in keys
    ]


class Meter:
    """Weighted means by name; reading them is the only device synchronisation of a step's metrics.

    Sums and counts are added up, and divided once at the end: the parts that a step was split into (`micro_batch_size`,
    `steps_per_pass`), and the processes that share it, do not change the average of the whole.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, values: Mapping[str, Average | Tensor | float], share: float = 1.0) -> None:
        """Add averages by their sums and counts, and plain numbers as the mean of `share` entries (rows, say)."""
        for name, value in values.items():
            if isinstance(value, Average):
                total, count = value.total.double(), value.count.double()
            else:
                total = torch.as_tensor(value).detach().double() * share
                count = torch.full_like(total, share)
            known = self._sums.get(name)
            self._sums[name] = (total, count) if known is None else (known[0] + total, known[1] + count)

    def take_sums(self) -> dict[str, tuple[float, float]]:
        """Total and count by name, then forget them."""
        sums = {name: (float(total), float(count)) for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return sums

    def take(self) -> dict[str, float]:
        """Return the means so far, then forget them."""
        return merged([self.take_sums()])


def merged(parts: Iterable[Sums]) -> dict[str, float]:
    """Return the means over several processes' entries, each entry counting alike; what none has any of is left out."""
    totals: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            known = totals.get(name, (0.0, 0.0))
            totals[name] = (known[0] + total, known[1] + count)
    return {name: total / count for name, (total, count) in totals.items() if count}


__all__ = ["METRICS", "Average", "Meter", "meaning", "merged"]
