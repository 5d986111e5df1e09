"""Prompts with pictures as model inputs: processor and chat template once per prompt, and batches of what they made.

A processor's tensors are of three kinds: along the tokens (ids, token types), along the pictures of a prompt (pixels by
picture, tile or patch, grid sizes), and masks of the padding, which are made anew for every batch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from jaxtyping import Bool, Int

from mmalign.adapters.language._reader import refuse_markers
from mmalign.adapters.tokens.texts import WITHOUT_TEMPLATE, Chat, appended, ending, stop_tokens, templated, under_system
from mmalign.core.conversation import Answer, Message, places_in
from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.protocols import Inputs
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt
from mmalign.loading.foreign import ModelConfig, PretrainedModel, Processor, Tokenizer
from mmalign.media.kinds import NOUNS


@dataclass(frozen=True, kw_only=True)
class Sense:
    """What a prompt's media are (`one` of them in words) and how they reach a processor (`kind` in its templates).

    `read` makes of one medium (its name, its value, the processor) what the processor takes, and refuses what it cannot
    take; `given` makes of all of them (with the processor and the options of its call) the arguments of the call.
    """

    kind: str
    one: str
    read: Callable[[str, Any, Any], Any]
    given: Callable[[list[Any], Any, Mapping[str, Any]], dict[str, Any]]


class Looking:
    """A processor with its chat template as it came.

    Args:
        processor: of transformers.
        chat: put prompts into the chat template: True, False, or "auto" (if there is one).
        system: a system message before every prompt; "" for none.
        chat_options: further variables of the template.
        options: of the processor's call (`images_kwargs: {size: …}`).
        around: what stands before and after a picture (or sound) where there is no template to say so.
        sense: what a prompt's media are.
        cached: prompts whose inputs are kept.

    Raises:
        ConfigError: `chat` or `system` without a template.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        chat: Chat = "auto",
        system: str = "",
        chat_options: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        around: tuple[str, str] = ("", ""),
        sense: Sense | None = None,
        cached: int = 64,
    ) -> None:
        self.processor, self.system, self._around, self.sense = processor, system, around, sense or PICTURES
        self.chat_options, self.options = dict(chat_options or {}), dict(options or {})
        template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
        self.chat = bool(template) if chat == "auto" else bool(chat)
        if self.chat and not template:
            raise ConfigError(
                "chat: true, but the processor has no chat template; set chat: false, or take a chat model."
            )
        if system and not self.chat:
            raise ConfigError("system: is set, but without a chat template it has no place; put it in prompts.")
        self.end_with(stop_tokens(processor.tokenizer))
        self._appended = 0 if self.chat else len(appended(processor.tokenizer))
        self._cached, self._kept = cached, OrderedDict[tuple[str, str | None, bytes], Inputs]()
        self._lazy = OrderedDict[int, tuple[Any, bytes]]()  # media that are decoded at each look; held, so ids stay

    def end_with(self, stops: Sequence[int]) -> None:
        """Know every id that is named as ending a text (what the tokenizer names is known)."""
        self.ending = ending(self.processor.tokenizer, stops, self.answered if self.chat else None)

    def inputs(self, prompt: Prompt, answer: str | None = None) -> Inputs:
        """Return `input_ids` (L,), other tensors along the tokens (L,), and those of the pictures, on the CPU.

        Of a prompt to be continued, or of one with its `answer`, ended.

        Raises:
            DataError: the processor cannot take this prompt.
            CapabilityError: media that are no pictures.
        """
        key = (prompt.question, answer, self._shown(prompt.media))
        if key not in self._kept:
            self._kept[key] = self._processed(prompt, answer)
            if len(self._kept) > self._cached:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _shown(self, media: Mapping[str, Any]) -> bytes:
        """What the pictures show; those in files are read once while their prompt is in use."""
        if isinstance(media, dict):
            return _digest(media)
        if id(media) not in self._lazy:
            self._lazy[id(media)] = (media, _digest(media))
            if len(self._lazy) > 4 * self._cached:
                self._lazy.popitem(last=False)
        return self._lazy[id(media)][1]

    def _processed(self, prompt: Prompt, answer: str | None) -> Inputs:
        answer = answer if answer is None or isinstance(answer, Answer) else self.ending.bare(answer)
        media = [self.sense.read(name, value, self.processor) for name, value in prompt.media.items()]
        text = self._written(prompt, len(media), answer)
        options = {**self.options, "text_kwargs": {"add_special_tokens": not self.chat, **self._of("text_kwargs")}}
        if media:
            options |= self.sense.given(media, self.processor, options)
        try:
            processed = self.processor(text=[text], return_tensors="pt", **options)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise DataError(f"the processor refused a prompt with {len(media)} {self.sense.one}s: {error}") from error
        length = processed["input_ids"].shape[1]
        if not length:
            raise DataError("a prompt is an empty text, and this processor has no start token to stand for it.")
        inputs = {
            name: value for name, value in processed.items() if isinstance(value, Tensor) and name != "attention_mask"
        }
        along = {name for name, value in inputs.items() if value.shape == (1, length) and name.endswith("_ids")}
        end = length - self._appended  # what the tokenizer puts behind every text ends no prompt to be continued
        inputs = {name: value[0, :end] if name in along else value for name, value in inputs.items()}
        return inputs if answer is None or self.chat else self._followed(inputs, along, answer)

    def _followed(self, inputs: Inputs, along: Collection[str], answer: str) -> Inputs:
        """The prompt's inputs with the answer's tokens, and the one that ends it, behind; text is of type 0."""
        words = self.processor.tokenizer
        answer_ids = torch.tensor(
            self.ending.ended(words(answer, add_special_tokens=False)["input_ids"]), dtype=torch.long
        )
        longer = {name: torch.nn.functional.pad(inputs[name], (0, len(answer_ids))) for name in along}
        return {**inputs, **longer, "input_ids": torch.cat([inputs["input_ids"], answer_ids])}

    def _of(self, kind: str) -> Mapping[str, Any]:
        return self.options.get(kind) or {}

    def words(self, prompt: Prompt, answer: str | None = None) -> int:
        """Count the tokens of a prompt's text in its template, without what its media come to; nothing is decoded.

        With an `answer` in a template: those of both.

        Raises:
            DataError: the text holds places for media that it has not, or the template refuses it.
        """
        refuse_markers(prompt, self.processor, self.sense.kind, self.chat)
        text = self._written(prompt, len(prompt.media), answer)
        return len(self.processor.tokenizer(text, add_special_tokens=not self.chat)["input_ids"]) - self._appended

    def answered(self, answer: str) -> str:
        """Write a short conversation that ends with `answer`, as the template does."""
        return self._written(Prompt("Hello"), 0, answer)

    def with_turns(self, prompt: Prompt, turns: Sequence[Message], ready: bool) -> str:
        """Write a prompt with `turns` behind it, `ready` for an answer or not, a place for each of its media."""
        return self._written(prompt, len(prompt.media), Answer(turns) if turns else None, ready)

    def _written(self, prompt: Prompt, count: int, answer: str | None = None, ready: bool | None = None) -> str:
        """The prompt's words with a place for each of its media."""
        if others := sorted({*places_in(prompt.messages)} - {self.sense.kind}):
            raise DataError(
                f"the conversation has a place for a {NOUNS[others[0]]}, and this model reads {self.sense.one}s; take "
                "one that reads both, or leave the row out."
            )
        if self.chat:
            content = [{"type": self.sense.kind}] * count + [{"type": "text", "text": prompt.text}]
            turns = prompt.messages or [{"role": "user", "content": content}]
            messages = [in_parts(turn) for turn in under_system(turns, self.system)]
            if isinstance(answer, Answer):
                messages += [in_parts(turn) for turn in answer.turns]
            elif answer is not None:
                messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
            tools = {"tools": list(prompt.tools)} if prompt.tools else {}
            ready = answer is None if ready is None else ready
            return templated(self.processor, messages, add_generation_prompt=ready, **tools, **self.chat_options)
        if prompt.messages:
            raise DataError(WITHOUT_TEMPLATE)
        place, (before, after) = getattr(self.processor, f"{self.sense.kind}_token"), self._around
        return f"{before}{place}{after}" * max(0, count - prompt.text.count(place)) + prompt.text


def in_parts(message: Message) -> Message:
    """Return a message whose content is a list of parts, as processors' templates take it."""
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def surroundings(config: ModelConfig, tokenizer: Tokenizer) -> tuple[str, str]:
    """Return the tokens that a family puts before and after a picture, if its config names them (Qwen-VL)."""
    ids = [getattr(config, name, None) for name in ("vision_start_token_id", "vision_end_token_id")]
    if any(i is None or i >= len(tokenizer) for i in ids):
        return "", ""
    start, end = tokenizer.convert_ids_to_tokens(ids)
    return start, end


def _picture(name: str, value: object, processor: Processor) -> Any:
    """(3, H, W) in [0, 1] as what image processors read."""
    from PIL import Image

    if not (isinstance(value, Tensor) and value.dim() == 3 and value.shape[0] == 3 and value.is_floating_point()):
        kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CapabilityError(
            f"media.{name}: image_text reads pictures (3, H, W) in [0, 1] and this is {kind}; drop the column."
        )
    pixels = (value.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


PICTURES = Sense(kind="image", one="picture", read=_picture, given=lambda pictures, *_: {"images": [pictures]})


def _digest(media: Mapping[str, Any]) -> bytes:
    """The same for the same pixels."""
    digest = blake2b(digest_size=16)
    for name, value in media.items():
        kind = value.shape if isinstance(value, Tensor) else value.rate if isinstance(value, Audio) else ""
        digest.update(f"\0{name}{kind}".encode())
        value = value.samples if isinstance(value, Audio) else value
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


@dataclass(kw_only=True)
class Batch:
    """Left-padded prompts: `along` (U, L) by name, `pictures` of all of them by name, and their positions.

    `positions` (U, L), or (3, U, L) for models that place pictures in space; `following` (U,) comes after the last.
    """

    ids: Int[Tensor, "U L"]
    mask: Bool[Tensor, "U L"]
    along: dict[str, Tensor]
    pictures: dict[str, Tensor]
    positions: Tensor
    following: Int[Tensor, " U"]


def batch_of(
    inputs: Sequence[Inputs], pad_id: int, model: PretrainedModel, names: Collection[str], device: torch.device | str
) -> Batch:
    """Put the inputs of several prompts into one batch for `model` (a backbone whose forward takes `names`)."""
    width = max(len(prompt["input_ids"]) for prompt in inputs)
    ids = _left([prompt["input_ids"] for prompt in inputs], width, pad_id)
    mask = _left([torch.ones_like(prompt["input_ids"]) for prompt in inputs], width, 0).bool()
    along, pictures = {}, {}
    for name in sorted({name for prompt in inputs for name in prompt} - {"input_ids"}):
        sample = next(prompt[name] for prompt in inputs if name in prompt)
        if sample.dim() == 1:  # along the tokens; text has type 0
            rows = [prompt.get(name, torch.zeros_like(prompt["input_ids"])) for prompt in inputs]
            along[name] = _left(rows, width, 0)
        else:
            pictures[name] = _stacked([prompt[name] for prompt in inputs if name in prompt])
    positions = _positions(model, ids, mask, along, pictures)  # before they move: a GPU would wait for each number read
    last = positions.amax(0) if positions.dim() == 3 else positions
    following = last.where(mask, -1).amax(1) + 1
    return Batch(
        ids=ids.to(device),
        mask=mask.to(device),
        along={name: value.to(device) for name, value in along.items() if name in names},
        pictures={name: value.to(device) for name, value in pictures.items() if name in names},
        positions=positions.to(device),
        following=following.to(device),
    )


def _left(rows: Sequence[Tensor], width: int, fill: int) -> Tensor:
    return torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=fill) for row in rows])


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Joined along the first axis; the others are padded with zeros, which models know as no picture."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    padded = []
    for part in parts:
        room = [n for size, now in zip(reversed(shape), reversed(part.shape[1:]), strict=True) for n in (0, size - now)]
        padded.append(torch.nn.functional.pad(part, room))
    return torch.cat(padded)


def _positions(
    model: PretrainedModel, ids: Tensor, mask: Tensor, along: Mapping[str, Tensor], pictures: Mapping[str, Tensor]
) -> Tensor:
    """0, 1, 2, … over what is not padding; in time, height and width for models that say so (Qwen-VL's M-RoPE)."""
    plain = (mask.cumsum(1) - 1).clamp(min=0)
    if not hasattr(model, "get_rope_index"):
        return plain
    types = along.get("mm_token_type_ids", torch.zeros_like(ids))
    if not bool(types.any()):
        return plain.expand(3, -1, -1)
    grids = {name: value for name, value in pictures.items() if name.endswith("_grid_thw")}
    placed: Tensor = model.get_rope_index(ids, mm_token_type_ids=types, attention_mask=mask.long(), **grids)[0]
    return placed
