"""What adapters that answer about the media of a prompt share: everything behind what their processor makes of them.

A prompt is forwarded once, its media included, for all rows that continue it. Prompts with and without media may share
a batch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Bool, Float, Int

from mmalign.adapters.language._decoder import Prefix, Steps, check_room, continued
from mmalign.adapters.language._decoder import positions as steps_of
from mmalign.adapters.language._looking import Batch, Looking, batch_of
from mmalign.adapters.language._reader import Reader, context_in, reading_folder
from mmalign.adapters.loading import spoken as _spoken
from mmalign.adapters.loading.options import mixed_precision
from mmalign.adapters.loading.peft import language_layers
from mmalign.adapters.loading.texts import Chat, Texts, stop_tokens
from mmalign.core.errors import CapabilityError
from mmalign.core.gradient import without_gradient
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.loading.texts import open_processor

PLACES = ("image", "video", "audio")


class Attentive(_spoken.Speaker, Protocol):
    """The options of a family that reads media, and what `place` fills in."""

    chat: Chat
    system: str
    chat_options: dict[str, Any]
    processor_options: dict[str, Any]
    stop: list[str]
    keep_special_tokens: bool
    share_prompts: bool
    cached_prompts: int

    revision: str | None
    part: ClassVar[tuple[str, str]]  # of a processor: what reads media, and what those are called

    looking: Looking
    takes: Collection[str]  # names of the forward's arguments

    def look(self, processor: Any, around: tuple[str, str]) -> Looking:
        """Prompts as this family's processor reads them."""
        ...


def reader(self: Attentive, fetch: bool = True) -> Reader:
    """What counts tokens of prompts and texts, without the model; CheckpointError where there is no processor."""
    folder = reading_folder(self.model, self.revision, fetch)
    looking = self.look(open_processor(folder, *self.part), ("", ""))
    stops = stop_tokens(looking.processor.tokenizer, more=self.stop)
    return Reader(texts_of(self, looking, stops), looking.words, context_in(folder))


def texts_of(adapter: Attentive, looking: Looking, stops: Sequence[int]) -> Texts:
    """Completions of text behind prompts that are the processor's."""
    return Texts(
        looking.processor.tokenizer,
        stops,
        chat=False,
        write=looking.answered if looking.chat else None,
        keep_special_tokens=adapter.keep_special_tokens,
        cached=1,
    )


def place(adapter: Attentive, model: Any, looking: Looking) -> None:
    """Put `model` and its processor in place: what `_spoken.place` sets, `looking`, `texts` and `takes`."""
    tokenizer = looking.processor.tokenizer
    adapter.looking = looking
    ends = (model.config, model.config.get_text_config(), model.generation_config)
    adapter.texts = texts_of(adapter, looking, stop_tokens(tokenizer, *ends, more=adapter.stop))
    _spoken.place(adapter, model, language_layers(model), looking.processor)
    backbone = model.base_model if adapter.network.split else model
    adapter.takes = _spoken.accepted(backbone.forward)


def encode(self: Attentive, prompts: Sequence[Prompt]) -> list[Inputs]:
    """What the processor makes of each prompt: `input_ids` (L,) and the features of its media."""
    return [self.looking.inputs(prompt) for prompt in prompts]


def features(
    self: Attentive,
    inputs: Sequence[Inputs],
    rows: Int[Tensor, " B"],
    tokens: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, "B T D"]:
    """The hidden state before each step, with gradient."""
    if self.share_prompts and not (self.gradient_checkpointing and torch.is_grad_enabled()):
        return continued(partial(_run, self), _forwarded(self, inputs, rows, mask.sum(1)).select(rows), tokens, mask)
    with _spoken.checkpointed(self.network):
        return _whole(self, [inputs[i] for i in rows.tolist()], tokens, mask)


@without_gradient
def begin(self: Attentive, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: int) -> Steps:
    """Forward every prompt once and stand before the first step of B rows."""
    return Steps(partial(_run, self), _forwarded(self, inputs, rows, torch.full_like(rows, steps)).select(rows))


def _batch(self: Attentive, inputs: Sequence[Inputs], rows: Tensor, steps: Tensor) -> Batch:
    check_room([len(inputs[i]["input_ids"]) for i in rows.tolist()], steps.tolist(), self.context)
    return batch_of(inputs, self.texts.pad_id, self.network.model.base_model, self.takes, self.device)


def _forwarded(self: Attentive, inputs: Sequence[Inputs], rows: Tensor, steps: Tensor) -> Prefix:
    """Prompts with their media, behind each of which `steps` (B,) more tokens of its `rows` fit."""
    asked = _batch(self, inputs, rows, steps)
    hidden, cache = _call(self, asked.ids, asked.mask, asked.positions, None, True, asked.along | asked.pictures)
    return Prefix(hidden[:, -1], cache, asked.mask, asked.following)


def _whole(self: Attentive, inputs: Sequence[Inputs], tokens: Tensor, mask: Tensor) -> Tensor:
    """Prompt and completion of every row in one forward: for networks that must not keep a cache."""
    _check_written(self, tokens, mask)
    asked = _batch(self, inputs, torch.arange(len(inputs)), mask.sum(1))
    said, live = tokens[:, :-1], mask[:, :-1]
    more = {name: torch.cat([value, value.new_zeros(said.shape)], 1) for name, value in asked.along.items()}
    at = asked.following[:, None] + steps_of(live)
    at = at.expand(3, -1, -1) if asked.positions.dim() == 3 else at
    hidden, _ = _call(
        self,
        torch.cat([asked.ids, said], 1),
        torch.cat([asked.mask, live], 1),
        torch.cat([asked.positions, at], -1),
        None,
        False,
        more | asked.pictures,
    )
    return hidden[:, asked.ids.shape[1] - 1 :]


def _check_written(self: Attentive, tokens: Tensor, mask: Tensor) -> None:
    config = self.network.model.config
    names = [f"{kind}_token_{end}" for kind in PLACES for end in ("id", "index")]
    places = {int(place) for name in names if (place := getattr(config, name, None)) is not None}
    found = [place for place in sorted(places) if bool(((tokens == place) & mask).any())]
    if found:
        raise CapabilityError(
            f"a completion holds token {found[0]}, which stands for a {self.looking.sense.one}, and would be taken for "
            "one; set adapter.share_prompts: true and gradient_checkpointing: false."
        )


def _run(self: Attentive, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Text behind the prompts, see `_decoder.py`."""
    spatial = hasattr(self.network.model.base_model, "get_rope_index")
    return _call(self, ids, mask, positions.expand(3, -1, -1) if spatial else positions, cache, True, {})


def _call(
    self: Attentive, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: bool, more: dict[str, Tensor]
) -> tuple[Tensor, Any]:
    given = more | ({"position_ids": positions} if "position_ids" in self.takes else {})
    with mixed_precision(ids.device, self.dtype):
        hidden, cache = self.module(
            input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=keep, **given
        )
    return hidden, cache
