"""Language models that answer about the media of a prompt: everything behind what their processor makes of it.

A prompt is forwarded once, its media included, for all rows that continue it. Prompts with and without media may share
a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int

from mmalign.adapters.bases.pretrained_adapter import default_device, input_dtype, mixed_precision
from mmalign.adapters.bases.text_adapter import TextAdapter
from mmalign.adapters.bases.transformers_adapter import accepted, with_towers
from mmalign.adapters.language._looking import Batch, Looking, Sense, batch_of
from mmalign.adapters.language._reader import Reader, context_in, reading_folder
from mmalign.adapters.tokens.prefix import Prefix, check_room
from mmalign.adapters.tokens.prefix import positions as steps_of
from mmalign.adapters.tokens.texts import Texts, stop_tokens
from mmalign.adapters.weights.peft import language_layers
from mmalign.core.errors import CapabilityError
from mmalign.core.options import AtLeastOne
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.loading.folders import network_folder
from mmalign.loading.foreign import Cache, ModelConfig, PretrainedModel, Processor
from mmalign.loading.networks import open_speaker
from mmalign.loading.texts import open_processor

PLACES = ("image", "video", "audio")


@dataclass
class MediaTextAdapter(TextAdapter):
    """A language model with a processor that reads media.

    Args:
        processor_options: of the processor's call, e.g. `{images_kwargs: {size: {longest_edge: 512}}}`.
        cached_prompts: prompts whose ids and media are kept as the processor made them, on the CPU.
    """

    processor_options: dict[str, Any] = field(default_factory=dict)
    cached_prompts: AtLeastOne = 64

    part: ClassVar[tuple[str, str]]  # of a processor: what reads media, and what those are called
    sense: ClassVar[Sense]  # what the media are
    auto_class: ClassVar[str]  # of transformers

    looking: Looking = field(init=False, repr=False, compare=False)
    takes: Collection[str] = field(init=False, repr=False, compare=False)  # names of the forward's arguments

    @abstractmethod
    def model_class(self, folder: Path) -> str:
        """Name the class of transformers that opens the model of `folder`."""

    def model_of(self, config: ModelConfig) -> PretrainedModel:
        """Make the model of a configuration, of the Auto class; ValueError where it is opened as another one."""
        import transformers

        return getattr(transformers, self.auto_class).from_config(config)

    @abstractmethod
    def surroundings(self, model: PretrainedModel, processor: Processor) -> tuple[str, str]:
        """Return the tokens before and after a medium where there is no template to write them."""

    def load_parts(self, device: torch.device) -> None:
        """Open model and processor; a LoRA goes on the linear layers of the language model."""
        folder = network_folder(self.model, self.revision)
        model = open_speaker(folder, input_dtype(self.train, self.dtype), self.model_class(folder), self.attention)
        processor = open_processor(folder, *self.part)
        self.looking = self._looking(processor, self.surroundings(model, processor))
        ends = (model.config, model.config.get_text_config(), model.generation_config)
        self.texts = self._texts(self.looking, stop_tokens(processor.tokenizer, *ends, more=self.stop))
        self.place(model, language_layers(model), processor, device)
        self.takes = accepted((model.base_model if self.network.split else model).forward)

    def reader(self, fetch: bool = True) -> Reader:
        """Return what counts tokens without the model; CheckpointError where there is no processor."""
        folder = reading_folder(self.model, self.revision, fetch)
        looking = self._looking(open_processor(folder, *self.part), ("", ""))
        stops = stop_tokens(looking.processor.tokenizer, more=self.stop)
        return Reader(self._texts(looking, stops), looking.words, context_in(folder))

    def _looking(self, processor: Processor, around: tuple[str, str]) -> Looking:
        """Prompts as the processor reads them; `around` stands about media where there is no template."""
        return Looking(
            processor,
            chat=self.chat,
            system=self.system,
            chat_options=self.chat_options,
            options=self.processor_options,
            around=around,
            sense=self.sense,
            cached=self.cached_prompts,
        )

    def _texts(self, looking: Looking, stops: Sequence[int]) -> Texts:
        """Completions of text behind prompts that are the processor's."""
        return Texts(
            looking.processor.tokenizer,
            stops,
            chat=False,
            writer=looking if looking.chat else None,
            keep_special_tokens=self.keep_special_tokens,
            cached=1,
        )

    def encode(self, prompts: Sequence[Prompt]) -> list[Inputs]:
        """Return what the processor makes of each prompt: `input_ids` (L,) and the features of its media."""
        return [self.looking.inputs(prompt) for prompt in prompts]

    def forward_prompts(self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], steps: Int[Tensor, " B"]) -> Prefix:
        """Forward left-padded prompts with their media, each of them once."""
        batch = self._batch(inputs, rows, steps)
        more = batch.along | batch.pictures
        hidden, cache = self._call(batch.ids, batch.mask, batch.positions, None, True, more)
        return Prefix(last=hidden[:, -1], cache=cache, mask=batch.mask, following=batch.following)

    def forward_whole(
        self, inputs: Sequence[Inputs], rows: Int[Tensor, " B"], tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Forward prompt and completion of every row together; hidden states (B, T, D) before each step."""
        self._check_written(tokens, mask)
        batch = self._batch([inputs[i] for i in rows.tolist()], torch.arange(len(rows)), mask.sum(1))
        before, live = tokens[:, :-1], mask[:, :-1]
        more = {name: torch.cat([value, value.new_zeros(before.shape)], 1) for name, value in batch.along.items()}
        at = batch.following[:, None] + steps_of(live)
        at = at.expand(3, -1, -1) if batch.positions.dim() == 3 else at
        hidden, _ = self._call(
            torch.cat([batch.ids, before], 1),
            torch.cat([batch.mask, live], 1),
            torch.cat([batch.positions, at], -1),
            None,
            False,
            more | batch.pictures,
        )
        return hidden[:, batch.ids.shape[1] - 1 :]

    def call_network(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Forward text behind the prompts, see `prefix.py`."""
        spatial = hasattr(self.network.model.base_model, "get_rope_index")
        return self._call(ids, mask, positions.expand(3, -1, -1) if spatial else positions, cache, True, {})

    def _call(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache, keep: bool, more: dict[str, Tensor]
    ) -> tuple[Tensor, Cache]:
        more = more | ({"position_ids": positions} if "position_ids" in self.takes else {})
        with mixed_precision(ids.device, self.dtype):
            hidden, cache = self.module(
                input_ids=ids, attention_mask=mask.long(), past_key_values=cache, use_cache=keep, **more
            )
        return with_towers(hidden, self.network.model) if self.is_wrapped else hidden, cache

    def _batch(self, inputs: Sequence[Inputs], rows: Tensor, steps: Tensor) -> Batch:
        """Left-padded prompts, each of which `steps` (B,) more tokens of its `rows` fit behind."""
        check_room([len(inputs[i]["input_ids"]) for i in rows.tolist()], steps.tolist(), self.context)
        device = default_device(self.device)
        return batch_of(inputs, self.texts.pad_id, self.network.model.base_model, self.takes, device)

    def _check_written(self, tokens: Tensor, mask: Tensor) -> None:
        config = self.network.model.config
        names = [f"{kind}_token_{end}" for kind in PLACES for end in ("id", "index")]
        places = {int(place) for name in names if (place := getattr(config, name, None)) is not None}
        written = [place for place in sorted(places) if bool(((tokens == place) & mask).any())]
        if written:
            raise CapabilityError(
                f"a completion holds token {written[0]}, which stands for a {self.sense.one}, and would be taken for "
                "one; set adapter.share_prompts: true and gradient_checkpointing: false."
            )
