"""Imitation: raise the log-prob of given outputs, or of the best of the policy's own (best-of-N, rejection sampling).

    loss = -log π_θ(output | prompt), per output, per token of it, or per token of the batch

Best-of-N as training: RAFT (Dong et al. 2023, arXiv 2304.06767), one round per step: sample `group_size` outputs, keep
the best by the reward, imitate it. A prompt without a scored output is skipped and counted.

For diffusion -log π_θ is the denoising error of the policy's density, w/2 ‖error‖²: ordinary fine-tuning, with the
levels and weights of the policy's options (`policies/_diffusion.py` has a table of published trainers). Its `unit`:

| unit | loss of one output |
|------|--------------------|
| sum  | w/2 ‖error‖², the joint's nats |
| mean | the same per latent element |
| mse  | w ‖error‖² per latent element: the mean squared error as trainers of diffusion models write it |

For codebooks `unit: mean` is the cross-entropy per step and codebook. A step of MusicGen's delay pattern counts whole,
also where some of its K codebooks have not begun: transformers' own loss is ours times steps / frames (503/500 for 10
seconds). With `adapter.guided_density: false` it is that of the prompt's branch alone, as MusicGen was trained.

Caption dropout (Ho & Salimans, 2207.12598): a row is learned without its prompt with the probability `caption_dropout`,
so that guidance still has an unconditional model to lead away from.

Prior preservation (DreamBooth, Ruiz et al., 2208.12242, eq. 2): loss(given) + λ loss(prior), where prior are outputs of
the model that the run started from for prompts of the same class. Each batch takes as many of these as it has rows,
pictures at the size of its own (`data.buckets`): scaled until they fill it and cropped at the middle, as diffusers'
DreamBooth scripts crop theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from mmalign.core.errors import DataError
from mmalign.core.experience import Demonstrations
from mmalign.core.objective import Prior
from mmalign.core.options import AtLeastOne, Positive, ShareBelowOne, must, refuse, requires
from mmalign.core.protocols import DensityPolicy, Mean, Metrics, one_process
from mmalign.core.rng import rand
from mmalign.core.setting import Setting
from mmalign.core.tensor import Tensor
from mmalign.core.types import Example, Preference, Prompt, Rollout
from mmalign.data.row_kinds import prompts_of
from mmalign.media.picture_fit import fitted, placement_of
from mmalign.objectives import _weights
from mmalign.objectives._rollouts import batch_outputs, event_size, masked_means, sample_groups, score_rollout
from mmalign.objectives._selection import best_and_worst
from mmalign.objectives._weights import Per, RowsAlike, log_prob_divisors, token_counts

Unit = Literal["sum", "mean", "mse"]


@dataclass
class SFT(RowsAlike):
    """Imitate the outputs of examples, the chosen ones of preferences, a column of prompts, or the policy's own best.

    Every valid output weighs the same; its length enters by `per`.

    Args:
        reward: ranks samples where `online` is best_of_n.
        online: "off" imitates data: `output` of examples, `chosen` of preferences, or the entry `target` of a
            prompt's meta.
        group_size: N of best-of-N.
        target: the column of a prompt file that holds the output.
        per: what -log p is divided by: nothing, the output's own tokens, or the batch's mean number of tokens.
        unit: nats of the joint ("sum"), or of one event dimension ("mean"); for diffusion also the mean squared error
            itself ("mse").
        draws: noise draws per output, for diffusion.
        caption_dropout: the share of rows that are learned without their prompt, drawn anew each step.
        prior_prompts: what the model that the run starts from is asked before training, to keep what it knows of the
            class ("a photo of a dog"); none is no prior preservation.
        prior_count: outputs that it makes, dealt out over these prompts in turn; they stay in the run directory.
        prior_weight: λ, what their loss weighs beside that of the given rows.
    """

    reward: Any = None
    online: Literal["off", "best_of_n"] = "off"
    group_size: AtLeastOne = 4
    target: str = "target"
    per: Per = "batch_token"
    unit: Unit = "sum"
    draws: AtLeastOne = 1
    caption_dropout: ShareBelowOne = 0.0
    prior_prompts: tuple[str, ...] = ()
    prior_count: AtLeastOne = 100
    prior_weight: Positive = 1.0

    prior_rows: Sequence[Example] = field(default=(), init=False, repr=False, compare=False)
    over_ranks: Mean = field(default_factory=lambda: one_process, init=False, repr=False, compare=False)

    needs: ClassVar[type] = DensityPolicy

    def __post_init__(self) -> None:
        refuse(
            requires(
                self.online != "off",
                self.reward is not None,
                "online: best_of_n ranks samples by a reward, and there is none; add one, or online: off.",
            ),
            must(self.group_size >= 1, f"group_size: {self.group_size} must be at least 1."),
            must(self.draws >= 1, f"draws: {self.draws} must be at least 1."),
            requires(
                bool(self.prior_prompts),
                self.online == "off",
                "prior_prompts: hold outputs of the start beside given ones, and online: best_of_n has none given.",
            ),
        )

    def check(self, setting: Setting) -> Iterator[str]:
        """What the policy or the adapter cannot do of what is asked."""
        if self.unit == "mse" and setting.policy is not None and not hasattr(setting.policy, "weighting"):
            yield "objective.unit: mse is of denoising errors, and this policy has exact log-probs; set unit: mean."
        if self.caption_dropout and setting.adapter is not None and not hasattr(setting.adapter, "unconditional"):
            yield "objective.caption_dropout: this adapter has no unconditional to learn; set it to 0."
        if self.prior_prompts and getattr(setting.adapter, "modality", None) == "text":
            yield "objective.prior_prompts: keep pictures or sounds, and this adapter makes texts; remove them."

    @property
    def prior(self) -> Prior | None:
        """What the start makes before training; None without prior preservation."""
        return Prior(self.prior_prompts, self.prior_count) if self.prior_prompts else None

    @property
    def reads(self) -> frozenset[str]:
        """The kinds of rows that batches may hold: "prompts", "preferences" or "examples", as the options say."""
        return frozenset({"preferences", "prompts", "examples"} if self.online == "off" else {"prompts"})

    def collect(self, policy: DensityPolicy, batch: Sequence[Any], rng: torch.Generator) -> Demonstrations:
        """Outputs to imitate, with their noise and what divides their log-probs."""
        prior = self._drawn_prior(batch, rng)
        rows = [*batch, *prior]
        rollout, mask = self._given(policy, rows) if self.online == "off" else self._best(policy, batch, rng)
        probe = policy.probe(rollout, rng, self.draws)
        divisor = log_prob_divisors(rollout, not probe, mask, self.per, self.over_ranks)
        is_prior = torch.arange(len(rollout), device=mask.device) >= len(batch) if prior else None
        if is_prior is not None:  # rows weigh alike and are twice as many: the means of both halves are added up
            divisor = divisor / torch.where(is_prior, 2 * self.prior_weight, 2.0).to(divisor)
        dropped = rand((len(rollout),), rng, mask.device) < self.caption_dropout if self.caption_dropout else None
        return Demonstrations(
            rollout=rollout, mask=mask, divisor=divisor, probe=probe, unconditional=dropped, prior=is_prior
        )

    def _drawn_prior(self, batch: Sequence[Any], rng: torch.Generator) -> list[Example]:
        if not self.prior_prompts:
            return []
        if not self.prior_rows:
            raise DataError(
                "prior_rows: prior preservation needs outputs of the start; set them before the first step."
            )
        given = self._output(0, batch[0])
        drawn = torch.randint(len(self.prior_rows), (len(batch),), generator=rng).tolist()
        return [_at_the_size_of(given, self.prior_rows[i]) for i in drawn]

    def _given(self, policy: DensityPolicy, batch: Sequence[Any]) -> tuple[Rollout, Tensor]:
        prompts = prompts_of(batch)
        outputs = [self._output(number, row) for number, row in enumerate(batch)]
        rollout = policy.observe(prompts, batch_outputs(outputs, "target"))
        return rollout, torch.ones(len(prompts), dtype=torch.bool, device=rollout.group.device)

    def _output(self, number: int, row: Prompt | Preference | Example) -> Any:
        if isinstance(row, Example):
            return row.output
        return row.chosen if isinstance(row, Preference) else self._target(number, row)

    def _target(self, number: int, prompt: Prompt) -> Any:
        if prompt.meta.get(self.target) is None:
            known = ", ".join(sorted(prompt.meta)) or "none"
            raise DataError(
                f"row {number} of the batch: the prompt has no '{self.target}' to imitate; its other columns: {known}. "
                "Name one in objective.target, or set online: best_of_n."
            )
        return prompt.meta[self.target]

    def _best(self, policy: DensityPolicy, batch: Sequence[Prompt], rng: torch.Generator) -> tuple[Rollout, Tensor]:
        rollout = sample_groups(policy, batch, self.group_size, rng)
        scores = score_rollout(self.reward, rollout)
        best, _, _ = best_and_worst(scores.value, scores.valid, self.group_size)
        return rollout[best], scores.valid[best]

    def held_out_loss(self, policy: DensityPolicy, rows: Sequence[Any], rng: torch.Generator) -> float:
        """Return the mean loss of rows that are not trained on, in this unit, with all captions and no prior.

        Equal `rng` states give equal noise.
        """
        plain = replace(self, caption_dropout=0.0, prior_prompts=())
        experience = plain.collect(policy, rows, rng)
        return float(plain.loss(policy, experience.with_weight(plain.weigh(experience.mask, one_process)), rng)[0])

    def counts(self, experience: Demonstrations) -> Metrics:
        """Return the share in [0, 1] of prompts without an output to imitate, as "rows/skipped"."""
        return {"rows/skipped": (~experience.mask).float().mean()}

    def loss(self, policy: DensityPolicy, chunk: Demonstrations, rng: torch.Generator) -> tuple[Tensor, Metrics]:
        """-Σ weight × log p of these outputs, in nats of the joint or per `unit`, with gradient, and its metrics."""
        size = float(event_size(policy, chunk.rollout))
        dropped = {} if chunk.unconditional is None else {"unconditional": chunk.unconditional}
        log_prob = policy.log_prob(chunk.rollout, {**chunk.probe, **dropped}).sum(1)
        unit = {"sum": 1.0, "mean": size, "mse": size / 2}[self.unit]
        gain = log_prob / chunk.divisor.to(log_prob) / unit
        tokens = token_counts(chunk.rollout, not chunk.probe).to(log_prob)
        given = chunk.mask if chunk.prior is None else chunk.mask & ~chunk.prior
        metrics = masked_means(given, {"fit/target": log_prob / size, "fit/per_token": log_prob / size / tokens})
        if chunk.prior is not None:
            metrics |= masked_means(chunk.mask & chunk.prior, {"fit/prior": log_prob / size})
        return -_weights.weighted_sum(chunk, gain), metrics


def _at_the_size_of(given: object, row: Example) -> Example:
    """`row`, its picture (3, H, W) cropped and scaled where a given one of the batch has another size."""
    if not isinstance(given, Tensor) or given.shape[1:] == row.output.shape[1:]:
        return row
    size, original = (given.shape[1], given.shape[2]), (row.output.shape[1], row.output.shape[2])
    prompt = replace(row.prompt, placement=placement_of(original, size, "cover"))
    return replace(row, prompt=prompt, output=fitted(row.output, size, "cover"))


__all__ = ["SFT"]
