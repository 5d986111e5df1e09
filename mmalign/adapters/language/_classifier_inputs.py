"""A prompt with its output as a classifier reads it: ids that end where the output ends, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch

from mmalign.adapters.bases.transformers_adapter import accepted
from mmalign.adapters.language._looking import Looking, batch_of, surroundings
from mmalign.adapters.tokens.texts import WITHOUT_TEMPLATE, Chat, Texts, max_positions, padded, stop_tokens
from mmalign.core.conversation import shown_with
from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor
from mmalign.core.types import OneOutput, Prompt
from mmalign.loading.foreign import PretrainedModel, Processor, Tokenizer


@runtime_checkable
class Options(Protocol):
    """The options of a reward model that say how it reads."""

    judges: Any
    chat: Chat
    system: str
    chat_options: dict[str, Any]
    processor_options: dict[str, Any]
    cached_prompts: int


@runtime_checkable
class ClassifierInputs(Protocol):
    """How a kind of model reads prompts with outputs."""

    def row(self, prompt: Prompt, output: OneOutput) -> Inputs:
        """Return one row, unpadded, on the CPU; DataError where it is longer than the model's context."""
        ...

    def begins(self, prompt: Prompt) -> Inputs:
        """Return the entry `begins`, the number of tokens before a prompt's output, where that is known."""
        ...

    def batch(self, rows: Sequence[Inputs], device: torch.device | str) -> Mapping[str, Tensor]:
        """Return rows as the arguments of one call of the model, each (B, ...) on `device`."""
        ...


class TextInputs:
    """Prompts and outputs of text: in the chat template, as a pair of texts (encoders), or one after the other."""

    def __init__(self, options: Options, model: PretrainedModel, tokenizer: Tokenizer) -> None:
        chat, system, more = options.chat, options.system, options.chat_options
        stops = stop_tokens(tokenizer, model.config)
        self.texts = Texts(tokenizer, stops, chat=chat, system=system, chat_options=more, cached=512)
        self.takes = accepted(model.forward)
        self.pairs = not hasattr(model, "score")  # transformers calls the last layer so where it reads the last token
        self.context = context_of(model, tokenizer)
        self.pad_id = _padding(model, self.texts.pad_id)

    def row(self, prompt: Prompt, output: OneOutput) -> Inputs:
        """Return `input_ids` (L,), and token types (L,) where the model has them."""
        inputs = self.whole_row(prompt, output)
        _check_length(len(inputs["input_ids"]), self.context)
        return {name: value for name, value in inputs.items() if name in self.takes}

    def whole_row(self, prompt: Prompt, output: str) -> Inputs:
        """Return the same as `row`, however long it is."""
        if prompt.media:
            media = ", ".join(prompt.media)
            raise CapabilityError(f"a prompt carries media ({media}), and this reward model reads text only.")
        if self.pairs and not self.texts.chat:
            if prompt.messages:
                raise DataError(WITHOUT_TEMPLATE)
            made = self.texts.tokenizer(prompt.text, output)
            return {name: torch.tensor(made[name]) for name in ("input_ids", "token_type_ids") if name in made}
        return {"input_ids": torch.tensor(self.texts.answered_ids(prompt, output))}

    def begins(self, prompt: Prompt) -> Inputs:
        """Return how many tokens stand before the output, of models that read from left to right."""
        return {} if self.pairs else {"begins": torch.tensor(len(self.texts.prompt_ids(prompt)))}

    def batch(self, rows: Sequence[Inputs], device: torch.device | str) -> Mapping[str, Tensor]:
        """Pad on the right: encoders look at the first token, decoders do not look ahead."""
        ids, mask = padded([row["input_ids"].tolist() for row in rows], self.pad_id, "right")
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if "token_type_ids" in rows[0]:
            inputs["token_type_ids"] = padded([row["token_type_ids"].tolist() for row in rows], 0, "right")[0]
        return {name: value.to(device) for name, value in inputs.items()} | _no_cache(self.takes)


class MediaInputs:
    """Prompts with pictures whose outputs are texts, or pictures that follow them."""

    def __init__(self, options: Options, model: PretrainedModel, processor: Processor) -> None:
        words = processor.tokenizer
        stops = stop_tokens(words, model.config, model.config.get_text_config())
        self.looking = Looking(
            processor,
            chat=options.chat,
            system=options.system,
            chat_options=options.chat_options,
            options=options.processor_options,
            around=surroundings(model.config, words),
            cached=options.cached_prompts,
        )
        self.looking.end_with(stops)
        self.judges, self.backbone = options.judges, model.base_model
        self.takes, self.outer = accepted(self.backbone.forward), accepted(model.forward)
        self.texts = Texts(words, stops, chat=False)
        self.pad_id = _padding(model, self.texts.pad_id)
        self.context = context_of(model, words)

    def row(self, prompt: Prompt, output: OneOutput) -> Inputs:
        """Return what the processor makes of the prompt with its output."""
        if self.judges == "image":
            messages = shown_with(prompt.messages, "image") if prompt.messages else ()
            with_output = replace(prompt, media={**prompt.media, "output": output}, messages=messages)
            inputs = self.looking.inputs(with_output)
        else:
            inputs = self.looking.inputs(prompt, output)
        _check_length(len(inputs["input_ids"]), self.context)
        return inputs

    def words(self, prompt: Prompt, output: str) -> int:
        """Count the tokens of the prompt and a text, without what its media come to; nothing is decoded."""
        if self.looking.chat:
            return self.looking.words(prompt, output)
        return self.looking.words(prompt) + len(self.texts.completion_ids(output))

    def begins(self, prompt: Prompt) -> Inputs:
        """Return {}: pictures come to a number of tokens that only the whole row tells."""
        return {}

    def batch(self, rows: Sequence[Inputs], device: torch.device | str) -> Mapping[str, Tensor]:
        """Pad on the left, with the positions that the model gives pictures."""
        made = batch_of(rows, self.pad_id, self.backbone, self.takes, device)
        places = {"position_ids": made.positions} if "position_ids" in self.takes else {}
        inputs = {"input_ids": made.ids, "attention_mask": made.mask.long(), **places, **made.along, **made.pictures}
        return inputs | _no_cache(self.outer)


def context_of(model: PretrainedModel, tokenizer: Tokenizer) -> int | None:
    """Return how many tokens fit; None if neither model nor tokenizer says so."""
    known = (max_positions(model.config), tokenizer.model_max_length)
    return min((int(n) for n in known if n is not None and 0 < n < 10**9), default=None)


def _padding(model: PretrainedModel, pad_id: int) -> int:
    """Classifiers take the last token that is not the config's padding: what it names, or `pad_id`, which it then does.

    Where this token also ends texts, the token before is the last one: alike alone, in any batch and in transformers.
    """
    config = model.config.get_text_config()
    config.pad_token_id = model.config.pad_token_id = pad_id if config.pad_token_id is None else config.pad_token_id
    return int(config.pad_token_id)


def _no_cache(takes: frozenset[str]) -> dict[str, Any]:
    return {"use_cache": False} if "use_cache" in takes else {}


def _check_length(length: int, context: int | None) -> None:
    if context is not None and length > context:
        raise DataError(
            f"a prompt with its output is {length} tokens, longer than the model's context of {context}; shorten it, "
            "or leave the row out."
        )
