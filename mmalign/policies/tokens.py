"""Autoregressive generators: sampling, exact log-probs of every token, replay and density.

The policy's distribution, in `step_dist`, `log_prob` and what `sample` records, is softmax(logits / temperature) over
the whole vocabulary. Top-p, top-k and the repetition guard change what `sample` draws and not this distribution: before
the first update ratios are 1 and the KL 0 with any of them (an engine's truncated log-probs would make ratios < 1).

| setting                                   | options |
|-------------------------------------------|---------|
| GRPO and its descendants (2402.03300)     | temperature: 1, top_p: 1 (sampled from what is trained) |
| DPO on given pairs (2305.18290)           | temperature: 1 |
| self-critical training (1612.00563)       | `generate` greedy: eval_temperature: 0 |
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int

from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.options import AtLeastOne, Count, NotNegative, Positive, PositiveShare
from mmalign.core.protocols import Probe
from mmalign.core.rng import Noise
from mmalign.core.rows import join
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, StepDist, groups
from mmalign.policies._options import at_least, makes_tokens, one_of, within
from mmalign.policies._rollout import first_rows, micro_batches
from mmalign.policies._tokens_density import Entropy, Reading, judged
from mmalign.policies._tokens_drawing import Drawing, row_seeds
from mmalign.policies._tokens_engine import Completions, Engine, Request, own_engine

Record = Literal["auto", "sampler", "replay"]


@dataclass
class Tokens:
    """A generator of tokens as a step, density and sampling policy.

    Args:
        adapter: a `TokenAdapter`.
        max_new_tokens: longest completion, T; one that reaches it without a stop token is `truncated`.
        temperature: of sampling and of every log-prob; above 0.
        top_p, top_k: sample from the smallest set of tokens that holds `top_p`, of the `top_k` likeliest (0: all).
        repetition_penalty: above 1 makes tokens of the completion so far less likely to be drawn again.
        no_repeat_ngram: no n-gram is drawn twice in a completion; 0 is off.
        eval_temperature: of `generate`; 0 takes the most likely token each time. Top-p, top-k and guard apply as well.
        eval_max_new_tokens: of `generate`; None is `max_new_tokens`.
        rows: micro-batch of sampling and of the replay; 0 is all rows at once.
        positions: tokens whose logits are held at once; 0 is as many as fit 128 MiB in float32.
        entropy: of `step_dist`: "detached" (for logs), "differentiable" (for bonuses), or "off".
        record: whose log-probs `sample` keeps. "sampler": those of the drawing itself. "replay": those of a second
            forward, the very computation that training repeats. "auto": the sampler's in fp32, where the two agree to
            1e-5, and the replay's in bf16 and fp16, where they do not.

    `engine` (an attribute, not an option) is who writes completions, see `_tokens_engine.py`.

    Raises:
        ValueError: an option out of range, or an adapter that makes no tokens.
    """

    adapter: Any
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
    engine: Engine = field(default_factory=lambda: own_engine, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        makes_tokens("tokens", self.adapter)
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
    def modality(self) -> Modality:
        """The adapter's."""
        return self.adapter.modality  # type: ignore[no-any-return]

    @property
    def module(self) -> torch.nn.Module:
        """The adapter's trainable part."""
        return self.adapter.module  # type: ignore[no-any-return]

    @property
    def event_size(self) -> int:
        """Tokens of one step: 1 for text, K for codebooks."""
        return torch.Size(self.adapter.event_shape).numel()

    def reference(self) -> AbstractContextManager[None]:
        """Inside it the policy is the one it started from."""
        return self.adapter.reference()  # type: ignore[no-any-return]

    def sample(
        self, prompts: Sequence[Prompt], rng: torch.Generator, seeds: Int[Tensor, " B"] | None = None
    ) -> Rollout:
        """One completion per row; the trajectory holds `tokens` (B, T, *event) and each row's `seed` (B,).

        A row's completion follows from its prompt, its seed and the weights; `seeds` repeats what seeds of an earlier
        rollout drew, in any company.
        """
        seeds = row_seeds(len(prompts), rng) if seeds is None else seeds
        drawn = self.record == "sampler" or (self.record == "auto" and not self._rough)
        rollout = self._written(prompts, seeds, self._drawing(), record=drawn)
        if rollout.step_logp is not None:
            return rollout
        with torch.no_grad():
            return replace(rollout, step_logp=self.step_log_prob(rollout))

    def generate(self, prompts: Sequence[Prompt], rng: Noise) -> Rollout:
        """One completion per row at `eval_temperature`; with 0 the noise plays no part."""
        how = replace(
            self._drawing(),
            temperature=self.eval_temperature,
            max_new_tokens=self.eval_max_new_tokens or self.max_new_tokens,
        )
        return self._written(prompts, row_seeds(len(prompts), rng), how, record=False)

    def step_dist(self, rollout: Rollout, steps: slice = slice(None)) -> StepDist:
        """Log-prob and entropy of the recorded tokens in `steps` under the current weights, with gradient.

        One forward judges every step: a slice costs almost as much as all: leave `trainer.steps_per_pass` at 0.
        """
        return self._judged(rollout, steps, self.entropy)

    def step_log_prob(self, rollout: Rollout, steps: slice = slice(None)) -> Float[Tensor, "B T"]:
        """`step_dist(...).log_prob`."""
        return self._judged(rollout, steps, "off").log_prob

    def observe(self, prompts: Sequence[Prompt], outputs: Any) -> Rollout:
        """Given outputs, tokenised by themselves and ended, as a rollout that `log_prob` and `step_dist` accept."""
        if len(outputs) != len(prompts):
            raise DataError(
                f"observe: {len(prompts)} prompts but {len(outputs)} outputs; give one output per prompt row."
            )
        tokens, mask = self.adapter.tokenize(outputs)
        return Rollout(
            prompts=list(prompts),
            output=outputs,
            group=groups(prompts).to(tokens.device),
            trajectory={"tokens": tokens},
            mask=mask,
            truncated=torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device),
        )

    def probe(self, rollout: Rollout, rng: torch.Generator, draws: int = 1) -> Probe:
        """Nothing is drawn: the density is exact."""
        return {}

    def log_prob(self, rollout: Rollout, probe: Probe) -> Float[Tensor, "B T"]:
        """Exact terms, one per token, 0 where masked; with gradient."""
        return self.step_log_prob(rollout)

    def log_probs(self, rollouts: Sequence[Rollout], probe: Probe) -> list[Float[Tensor, "B _"]]:
        """`log_prob` of rollouts with equal prompts row by row, judged together: a prompt is forwarded once for all."""
        masks = [_live(rollout) for rollout in rollouts]
        said = self._judged(_side_by_side(rollouts, self.adapter.pad_id), slice(None), "off").log_prob
        by_side = said.unflatten(0, (-1, len(rollouts)))
        return [by_side[:, i, : mask.shape[1]] for i, mask in enumerate(masks)]

    @property
    def _rough(self) -> bool:
        """Does the adapter compute in less than float32?"""
        return str(getattr(self.adapter, "dtype", "fp32")) in ("bf16", "fp16")

    def _drawing(self) -> Drawing:
        return Drawing(
            self.max_new_tokens,
            self.temperature,
            self.top_p,
            self.top_k,
            self.repetition_penalty,
            self.no_repeat_ngram,
        )

    def _judged(self, rollout: Rollout, steps: slice, entropy: Entropy) -> StepDist:
        device, how = self.adapter.device, Reading(self.temperature, self.positions, entropy)
        mask = _live(rollout).to(device)
        tokens = rollout.trajectory["tokens"].to(device)
        chosen = range(mask.shape[1])[steps]
        if not chosen:
            raise ValueError(f"steps {steps} selects none of the {mask.shape[1]} recorded steps.")
        parts = micro_batches(len(rollout), self.rows)
        return join(  # type: ignore[no-any-return]
            [judged(self.adapter, rollout.prompts[p], tokens[p], mask[p], chosen, how) for p in parts]
        )

    def _written(self, prompts: Sequence[Prompt], seeds: Tensor, how: Drawing, record: bool) -> Rollout:
        parts = micro_batches(len(prompts), self.rows)
        done = [self._completions(prompts[part], seeds[part], how, record) for part in parts]
        steps = max(part.mask.shape[1] for part in done)
        tokens = torch.cat([_longer(part.tokens, steps, self.adapter.pad_id) for part in done])
        mask = torch.cat([_longer(part.mask, steps, False) for part in done])
        logps = [part.log_prob for part in done]
        recorded = None if any(p is None for p in logps) else torch.cat([_longer(p, steps, 0.0) for p in logps])
        ends = bool(self.adapter.stop_ids)
        return Rollout(
            prompts=list(prompts),
            output=self.adapter.decode(tokens, mask),
            group=groups(prompts).to(tokens.device),
            trajectory={"tokens": tokens, "seed": seeds.to(tokens.device)},
            step_logp=recorded,
            mask=mask,
            truncated=~torch.cat([part.finished for part in done]) if ends else None,
        )

    def _completions(self, prompts: Sequence[Prompt], seeds: Tensor, how: Drawing, record: bool) -> Completions:
        group = groups(prompts)
        distinct = [prompts[i] for i in first_rows(group)]
        request = Request(self.adapter, distinct, self.adapter.encode(distinct), group, seeds, how, record)
        found = self.engine(request)
        if found.mask.shape[0] != len(prompts):
            raise CapabilityError(f"the engine wrote {found.mask.shape[0]} completions for {len(prompts)} rows.")
        device = self.adapter.device
        return Completions(
            found.tokens.to(device),
            found.mask.to(device),
            found.finished.to(device),
            found.log_prob.to(device) if record and found.log_prob is not None else None,
        )


def _live(rollout: Rollout) -> Tensor:
    """The mask of its tokens."""
    if "tokens" not in rollout.trajectory or rollout.mask is None:
        raise CapabilityError(
            "this rollout holds no tokens; use a rollout of sample(), generate() or observe() of policy 'tokens'."
        )
    return rollout.mask


def _side_by_side(rollouts: Sequence[Rollout], pad_id: int) -> Rollout:
    """The first rows of all, then the second ones, …: any micro-batch then holds rows that share a prompt."""
    steps = max(_live(rollout).shape[1] for rollout in rollouts)
    tokens = [_longer(rollout.trajectory["tokens"], steps, pad_id) for rollout in rollouts]
    masks = [_longer(_live(rollout), steps, False) for rollout in rollouts]
    prompts = [prompt for row in zip(*(rollout.prompts for rollout in rollouts), strict=True) for prompt in row]
    return Rollout(
        prompts=prompts,
        output=None,
        group=groups(prompts),
        trajectory={"tokens": torch.stack(tokens, 1).flatten(0, 1)},
        mask=torch.stack(masks, 1).flatten(0, 1),
    )


def _longer(values: Any, steps: int, fill: float) -> Tensor:
    """(B, t, …) padded along t."""
    trailing = [0, 0] * (values.dim() - 2)
    return torch.nn.functional.pad(values, [*trailing, 0, steps - values.shape[1]], value=fill)


__all__ = ["Tokens"]
