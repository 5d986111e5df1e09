"""Autoregressive generators: sampling, exact log-probs of every token, replay and density.

The policy's distribution, in `step_dist`, `log_prob` and what `sample` records, is softmax(logits / temperature) over
the whole vocabulary. Top-p, top-k and repetition penalties change what `sample` draws and not this distribution: before
the first update ratios are 1 and the KL 0 with any of them (an engine's truncated log-probs would make ratios < 1).

| setting                                   | options |
|-------------------------------------------|---------|
| GRPO and its descendants (2402.03300)     | temperature: 1, top_p: 1 (sampled from what is trained) |
| DPO on given pairs (2305.18290)           | temperature: 1 |
| self-critical training (1612.00563)       | `generate` greedy: eval_temperature: 0 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.conversation import Answer
from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.options import AtLeastOne, Count, NotNegative, Positive, PositiveShare, at_least, one_of, within
from mmalign.core.protocols import AdapterTraits, Probe, TokenAdapter, TurnTokens
from mmalign.core.rng import Noise
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Audio, Prompt, Rollout, StepDist, groups, join
from mmalign.core.unloaded import Unloaded
from mmalign.policies._base import AdapterPolicy, first_rows, micro_batches, require_kind
from mmalign.policies._tokens_density import Entropy, LogProbOptions, completion_dist, completion_logits, mean_states
from mmalign.policies._tokens_sampling import Completions, Engine, Request, SamplingParams, own_engine, row_seeds

Record = Literal["auto", "sampler", "replay"]


@dataclass
class Tokens(AdapterPolicy):
    """A generator of tokens as a step, density and sampling policy.

    Args:
        adapter: a `TokenAdapter`.
        max_new_tokens: longest completion, T; one that reaches it without a stop token is `truncated`.
        temperature: of sampling and of every log-prob; above 0.
        top_p, top_k: sample from the smallest set of tokens that holds `top_p`, of the `top_k` likeliest (0: all).
        repetition_penalty: above 1 makes tokens of the completion so far less likely to be drawn again.
        no_repeat_ngram: no n-gram is drawn twice in a completion; 0 is off.
        eval_temperature: of `generate`; 0 takes the most likely token each time. Filters and penalties apply as well.
        eval_max_new_tokens: of `generate`; None is `max_new_tokens`.
        rows: micro-batch of sampling and of the replay; 0 is all rows at once.
        positions: tokens whose logits are held at once; 0 is as many as fit 128 MiB in float32.
        entropy: of `step_dist`: "detached" (for logs), "differentiable" (for bonuses), or "off".
        record: whose log-probs `sample` keeps. "sampler": those of the drawing itself. "replay": those of a second
            forward, the very computation that training repeats. "auto": the sampler's in fp32, where the two agree to
            1e-5, and the replay's in bf16 and fp16, where they do not.
        keep_features: `sample` and `generate` also keep `features` of what they make, for rewards that compare by them.

    `engine` (an attribute, not an option) is who writes completions, see `_tokens_sampling.py`.

    Raises:
        ValueError: an option out of range, or an adapter that makes no tokens.
    """

    adapter: Unloaded[TokenAdapter]
    max_new_tokens: AtLeastOne = 128
    temperature: Positive = 1.0
    top_p: PositiveShare = 1.0
    top_k: Count = 0
    repetition_penalty: Positive = 1.0
    no_repeat_ngram: Count = 0
    eval_temperature: NotNegative = 0.0
    eval_max_new_tokens: AtLeastOne | None = None
    rows: Count = 0
    positions: Count = 0
    entropy: Entropy = "detached"
    record: Record = "auto"
    keep_features: bool = False
    engine: Engine = field(default_factory=lambda: own_engine, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_kind("tokens", "tokens", self.adapter)
        one_of("entropy", self.entropy, Entropy)
        one_of("record", self.record, Record)
        at_least("max_new_tokens", self.max_new_tokens, 1)
        at_least("eval_max_new_tokens", self.eval_max_new_tokens, 1)
        for name in ("top_k", "no_repeat_ngram", "rows", "positions"):
            at_least(name, getattr(self, name), 0)
        within("eval_temperature", self.eval_temperature, 0)
        for name, high in {"temperature": float("inf"), "top_p": 1.0, "repetition_penalty": float("inf")}.items():
            if not 0 < getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0 and at most {high:g}.")

    @property
    def event_size(self) -> int:
        """Tokens of one step: 1 for text, K for codebooks."""
        return torch.Size(self.adapter.event_shape).numel()

    def sample(
        self, prompts: Sequence[Prompt], rng: torch.Generator, seeds: Int[Tensor, " B"] | None = None
    ) -> Rollout:
        """One completion per row; the trajectory holds `tokens` (B, T, *event) and each row's `seed` (B,).

        A row's completion follows from its prompt, its seed and the weights; `seeds` repeats what seeds of an earlier
        rollout drew, in any company.
        """
        seeds = row_seeds(len(prompts), rng) if seeds is None else seeds
        record = self.record == "sampler" or (self.record == "auto" and not self._is_half_precision)
        rollout = self._with_features(self._complete(prompts, seeds, self.sampling_params(), record=record))
        if rollout.step_logp is not None:
            return rollout
        with torch.no_grad():
            return replace(rollout, step_logp=self.step_log_prob(rollout))

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """One completion per row at `eval_temperature`; with 0 the noise plays no part."""
        params = replace(
            self.sampling_params(),
            temperature=self.eval_temperature,
            max_new_tokens=self.eval_max_new_tokens or self.max_new_tokens,
        )
        return self._with_features(self._complete(prompts, row_seeds(len(prompts), rng), params, record=False))

    def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
        """Log-prob and entropy of the recorded tokens in `steps` under the current weights, with gradient.

        One forward gives every step: a slice costs almost as much as all: leave `trainer.steps_per_pass` at 0.
        """
        return self._dist(rollout, steps, self.entropy)

    def step_log_prob(self, rollout: Rollout, steps: slice = slice(None)) -> Float[Tensor, "B T"]:
        """Return `step_dist(...).log_prob`, (B, T) in nats, with gradient; 0 where not `rollout.mask`."""
        return self._dist(rollout, steps, "off").log_prob

    def observe(self, prompts: Sequence[Prompt], outputs: Audio | list[str]) -> Rollout:
        """Given outputs, tokenised by themselves and ended, as a rollout that `log_prob` and `step_dist` accept."""
        if len(outputs) != len(prompts):
            raise DataError(
                f"observe: {len(prompts)} prompts but {len(outputs)} outputs; give one output per prompt row."
            )
        tokens, mask, learned = self._tokenized(prompts, outputs)
        return Rollout(
            prompts=list(prompts),
            output=outputs,
            group=groups(prompts).to(tokens.device),
            trajectory={"tokens": tokens} if learned is None else {"tokens": tokens, "live": mask},
            mask=mask if learned is None else learned,
            truncated=torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device),
        )

    def _tokenized(
        self, prompts: Sequence[Prompt], outputs: Audio | list[str]
    ) -> tuple[Tensor, Bool[Tensor, "B T"], Bool[Tensor, "B T"] | None]:
        """Tokens and mask of given outputs; which of them count where not all of them do, else None."""
        if isinstance(outputs, Audio) or not any(isinstance(output, Answer) for output in outputs):
            return *self.adapter.tokenize(outputs), None
        if not isinstance(self.adapter, TurnTokens):
            raise CapabilityError(
                f"{type(self.adapter).__name__} writes no answers that call tools or have several turns; give texts."
            )
        tokens, mask, learned = self.adapter.tokenize_behind(prompts, outputs)
        return tokens, mask, None if torch.equal(mask, learned) else learned

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> Probe:
        """Return {}: the density of tokens is exact, so no noise is shared; `draws` has no effect."""
        return {}

    def log_prob(self, rollout: Rollout, probe: Probe) -> Float[Tensor, "B T"]:
        """The log-prob of every token in nats, exact, 0 where masked; with gradient.

        Rows where `probe["unconditional"]` (B,) is True are taken without their prompt.
        """
        return self._dist(rollout, slice(None), "off", probe.get("unconditional")).log_prob

    def log_probs(self, rollouts: Sequence[Rollout], probe: Probe) -> list[Float[Tensor, "B _"]]:
        """`log_prob` of rollouts with equal prompts row by row, in one pass: a prompt is forwarded once for all."""
        masks = [_mask(rollout) for rollout in rollouts]
        log_prob = self._dist(_interleaved(rollouts, self.adapter.pad_id), slice(None), "off").log_prob
        by_side = log_prob.unflatten(0, (-1, len(rollouts)))
        return [by_side[:, i, : mask.shape[1]] for i, mask in enumerate(masks)]

    def step_logits(self, rollout: Rollout) -> Float[Tensor, "B T V"]:
        """Logits over `temperature` of every entry before each recorded token, 0 where masked; with gradient.

        Of texts; the rows' logits are held at once, so give it few rows of a large vocabulary.
        """
        device, mask = self.adapter.device, _mask(rollout)
        tokens = rollout.trajectory["tokens"].to(device)
        return completion_logits(self.adapter, rollout.prompts, tokens, mask.to(device), self.temperature)

    def features(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """Return the mean of the last hidden states (B, D) over each completion, float32, with gradient.

        States are those that predict its tokens, the one that ends it included; a row does not depend on the others.
        """
        mask = _mask(rollout).to(self.adapter.device)
        live = rollout.trajectory.get("live", mask).to(mask.device)
        tokens = rollout.trajectory["tokens"].to(mask.device)
        parts = micro_batches(len(rollout), self.rows)
        means = [mean_states(self.adapter, rollout.prompts[p], tokens[p], mask[p], live[p]) for p in parts]
        return torch.cat(means)

    @without_gradient
    def _with_features(self, rollout: Rollout) -> Rollout:
        """The rollout with its features, where they are kept."""
        if not self.keep_features:
            return rollout
        return replace(rollout, trajectory={**rollout.trajectory, "features": self.features(rollout)})

    def sampling_params(self) -> SamplingParams:
        """Return how `sample` draws: temperature, filters by probability and rank, penalties of repetition."""
        return SamplingParams(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            no_repeat_ngram=self.no_repeat_ngram,
        )

    @property
    def _is_half_precision(self) -> bool:
        """Does the adapter compute in less than float32?"""
        return AdapterTraits.of(self.adapter).dtype in ("bf16", "fp16")

    def _dist(self, rollout: Rollout, steps: slice, entropy: Entropy, dropped: Tensor | None = None) -> StepDist:
        device = self.adapter.device
        options = LogProbOptions(temperature=self.temperature, positions=self.positions, entropy=entropy)
        mask = _mask(rollout).to(device)
        live = rollout.trajectory.get("live", mask).to(device)
        tokens = rollout.trajectory["tokens"].to(device)
        chosen = range(mask.shape[1])[steps]
        if not chosen:
            raise ValueError(f"steps {steps} selects none of the {mask.shape[1]} recorded steps.")
        parts = micro_batches(len(rollout), self.rows)
        rows = [(rollout.prompts[p], tokens[p], mask[p], live[p]) for p in parts]
        without = [None if dropped is None else dropped[p] for p in parts]
        dists = [
            completion_dist(self.adapter, *row, chosen, options, gone) for row, gone in zip(rows, without, strict=True)
        ]
        return join(dists)

    def _complete(self, prompts: Sequence[Prompt], seeds: Tensor, params: SamplingParams, record: bool) -> Rollout:
        """A rollout of one completion per row, with the sampler's log-probs if `record` and the engine gives them."""
        slices = micro_batches(len(prompts), self.rows)
        parts = [self._completions(prompts[part], seeds[part], params, record) for part in slices]
        steps = max(part.mask.shape[1] for part in parts)
        tokens = torch.cat([_pad_steps(part.tokens, steps, self.adapter.pad_id) for part in parts])
        mask = torch.cat([_pad_steps(part.mask, steps, False) for part in parts])
        log_probs = [_pad_steps(part.log_prob, steps, 0.0) for part in parts if part.log_prob is not None]
        ends = bool(self.adapter.stop_ids)
        return Rollout(
            prompts=list(prompts),
            output=self.adapter.decode(tokens, mask),
            group=groups(prompts).to(tokens.device),
            trajectory={"tokens": tokens, "seed": seeds.to(tokens.device)},
            step_logp=torch.cat(log_probs) if len(log_probs) == len(parts) else None,
            mask=mask,
            truncated=~torch.cat([part.finished for part in parts]) if ends else None,
        )

    def _completions(
        self, prompts: Sequence[Prompt], seeds: Tensor, params: SamplingParams, record: bool
    ) -> Completions:
        """What the engine writes for these rows, on the adapter's device."""
        group = groups(prompts)
        distinct = [prompts[i] for i in first_rows(group)]
        completions = self.engine(
            Request(
                adapter=self.adapter,
                prompts=distinct,
                inputs=self.adapter.encode(distinct),
                rows=group,
                seeds=seeds,
                params=params,
                record=record,
            )
        )
        if completions.mask.shape[0] != len(prompts):
            raise CapabilityError(f"the engine wrote {completions.mask.shape[0]} completions for {len(prompts)} rows.")
        device, log_prob = self.adapter.device, completions.log_prob
        return Completions(
            tokens=completions.tokens.to(device),
            mask=completions.mask.to(device),
            finished=completions.finished.to(device),
            log_prob=log_prob.to(device) if record and log_prob is not None else None,
        )


def _mask(rollout: Rollout) -> Bool[Tensor, "B T"]:
    """Which tokens (B, T) of a rollout are part of a completion."""
    if "tokens" not in rollout.trajectory or rollout.mask is None:
        raise CapabilityError(
            "this rollout holds no tokens; use a rollout of sample(), generate() or observe() of policy 'tokens'."
        )
    return rollout.mask


def _interleaved(rollouts: Sequence[Rollout], pad_id: int) -> Rollout:
    """The first rows of all, then the second ones, …: any micro-batch then holds rows that share a prompt."""
    steps = max(_mask(rollout).shape[1] for rollout in rollouts)
    tokens = [_pad_steps(rollout.trajectory["tokens"], steps, pad_id) for rollout in rollouts]
    masks = [_pad_steps(_mask(rollout), steps, False) for rollout in rollouts]
    live = [
        _pad_steps(rollout.trajectory.get("live", mask), steps, False)
        for rollout, mask in zip(rollouts, masks, strict=True)
    ]
    prompts = [prompt for row in zip(*(rollout.prompts for rollout in rollouts), strict=True) for prompt in row]
    return Rollout(
        prompts=prompts,
        output=None,
        group=groups(prompts),
        trajectory={"tokens": torch.stack(tokens, 1).flatten(0, 1), "live": torch.stack(live, 1).flatten(0, 1)},
        mask=torch.stack(masks, 1).flatten(0, 1),
    )


def _pad_steps(values: Tensor, steps: int, fill: float) -> Tensor:
    """`values` (B, t, …) padded on the right to (B, steps, …)."""
    trailing = [0, 0] * (values.dim() - 2)
    return torch.nn.functional.pad(values, [*trailing, 0, steps - values.shape[1]], value=fill)


__all__ = ["Tokens"]
