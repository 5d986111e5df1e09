"""Engines write completions: the contract for outside ones, and the default, which runs the adapter's own network.

An engine is one function, `engine(request) -> Completions`. It may run anywhere (transformers' `generate`, a server):
it gets prompts as token ids and returns the tokens it wrote and which rows ended by themselves. Where it returns no
log-probs (engines filter and rescale them in their own ways) the policy computes them, so that training is always with
the policy's distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError, Diverged
from mmalign.core.gradient import without_gradient
from mmalign.core.protocols import Inputs, TokenAdapter
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.policies._tokens_density import LogProbOptions, to_float32, token_log_probs
from mmalign.policies._tokens_sampling import SamplingParams, penalize_repetition, sample_token, uniform_noise


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
    """The adapter's network step by step: prompts forwarded once, rows that ended leave the batch."""
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
        """Write step `step` of `rows`."""
        self.tokens[rows, step] = tokens
        self.mask[rows, step] = True

    def completions(self, record: bool) -> Completions:
        """The completions, cut to the longest; with log-probs if `record`."""
        length = max(1, int(self.mask.sum(1).max()))
        mask = self.mask[:, :length]
        log_prob = self.log_prob[:, :length].where(mask, 0.0) if record else None
        return Completions(tokens=self.tokens[:, :length], mask=mask, finished=self.finished, log_prob=log_prob)
