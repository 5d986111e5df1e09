"""Between texts and token ids: chat templates, what ends a text, and padding.

What ends a text is decided here alone, for given texts and for those that a policy writes. A chat template says what
comes behind an assistant's answer; the tokens of that, up to and including the first that stops generation, are the
end. It need not be the tokenizer's `eos_token`: Gemma 3 ends a turn with `<end_of_turn>`, Phi 3.5 with `<|end|>`, and
a base model with a ChatML template with `<|im_end|>`. Where a template ends turns with a special token that nothing
names as a stop, it becomes one, so that what is trained is also where sampling stops.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int

from mmalign.adapters.tokens.turns import turn_ids
from mmalign.core.conversation import Answer, Message, message_text, user_turn
from mmalign.core.errors import ConfigError, DataError, did_you_mean
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.loading.foreign import ModelConfig, Processor, Tokenizer

Chat = bool | Literal["auto"]
Write = Callable[[str], str]  # an answer → the conversation that ends with it, as text

ANSWER = "mmalign answers"  # words that no template has of its own
WITHOUT_TEMPLATE = (
    "a prompt is a conversation, and there is no chat template to write it with; take a chat model, or rows of texts."
)

log = logging.getLogger("mmalign")


@runtime_checkable
class Writer(Protocol):
    """What writes conversations where prompts are put into a template elsewhere."""

    def answered(self, answer: str) -> str:
        """Write a short conversation that ends with `answer`."""
        ...

    def with_turns(self, prompt: Prompt, turns: Sequence[Message], ready: bool) -> str:
        """Write a prompt with `turns` behind it, `ready` for an answer or not."""
        ...


class Texts:
    """A tokenizer with its chat template as it came, for prompts and completions of text.

    A given text is ended once, by `Ending`. What the template writes behind that token (the line break after
    `<|im_end|>`) is not trained, as no completion that stops there holds it; TRL's SFT trains it.

    Args:
        tokenizer: of transformers.
        stop_ids: whatever ends a completion.
        chat: put prompts into the chat template: True, False, or "auto" (if the tokenizer has one).
        system: a system message before every prompt that has none of its own; "" for none.
        chat_options: further variables of the template (`enable_thinking: false`).
        keep_special_tokens: special tokens (but for what ends it) stay in a completion's text.
        cached: texts whose ids are kept.
        writer: what writes conversations where prompts are put into a template elsewhere.

    Raises:
        ConfigError: `chat` or `system` without a template.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_ids: Sequence[int],
        *,
        chat: Chat = "auto",
        system: str = "",
        chat_options: Mapping[str, Any] | None = None,
        keep_special_tokens: bool = False,
        cached: int = 512,
        writer: Writer | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat = bool(tokenizer.chat_template) if chat == "auto" else bool(chat)
        self.system, self.chat_options = system, dict(chat_options or {})
        self.keep_special_tokens = keep_special_tokens
        if self.chat and not tokenizer.chat_template:
            raise ConfigError(
                "chat: true, but the tokenizer has no chat template; set chat: false, or take a chat model."
            )
        if system and not self.chat:
            raise ConfigError("system: is set, but without a chat template it has no place; put it in prompts.")
        self.writer: Writer | None = self if self.chat else writer
        self.ending = ending(tokenizer, stop_ids, self.writer.answered if self.writer else None)
        self._appended = appended(tokenizer)
        self._ids = lru_cache(maxsize=cached)(self._prompt_ids)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a completion."""
        return self.ending.stops

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding token, or the one that ends texts; its places are masked."""
        known = (self.tokenizer.pad_token_id, *self.stop_ids, 0)
        return next(int(i) for i in known if i is not None)

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Return the ids of a prompt, ready to be continued.

        Raises:
            DataError: an empty text without a start token, or a conversation without a template.
        """
        return self._ids(prompt.question, prompt.converses)

    def _prompt_ids(self, question: str, converses: bool) -> tuple[int, ...]:
        if self.chat:
            return self._templated(question, converses)
        if converses:
            raise DataError(WITHOUT_TEMPLATE)
        ids = tuple(self.tokenizer(question)["input_ids"])
        if ids := ids[: len(ids) - len(self._appended)] if self._appended else ids:
            return ids
        if (start := self.tokenizer.bos_token_id) is None:
            raise DataError("a prompt is an empty text, and this tokenizer has no start token to stand for it.")
        return (start,)

    def answered_ids(self, prompt: Prompt, answer: str) -> tuple[int, ...]:
        """Return the ids of a prompt with its answer, ended; in a template, with all that it writes."""
        if self.chat:
            bare = {"role": "assistant", "content": self.ending.bare(answer)}
            turns = answer.turns if isinstance(answer, Answer) else (bare,)
            return self._templated(prompt.question, prompt.converses, *turns)
        return (*self.prompt_ids(prompt), *self.completion_ids(answer))

    def given_ids(self, prompt: Prompt, output: str) -> tuple[list[int], list[bool]]:
        """Return the ids of a given output behind its prompt, ended, and which of them are to be learned.

        Raises:
            DataError: turns that no template writes, or not so that they can be told from the prompt.
        """
        if not isinstance(output, Answer):
            ids = self.completion_ids(output)
            return ids, [True] * len(ids)
        writer = self.writer
        if writer is None:
            raise DataError(
                "an answer calls tools or has several turns, and there is no chat template to write it with; take a "
                "chat model, or rows of texts."
            )

        def ids_of(turns: Sequence[Message], ready: bool) -> list[int]:
            return list(self.tokenizer(writer.with_turns(prompt, turns, ready), add_special_tokens=False)["input_ids"])

        return turn_ids(ids_of, output.turns, self.stop_ids)

    def completion_ids(self, text: str) -> list[int]:
        """Return the ids of a given text by itself, ended once."""
        return self.ending.ended(self.tokenizer(self.ending.bare(text), add_special_tokens=False)["input_ids"])

    def _templated(self, question: str, converses: bool, *answers: Message) -> tuple[int, ...]:
        """Ids of a conversation that ends with the answer, or is ready for one."""
        written = self._written(question, converses, *answers)
        return tuple(self.tokenizer(written, add_special_tokens=False)["input_ids"])

    def answered(self, answer: str) -> str:
        """A short conversation that ends with `answer`."""
        return self._written("Hello", False, {"role": "assistant", "content": answer})

    def with_turns(self, prompt: Prompt, turns: Sequence[Message], ready: bool) -> str:
        """Write a prompt with `turns` behind it, `ready` for an answer or not."""
        return self._written(prompt.question, prompt.converses, *turns, ready=ready)

    def _written(self, question: str, converses: bool, *answers: Message, ready: bool | None = None) -> str:
        messages, tools = turns_of(question, converses)
        return templated(
            self.tokenizer,
            [*under_system(messages, self.system), *answers],
            add_generation_prompt=not answers if ready is None else ready,
            **({"tools": tools} if tools else {}),
            **self.chat_options,
        )

    def tokenize(
        self, outputs: Sequence[str], device: torch.device | str
    ) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Return B texts as completions that end: ids (B, T) and mask (B, T), right-padded, on `device`."""
        ids = [self.completion_ids(text) for text in outputs]
        tokens, mask = padded(ids, self.pad_id, "right")
        return tokens.to(device), mask.to(device)

    def tokenize_behind(
        self, prompts: Sequence[Prompt], outputs: Sequence[str], device: torch.device | str
    ) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Return B given outputs behind their prompts: ids and mask as `tokenize`, and what is learned, (B, T) each."""
        given = [self.given_ids(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]
        tokens, mask = padded([ids for ids, _ in given], self.pad_id, "right")
        spoken, _ = padded([[int(one) for one in row] for _, row in given], 0, "right")
        return tokens.to(device), mask.to(device), spoken.bool().to(device)

    def decode(self, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> list[str]:
        """Return the B texts of completions, without what ends them."""
        texts = []
        for row, live in zip(tokens.tolist(), mask.tolist(), strict=True):
            ids = [i for i, is_live in zip(row, live, strict=True) if is_live]
            texts.append(self.tokenizer.decode(self.ending.cut(ids), skip_special_tokens=not self.keep_special_tokens))
        return texts


def turns_of(question: str, converses: bool) -> tuple[list[Message], list[Any]]:
    """Return messages and tools of a prompt's `question`."""
    if not converses:
        return [user_turn(question)], []
    whole = json.loads(question)
    return whole["messages"], whole.get("tools", [])


def under_system(messages: Sequence[Message], system: str) -> list[Message]:
    """Return messages behind a system message, unless they begin with one of their own or `system` is ""."""
    if not system or (messages and messages[0]["role"] in ("system", "developer")):
        return [*messages]
    return [{"role": "system", "content": system}, *messages]


def templated(written_by: Tokenizer | Processor, messages: Sequence[Mapping[str, Any]], **options: object) -> str:
    """Write a conversation with the chat template of a tokenizer or processor.

    Raises:
        DataError: what the template says of a conversation that it refuses (it may raise as it likes).
    """
    from jinja2 import TemplateError

    try:
        text = written_by.apply_chat_template(list(messages), tokenize=False, **options)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise DataError(f"the chat template refuses a conversation of {roles}: {error}") from error
    require_tools(text, messages, options.get("tools"))
    return text


def require_tools(text: str, messages: Sequence[Mapping[str, Any]], tools: object) -> None:
    """Raise DataError where a template left out what a conversation says of tools: it would be learned without.

    Names of functions, and words of what they returned, stand in any template that knows tools.
    """
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    described = list(tools) if isinstance(tools, list | tuple) else []
    names = [str((entry.get("function") or entry).get("name", "")) for entry in [*described, *calls]]
    results = [re.findall(r"\w+", message_text(message)) for message in messages if message["role"] == "tool"]
    if any(name not in text for name in names) or any(
        words and not any(word in text for word in words) for words in results
    ):
        raise DataError(
            "the chat template writes no tools (their descriptions, calls or results are missing from what it makes); "
            "take a model whose template knows them, or rows without tools."
        )


def padded(
    ids: Sequence[Sequence[int]], pad_id: int, side: Literal["left", "right"]
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Put rows of ids into one tensor (B, L) of at least one column; also return where they are."""
    width = max(1, *(len(row) for row in ids))
    tokens = torch.full((len(ids), width), pad_id, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.bool)
    for i, row in enumerate(ids):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = True
    return tokens, mask


def max_positions(config: ModelConfig) -> int | None:
    """Return the context of a language model in tokens, as its config says; None where it does not."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def stop_tokens(tokenizer: Tokenizer, *configs: ModelConfig, more: Collection[str] = ()) -> tuple[int, ...]:
    """Return every id that ends a text by the tokenizer, any of `configs` (model, generation), or `more`.

    Chat models name several and not all in one place. Raises ConfigError for a text in `more` that is not one token.
    """
    named = [tokenizer.eos_token_id, *(getattr(config, "eos_token_id", None) for config in configs)]
    stop_ids = [i for entry in named for i in (entry if isinstance(entry, list | tuple) else [entry]) if i is not None]
    faults = []
    for text in more:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            special = sorted(tokenizer.all_special_tokens)
            faults.append(
                f"stop: {text!r} is {len(ids)} tokens of this tokenizer; each entry must be one."
                f"{did_you_mean(text, special)} Its special tokens: {', '.join(special)}."
            )
        stop_ids += ids
    if faults:
        raise ConfigError(faults)
    return tuple(dict.fromkeys(int(i) for i in stop_ids))


@dataclass(frozen=True)
class Ending:
    """`end`: the tokens put behind a given text. `stops`: all that end a completion, the last of `end` among them."""

    end: tuple[int, ...]
    stops: tuple[int, ...]
    marks: tuple[str, ...]  # texts of ends: what a given text may already end with

    def bare(self, text: str) -> str:
        """Return a given text without an end that it already has (and blanks behind that)."""
        while mark := next((m for m in self.marks if text.rstrip().endswith(m)), None):
            text = text.rstrip().removesuffix(mark)
        return text

    def ended(self, ids: Sequence[int]) -> list[int]:
        """Return the ids of a bare text, ended once: a stop that is a word of the text is its end."""
        return [*ids] if ids and ids[-1] in self.stops else [*ids, *self.end]

    def cut(self, ids: Sequence[int]) -> list[int]:
        """Return the ids of a completion without what ended it."""
        if self.end and tuple(ids[-len(self.end) :]) == self.end:
            return [*ids[: -len(self.end)]]
        return [*ids[:-1]] if ids and ids[-1] in self.stops else [*ids]


def ending(tokenizer: Tokenizer, stops: Sequence[int], write: Write | None = None) -> Ending:
    """Find what ends a text.

    Args:
        tokenizer: of transformers.
        stops: every id that is named as ending a completion.
        write: the conversation in the chat template; None where prompts are not put into one. A text then ends with
            the tokenizer's `eos_token`, or with the first of `stops`.
    """
    own = tokenizer.eos_token_id
    plain = (own,) if own in stops else tuple(stops[:1])
    end = plain if write is None else (_behind(tokenizer, stops, write) or plain)
    known = tuple(dict.fromkeys([*stops, *end[-1:]]))
    special = set(tokenizer.all_special_ids) | _added(tokenizer)
    marks = [tokenizer.decode([i]) for i in known if i in special]
    if end and end[-1] in special:
        marks.append(tokenizer.decode(list(end)))
    return Ending(end, known, tuple(sorted({m for m in marks if m.strip()}, key=len, reverse=True)))


def _behind(tokenizer: Tokenizer, stops: Sequence[int], write: Write) -> tuple[int, ...]:
    """What the template writes behind an answer, up to what stops there; () if nothing of that does."""
    try:
        _, marker, tail = write(ANSWER).rpartition(ANSWER)
    except Exception as error:  # templates raise what they like
        log.warning("the chat template writes no answered conversation (%s): given texts end with eos_token.", error)
        return ()
    if not marker:
        log.warning(
            "the chat template changes answers; what it puts behind them is not known: given texts end with eos_token."
        )
        return ()
    ids = _ids_behind(tokenizer, tail)
    for kind in (set(stops), set(tokenizer.all_special_ids) | _added(tokenizer)):
        if place := next((n for n, i in enumerate(ids, 1) if i in kind), 0):
            return tuple(ids[:place])
    return ()


def _ids_behind(tokenizer: Tokenizer, tail: str) -> list[int]:
    """Ids of a text that stands behind another one: some tokenizers put a blank before whatever comes first."""
    first = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    both = tokenizer(ANSWER + tail, add_special_tokens=False)["input_ids"]
    if both[: len(first)] == first:
        return list(both[len(first) :])
    return list(tokenizer(tail, add_special_tokens=False)["input_ids"])


def _added(tokenizer: Tokenizer) -> set[int]:
    """Special tokens that were added to the vocabulary and have no role of their own."""
    return {i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}


def appended(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return what the tokenizer puts behind every text (`add_eos_token`): no end of a prompt to be continued."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[start + len(bare) :])
    return ()
