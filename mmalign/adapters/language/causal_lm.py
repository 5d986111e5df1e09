"""Any causal language model of transformers: text in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int

from mmalign.adapters.bases.pretrained_adapter import input_dtype, mixed_precision, without_media
from mmalign.adapters.bases.text_adapter import TextAdapter
from mmalign.adapters.bases.transformers_adapter import accepted
from mmalign.adapters.language._reader import Reader, context_in, reading_folder
from mmalign.adapters.tokens.prefix import Prefix, check_room, forward_prompts, whole
from mmalign.adapters.tokens.texts import Texts, padded, stop_tokens
from mmalign.adapters.weights.peft import linear_endings
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.loading.folders import network_folder
from mmalign.loading.foreign import Cache, ModelConfig, PretrainedModel, Tokenizer
from mmalign.loading.networks import open_speaker
from mmalign.loading.texts import open_tokenizer


@dataclass
class CausalLM(TextAdapter):
    """`TokenAdapter` around `AutoModelForCausalLM`.

    Args:
        cached_prompts: prompts whose token ids are kept.
    """

    cached_prompts: AtLeastOne = 4096

    def load_parts(self, device: torch.device) -> None:
        """Open model and tokenizer; a LoRA goes on the linear layers of the backbone."""
        folder = network_folder(self.model, self.revision)
        model = open_speaker(folder, input_dtype(self.train, self.dtype), attention=self.attention)
        tokenizer = open_tokenizer(folder)
        ends = (model.config.get_text_config(), model.generation_config)
        self.texts = self._texts(tokenizer, stop_tokens(tokenizer, *ends, more=self.stop))
        self._positions = "position_ids" in accepted(model.base_model.forward)
        self.place(model, linear_endings(model.base_model), tokenizer, device)

    def model_of(self, config: ModelConfig) -> PretrainedModel:
        """Make the language model of a configuration."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_config(config)

    def reader(self, fetch: bool = True) -> Reader:
        """Return what counts tokens without the model; CheckpointError where there is no tokenizer."""
        folder = reading_folder(self.model, self.revision, fetch)
        tokenizer = open_tokenizer(folder)
        texts = self._texts(tokenizer, stop_tokens(tokenizer, more=self.stop))

        def length(prompt: Prompt) -> int:
            return len(texts.prompt_ids(*without_media([prompt], self.name)))

        return Reader(texts, length, context_in(folder))

    def _texts(self, tokenizer: Tokenizer, stops: Sequence[int]) -> Texts:
        return Texts(
            tokenizer,
            stops,
            chat=self.chat,
            system=self.system,
            chat_options=self.chat_options,
            keep_special_tokens=self.keep_special_tokens,
            cached=self.cached_prompts,
        )

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """Return `input_ids` (L,) of each prompt, in the chat template where one is used."""
        return [{"input_ids": torch.tensor(self.texts.prompt_ids(p))} for p in without_media(prompts, self.name)]

    def forward_prompts(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: Int[Tensor, " B"]) -> Prefix:
        """Forward left-padded prompts, each of them once."""
        return forward_prompts(self.call_network, *self._padded(inputs, rows, steps))

    def forward_whole(
        self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Forward prompt and completion of every row together; hidden states (B, T, D) before each step."""
        ids, seen = self._padded(inputs, rows, mask.sum(1))
        return whole(partial(self.call_network, keep=False), ids[rows], seen[rows], tokens, mask)

    def _padded(self, inputs: Sequence[Inputs], rows: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Left-padded ids and mask of prompts, each of which `steps` (B,) more tokens of its `rows` fit behind."""
        prompts = [prompt["input_ids"].tolist() for prompt in inputs]
        check_room([len(prompts[i]) for i in rows.tolist()], steps.tolist(), self.context)
        ids, mask = padded(prompts, self.pad_id, "left")
        return ids.to(self.device), mask.to(self.device)

    def call_network(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache, keep: bool = True
    ) -> tuple[Tensor, Cache]:
        """Call the network once: hidden states (B, t, D) and the cache, see `prefix.py`."""
        more = {"position_ids": positions} if self._positions else {}
        with mixed_precision(ids.device, self.dtype):
            hidden, cache = self.module(
                input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=keep, **more
            )
        return hidden, cache


__all__ = ["CausalLM"]
