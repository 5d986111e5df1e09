"""Who writes completions: the seam for other engines, and the default, the adapter's own network.

An engine is one function, `engine(request) -> Completions`. It may run anywhere (transformers' `generate`, a server):
it gets prompts as token ids and says which tokens it wrote and which rows ended by themselves. Without log-probs of its
own (engines narrow and rescale them in their own ways) the policy replays what it wrote, so training is always with
the policy's distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int

from mmalign.core.errors import CapabilityError, Diverged
from mmalign.core.gradient import without_gradient
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.policies._tokens_density import Reading, read, wide
from mmalign.policies._tokens_drawing import Drawing, draw, guarded, noise


@dataclass(frozen=True)
class Request:
    """B completions of U distinct prompts.

    `prompts` and `inputs` (of the adapter; `input_ids` among them) are the distinct ones, `rows` (B,) says which of
    them each completion continues, `seeds` (B,) name each row's noise; `record` asks for log-probs.
    """

    adapter: Any
    prompts: Sequence[Prompt]
    inputs: Sequence[Inputs]
    rows: Int[Tensor, " B"]
    seeds: Int[Tensor, " B"]
    how: Drawing
    record: bool = True


@dataclass(frozen=True)
class Completions:
    """What was written: tokens up to and including the one that ended it, right-padded; `finished` where one did.

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
    adapter, how = request.adapter, request.how
    if how.guarded and adapter.event_shape:
        raise CapabilityError("the repetition guard reads texts; set repetition_penalty: 1 and no_repeat_ngram: 0.")
    rows = request.rows.to(adapter.device)
    page = _Page(len(rows), how.max_new_tokens, adapter)
    entries = max(1, torch.Size(adapter.event_shape).numel())
    uniform = noise(request.seeds, how.max_new_tokens, entries).to(adapter.device)
    stops = torch.tensor(adapter.stop_ids, dtype=torch.long, device=adapter.device)
    reading = Reading(how.temperature, entropy="off")
    alive = torch.arange(len(rows), device=adapter.device)  # the rows behind the decoding's
    writing = torch.ones_like(alive, dtype=torch.bool)  # those of them that have not ended
    decoding = adapter.begin(request.inputs, rows, how.max_new_tokens)
    for t in range(how.max_new_tokens):
        logits = adapter.logits(decoding.features)
        broken = ~logits.flatten(1).amax(1).isfinite() & writing  # NaN wins the maximum; -inf alone is no choice either
        token = _next(logits, page.tokens[alive, :t], uniform[alive, t], how, adapter.forced(t, how.max_new_tokens))
        page.write(t, alive[writing], token[writing])
        if request.record:
            page.log_prob[alive, t] = read(logits, token, reading)[0].float()
        stopped = torch.isin(token, stops).reshape(len(token), -1).all(1) & writing
        page.finished[alive[stopped]] = True
        writing = writing & ~stopped
        left, lost = torch.stack([writing.sum(), broken.sum()]).tolist()
        if lost:
            raise Diverged(f"the logits of {lost} of {len(rows)} completions are not finite: the model diverged")
        if left == 0 or t + 1 == how.max_new_tokens:
            break
        if 4 * left <= 3 * len(alive):  # dropping rows copies the cache, so not for every one that ends
            decoding.keep(writing.nonzero()[:, 0])
            alive, token, writing = alive[writing], token[writing], writing[writing]
        decoding.advance(token)
    return page.completions(request.record)


def _next(logits: Tensor, written: Tensor, uniform: Tensor, how: Drawing, forced: Tensor | None) -> Tensor:
    """The next step of A rows, (A, *event)."""
    logits = wide(logits)
    if how.guarded:
        logits = guarded(logits, written, how)
    token = draw(logits.flatten(0, -2), uniform.flatten(), how).reshape(logits.shape[:-1])
    return token if forced is None else torch.where(forced.to(token.device) >= 0, forced.to(token), token)


class _Page:
    """Completions while they are written."""

    def __init__(self, rows: int, steps: int, adapter: Any) -> None:
        device = adapter.device
        self.tokens = torch.full((rows, steps, *adapter.event_shape), adapter.pad_id, dtype=torch.long, device=device)
        self.mask = torch.zeros(rows, steps, dtype=torch.bool, device=device)
        self.log_prob = torch.zeros(rows, steps, device=device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)

    def write(self, step: int, rows: Tensor, tokens: Tensor) -> None:
        """Step `step` of `rows`."""
        self.tokens[rows, step] = tokens
        self.mask[rows, step] = True

    def completions(self, record: bool) -> Completions:
        """What was written, as long as the longest."""
        used = max(1, int(self.mask.sum(1).max()))
        mask = self.mask[:, :used]
        log_prob = self.log_prob[:, :used].where(mask, 0.0) if record else None
        return Completions(self.tokens[:, :used], mask, self.finished, log_prob)
