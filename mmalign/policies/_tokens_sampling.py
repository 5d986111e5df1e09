"""Sampling one step of tokens: temperature, top-k and top-p filters, repetition penalty. Pure functions.

A step is sampled by inverting the cumulative distribution at one uniform number per entry, so that rows are independent
and a row's noise is named by its seed. Order, as in transformers: repetition penalty, temperature, top-k, top-p.

The repetition penalty looks at the completion alone, not at its prompt. `repetition_penalty` is that of CTRL (Keskar et
al. 2019, 1909.05858, sec. 4.1) in its public form: seen tokens' logits are divided by it where positive, multiplied
where negative. `no_repeat_ngram` forbids the token that would write an n-gram a second time (Paulus et al. 2017,
1705.04304).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from mmalign.core.rng import Noise
from mmalign.core.tensor import Tensor


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How completions are sampled: temperature 0 takes the most likely token, top_p 1 and top_k 0 filter nothing."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0

    @property
    def penalizes_repetition(self) -> bool:
        """Do the logits depend on the completion so far beyond what the network says?"""
        return self.repetition_penalty != 1.0 or self.no_repeat_ngram > 0


def sample_token(
    logits: Float[Tensor, "A V"], uniform: Float[Tensor, " A"], params: SamplingParams
) -> Int[Tensor, " A"]:
    """One token per row; `uniform` in [0, 1) decides which. In float64: a vocabulary of 152,000 sums up exactly."""
    if params.temperature == 0:
        return logits.argmax(-1)
    probabilities = top_k_top_p_filter(logits.double() / params.temperature, params.top_k, params.top_p).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # Below the last value also where rounding would reach it: past it there are only tokens that were filtered out.
    point = (uniform.double() * cumulative[:, -1]).minimum(cumulative[:, -1] * (1 - 1e-12))
    token = torch.searchsorted(cumulative, point[:, None], right=True)[:, 0]
    return token.clamp(max=logits.shape[-1] - 1)  # logits that are not finite have no such point


def top_k_top_p_filter(logits: Float[Tensor, "A V"], top_k: int, top_p: float) -> Float[Tensor, "A V"]:
    """-inf outside the `top_k` likeliest tokens (0: all), then outside the smallest set of probability `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ranked.softmax(-1)
        dropped = probabilities.cumsum(-1) - probabilities >= top_p  # enough comes before it; the first always stays
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)
    return logits


def penalize_repetition(
    logits: Float[Tensor, "A V"], completion: Int[Tensor, "A t"], params: SamplingParams
) -> Float[Tensor, "A V"]:
    """The logits after the repetition penalty and the n-gram ban for what each row has written so far."""
    if params.repetition_penalty != 1.0 and completion.shape[1]:
        seen = logits.gather(1, completion)
        penalized = torch.where(seen < 0, seen * params.repetition_penalty, seen / params.repetition_penalty)
        logits = logits.scatter(1, completion, penalized)
    size = params.no_repeat_ngram
    if size and completion.shape[1] >= size:
        ngrams = completion.unfold(1, size, 1)  # (A, t - n + 1, n)
        latest = completion[:, completion.shape[1] - size + 1 :]
        repeats = (ngrams[:, :, :-1] == latest[:, None]).all(-1)
        banned = torch.zeros_like(logits, dtype=torch.bool)
        row, position = repeats.nonzero(as_tuple=True)
        banned[row, ngrams[row, position, -1]] = True
        banned &= ~banned.all(-1, keepdim=True)  # where every token is banned, none is
        logits = logits.masked_fill(banned, -torch.inf)
    return logits


def row_seeds(rows: int, rng: Noise) -> Int[Tensor, " B"]:
    """A seed per row; equal states of `rng` give equal seeds."""
    if not isinstance(rng, torch.Generator):
        return torch.cat([row_seeds(1, one) for one in rng])
    return torch.randint(0, 2**63 - 1, (rows,), generator=rng, device=rng.device).cpu()


def uniform_noise(seeds: Int[Tensor, " B"], steps: int, entries: int) -> Float[Tensor, "B steps entries"]:
    """Uniform noise of every row from its own seed alone, float64, on the CPU: the same numbers on every device."""
    rows = [
        torch.rand(steps, entries, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds.tolist()
    ]
    return torch.stack(rows)
