"""Engines write completions: the contract for outside ones, and the default, which runs the adapter's own network.

An engine is one function, `engine(request) -> Completions`. It may run anywhere (transformers' `generate`, a server):
it gets prompts as token ids and returns the tokens it wrote and which rows ended by themselves. Where it returns no
log-probs (engines filter and rescale them in their own ways) the policy computes them, so that training is always with
the policy's distribution.

A step is sampled by inverting the cumulative distribution at one uniform number per entry, so that rows are independent
and a row's noise is named by its seed. Order, as in transformers: repetition penalty, temperature, top-k, top-p.

The repetition penalty looks at the completion alone, not at its prompt. `repetition_penalty` is that of CTRL (Keskar et
al. 2019, 1909.05858, sec. 4.1) in its public form: seen tokens' logits are divided by it where positive, multiplied
where negative. `no_repeat_ngram` forbids the token that would write an n-gram a second time (Paulus et al. 2017,
1705.04304).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError, Diverged
from mmalign.core.protocols import Inputs, TokenAdapter
from mmalign.core.rng import Noise
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Prompt
from mmalign.policies._tokens_density import LogProbOptions, to_float32, token_log_probs


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
    """Draw one token per row; `uniform` in [0, 1) decides which. In float64: a vocabulary of 152,000 sums exactly."""
    if params.temperature == 0:
        return logits.argmax(-1)
    probabilities = top_k_top_p_filter(logits.double() / params.temperature, params.top_k, params.top_p).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # Below the last value also where rounding would reach it: past it there are only tokens that were filtered out.
    point = (uniform.double() * cumulative[:, -1]).minimum(cumulative[:, -1] * (1 - 1e-12))
    token = torch.searchsorted(cumulative, point[:, None], right=True)[:, 0]
    return token.clamp(max=logits.shape[-1] - 1)  # logits that are not finite have no such point


def top_k_top_p_filter(logits: Float[Tensor, "A V"], top_k: int, top_p: float) -> Float[Tensor, "A V"]:
    """Set logits to -inf outside the `top_k` likeliest tokens (0: all), then outside the set of probability `top_p`."""
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
    """Apply the repetition penalty and the n-gram ban for what each row has written so far."""
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
    """Draw a seed per row; equal states of `rng` give equal seeds."""
    if not isinstance(rng, torch.Generator):
        return torch.cat([row_seeds(1, one) for one in rng])
    return torch.randint(0, 2**63 - 1, (rows,), generator=rng, device=rng.device).cpu()


def uniform_noise(seeds: Int[Tensor, " B"], steps: int, entries: int) -> Float[Tensor, "B steps entries"]:
    """Draw every row's noise in [0, 1) from its own seed alone, float64, on the CPU: equal on every device."""
    rows = [
        torch.rand(steps, entries, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds.tolist()
    ]
    return torch.stack(rows)


@dataclass(frozen=True, kw_only=True)
class Request:
    """B completions of U distinct prompts.

    `prompts` and `inputs` (of the adapter; `input_ids` among them) are the distinct ones, `rows` (B,) says which of
    them each completion continues, `seeds` (B,) name each row's noise; `record` asks for log-probs.
    """

    adapter: TokenAdapter
    prompts: Sequence[Prompt]
    inputs: Sequence[Inputs]
    rows: Int[Tensor, " B"]
    seeds: Int[Tensor, " B"]
    params: SamplingParams
    record: bool = True


@dataclass(frozen=True, kw_only=True)
class Completions:
    """B completions: tokens up to and including the one that ended it, right-padded; `finished` where one did.

    `log_prob` (B, T) of softmax(logits / temperature) over the whole vocabulary, or None to have it computed.
    """

    tokens: Int[Tensor, "B T *event"]
    mask: Bool[Tensor, "B T"]
    finished: Bool[Tensor, " B"]
    log_prob: Float[Tensor, "B T"] | None = None


Engine = Callable[[Request], Completions]


@without_gradient
def own_engine(request: Request) -> Completions:
    """Run the adapter's network step by step: prompts forwarded once, rows that ended leave the batch."""
    adapter, params = request.adapter, request.params
    if params.penalizes_repetition and adapter.event_shape:
        raise CapabilityError(
            "repetition penalties are for texts, and this adapter makes codebooks; set repetition_penalty: 1 and "
            "no_repeat_ngram: 0."
        )
    rows, steps = request.rows.to(adapter.device), params.max_new_tokens
    buffer = CompletionBuffer(len(rows), steps, adapter)
    entries = max(1, torch.Size(adapter.event_shape).numel())
    uniform = uniform_noise(request.seeds, steps, entries).to(adapter.device)
    stop_ids = torch.tensor(adapter.stop_ids, dtype=torch.long, device=adapter.device)
    log_prob_options = LogProbOptions(temperature=params.temperature, entropy="off")
    alive = torch.arange(len(rows), device=adapter.device)  # the row behind each row of the decoding state
    running = torch.ones_like(alive, dtype=torch.bool)  # those of them that have not ended
    decoding = adapter.begin(request.inputs, rows, steps)
    for t in range(steps):
        logits = adapter.logits(decoding.features)
        broken = ~logits.flatten(1).amax(1).isfinite() & running  # NaN wins the maximum; -inf alone is no choice either
        token = _next(logits, buffer.tokens[alive, :t], uniform[alive, t], params, adapter.forced(t, steps))
        buffer.write(t, alive[running], token[running])
        if request.record:
            buffer.log_prob[alive, t] = token_log_probs(logits, token, log_prob_options)[0].float()
        stopped = torch.isin(token, stop_ids).reshape(len(token), -1).all(1) & running
        buffer.finished[alive[stopped]] = True
        running = running & ~stopped
        remaining, diverged = torch.stack([running.sum(), broken.sum()]).tolist()
        if diverged:
            raise Diverged(f"the logits of {diverged} of {len(rows)} completions are not finite: the model diverged")
        if remaining == 0 or t + 1 == steps:
            break
        if 4 * remaining <= 3 * len(alive):  # dropping rows copies the cache, so not for every one that ends
            decoding.keep(running.nonzero()[:, 0])
            alive, token, running = alive[running], token[running], running[running]
        decoding.advance(token)
    return buffer.completions(request.record)


def _next(
    logits: Tensor, completion: Tensor, uniform: Tensor, params: SamplingParams, forced: Tensor | None
) -> Int[Tensor, " A *event"]:
    """The next step of A rows; entries of `forced` (*event) that are not -1 are fixed."""
    logits = to_float32(logits)
    if params.penalizes_repetition:
        logits = penalize_repetition(logits, completion, params)
    token = sample_token(logits.flatten(0, -2), uniform.flatten(), params).reshape(logits.shape[:-1])
    return token if forced is None else torch.where(forced.to(token.device) >= 0, forced.to(token), token)


class CompletionBuffer:
    """The completions of `rows` rows while they are written: `tokens` (B, T, *event), `mask` (B, T), `log_prob` (B, T).

    `finished` (B,) is True where a stop token was written.
    """

    def __init__(self, rows: int, steps: int, adapter: TokenAdapter) -> None:
        device = adapter.device
        self.tokens = torch.full((rows, steps, *adapter.event_shape), adapter.pad_id, dtype=torch.long, device=device)
        self.mask = torch.zeros(rows, steps, dtype=torch.bool, device=device)
        self.log_prob = torch.zeros(rows, steps, device=device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)

    def write(self, step: int, rows: Int[Tensor, " A"], tokens: Int[Tensor, " A *event"]) -> None:
        """Write what was drawn at step `step` for the rows numbered `rows`; the others end there."""
        self.tokens[rows, step] = tokens
        self.mask[rows, step] = True

    def completions(self, record: bool) -> Completions:
        """Return the completions, cut to the longest; with log-probs if `record`."""
        length = max(1, int(self.mask.sum(1).max()))
        mask = self.mask[:, :length]
        log_prob = self.log_prob[:, :length].where(mask, 0.0) if record else None
        return Completions(tokens=self.tokens[:, :length], mask=mask, finished=self.finished, log_prob=log_prob)
