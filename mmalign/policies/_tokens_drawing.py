"""Drawing one step of tokens: temperature, top-k, top-p, repetition guard. Pure functions of logits and noise.

A step is drawn by inverting the cumulative distribution at one uniform number per entry, so that rows are independent
and a row's noise can be named by its seed. Order, as in transformers: guard, temperature, top-k, top-p.

The guard looks at the completion alone, not at its prompt. `repetition_penalty` is that of CTRL (Keskar et al. 2019,
1909.05858, sec. 4.1) in its public form: seen tokens' logits are divided by it where positive, multiplied where
negative. `no_repeat_ngram` forbids the token that would write an n-gram a second time (Paulus et al. 2017, 1705.04304).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from mmalign.core.rng import Noise
from mmalign.core.tensor import Tensor


@dataclass(frozen=True)
class Drawing:
    """How completions are drawn: temperature 0 takes the most likely token, top_p 1 and top_k 0 leave nothing out."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0

    @property
    def guarded(self) -> bool:
        """Is what was already written looked at?"""
        return self.repetition_penalty != 1.0 or self.no_repeat_ngram > 0


def draw(logits: Float[Tensor, "A V"], uniform: Float[Tensor, " A"], how: Drawing) -> Int[Tensor, " A"]:
    """One token per row; `uniform` in [0, 1) decides which. In float64: a step of 152,000 words sums up exactly."""
    if how.temperature == 0:
        return logits.argmax(-1)
    chances = narrowed(logits.double() / how.temperature, how.top_k, how.top_p).softmax(-1)
    upto = chances.cumsum(-1)
    # Below the last value also where rounding would reach it: past it there are only tokens that were left out.
    place = (uniform.double() * upto[:, -1]).minimum(upto[:, -1] * (1 - 1e-12))
    token = torch.searchsorted(upto, place[:, None], right=True)[:, 0]
    return token.clamp(max=logits.shape[-1] - 1)  # of logits that are not finite there is no such place


def narrowed(logits: Float[Tensor, "A V"], top_k: int, top_p: float) -> Float[Tensor, "A V"]:
    """-inf outside the `top_k` likeliest tokens (0: all), then outside the smallest set that holds `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        chances = ranked.softmax(-1)
        dropped = chances.cumsum(-1) - chances >= top_p  # enough is there before it; the first always stays
        logits = logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)
    return logits


def guarded(logits: Float[Tensor, "A V"], written: Int[Tensor, "A t"], how: Drawing) -> Float[Tensor, "A V"]:
    """The logits with the repetition guard for what each row has written so far."""
    if how.repetition_penalty != 1.0 and written.shape[1]:
        seen = logits.gather(1, written)
        held = torch.where(seen < 0, seen * how.repetition_penalty, seen / how.repetition_penalty)
        logits = logits.scatter(1, written, held)
    size = how.no_repeat_ngram
    if size and written.shape[1] >= size:
        grams = written.unfold(1, size, 1)  # (A, places, n)
        latest = written[:, written.shape[1] - size + 1 :]
        again = (grams[:, :, :-1] == latest[:, None]).all(-1)
        banned = torch.zeros_like(logits, dtype=torch.bool)
        row, place = again.nonzero(as_tuple=True)
        banned[row, grams[row, place, -1]] = True
        banned &= ~banned.all(-1, keepdim=True)  # nothing left to say: a repetition it is
        logits = logits.masked_fill(banned, -torch.inf)
    return logits


def row_seeds(rows: int, rng: Noise) -> Int[Tensor, " B"]:
    """A seed per row; equal states of `rng` give equal seeds."""
    if not isinstance(rng, torch.Generator):
        return torch.cat([row_seeds(1, one) for one in rng])
    return torch.randint(0, 2**63 - 1, (rows,), generator=rng, device=rng.device).cpu()


def noise(seeds: Int[Tensor, " B"], steps: int, entries: int) -> Float[Tensor, "B steps entries"]:
    """Uniform noise of every row from its own seed alone, float64, on the CPU: the same numbers on every device."""
    rows = [
        torch.rand(steps, entries, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds.tolist()
    ]
    return torch.stack(rows)
