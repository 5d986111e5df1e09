"""Between texts and token ids: chat templates, what ends a completion, and padding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int

from mmalign.adapters.loading.ending import Write, appended, ending
from mmalign.core.errors import ConfigError, DataError, did_you_mean
from mmalign.core.tensor import Tensor

Chat = bool | Literal["auto"]


class Texts:
    """A tokenizer with its chat template as it came, for prompts and completions of text.

    Given texts end as `_ending.py` says, once. What the template writes behind that token (the line break after
    `<|im_end|>`) is not trained, as no completion that stops there holds it; TRL's SFT trains it.

    Args:
        tokenizer: of transformers.
        stop_ids: whatever ends a completion.
        chat: put prompts into the chat template: True, False, or "auto" (if the tokenizer has one).
        system: a system message before every prompt; "" for none.
        chat_options: further variables of the template (`enable_thinking: false`).
        keep_special_tokens: special tokens (but for what ends it) stay in a completion's text.
        cached: texts whose ids are kept.
        write: how an answered conversation reads where prompts are put into a template elsewhere.

    Raises:
        ConfigError: `chat` or `system` without a template.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop_ids: Sequence[int],
        *,
        chat: Chat = "auto",
        system: str = "",
        chat_options: Mapping[str, Any] | None = None,
        keep_special_tokens: bool = False,
        cached: int = 512,
        write: Write | None = None,
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
        self.ending = ending(tokenizer, stop_ids, self._answered if self.chat else write)
        self._appended = appended(tokenizer)
        self.prompt_ids = lru_cache(maxsize=cached)(self._prompt_ids)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every token that ends a completion."""
        return self.ending.stops

    @property
    def pad_id(self) -> int:
        """The tokenizer's, or the token that ends texts; its places are masked."""
        known = (self.tokenizer.pad_token_id, *self.stop_ids, 0)
        return next(int(i) for i in known if i is not None)

    def _prompt_ids(self, text: str) -> tuple[int, ...]:
        """Ids of a prompt, ready to be continued. Raises DataError for an empty text without a start token."""
        if self.chat:
            return self._templated(text)
        ids = tuple(self.tokenizer(text)["input_ids"])
        if ids := ids[: len(ids) - len(self._appended)] if self._appended else ids:
            return ids
        if (start := self.tokenizer.bos_token_id) is None:
            raise DataError("a prompt is an empty text, and this tokenizer has no start token to stand for it.")
        return (start,)

    def answered_ids(self, text: str, answer: str) -> tuple[int, ...]:
        """Ids of a prompt with its answer, ended; in a template, with all that it writes, as classifiers read it."""
        if self.chat:
            return self._templated(text, {"role": "assistant", "content": self.ending.bare(answer)})
        return (*self.prompt_ids(text), *self.completion_ids(answer))

    def completion_ids(self, text: str) -> list[int]:
        """Ids of a given text by itself, ended once."""
        return self.ending.ended(self.tokenizer(self.ending.bare(text), add_special_tokens=False)["input_ids"])

    def _templated(self, text: str, *answers: Mapping[str, str]) -> tuple[int, ...]:
        """Ids of a conversation that ends with the answer, or is ready for one."""
        return tuple(self.tokenizer(self._written(text, *answers), add_special_tokens=False)["input_ids"])

    def _answered(self, answer: str) -> str:
        """A short conversation that ends with `answer`."""
        return self._written("Hello", {"role": "assistant", "content": answer})

    def _written(self, text: str, *answers: Mapping[str, str]) -> str:
        system_turn = [{"role": "system", "content": self.system}] if self.system else []
        return templated(
            self.tokenizer,
            [*system_turn, {"role": "user", "content": text}, *answers],
            add_generation_prompt=not answers,
            **self.chat_options,
        )

    def tokenize(
        self, outputs: Sequence[str], device: torch.device | str
    ) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Completions that end: ids of each text by itself and what ends it, right-padded."""
        ids = [self.completion_ids(text) for text in outputs]
        tokens, mask = padded(ids, self.pad_id, "right")
        return tokens.to(device), mask.to(device)

    def decode(self, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> list[str]:
        """The texts of completions, without what ends them."""
        texts = []
        for row, live in zip(tokens.tolist(), mask.tolist(), strict=True):
            ids = [i for i, is_live in zip(row, live, strict=True) if is_live]
            texts.append(self.tokenizer.decode(self.ending.cut(ids), skip_special_tokens=not self.keep_special_tokens))
        return texts


def templated(written_by: Any, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """A conversation as the chat template of a tokenizer or processor writes it.

    Raises:
        DataError: what the template says of a conversation that it refuses (it may raise as it likes).
    """
    from jinja2 import TemplateError

    try:
        return written_by.apply_chat_template(list(messages), tokenize=False, **options)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        raise DataError(f"the chat template refuses a conversation of {roles}: {error}") from error


def padded(
    ids: Sequence[Sequence[int]], pad_id: int, side: Literal["left", "right"]
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Rows of ids as one tensor of at least one column, and where they are."""
    width = max(1, *(len(row) for row in ids))
    tokens = torch.full((len(ids), width), pad_id, dtype=torch.long)
    mask = torch.zeros(len(ids), width, dtype=torch.bool)
    for i, row in enumerate(ids):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens[i, place] = torch.tensor(row, dtype=torch.long)
        mask[i, place] = True
    return tokens, mask


def stop_tokens(tokenizer: Any, *configs: Any, more: Collection[str] = ()) -> tuple[int, ...]:
    """Every id that ends a text by the word of the tokenizer, of any of `configs` (model, generation), or `more`.

    Chat models name several and not all in one place. Raises ConfigError for a text in `more` that is not one token.
    """
    named = [tokenizer.eos_token_id, *(getattr(config, "eos_token_id", None) for config in configs)]
    ids_found = [i for entry in named for i in (entry if isinstance(entry, list | tuple) else [entry]) if i is not None]
    faults = []
    for text in more:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            special = sorted(tokenizer.all_special_tokens)
            faults.append(
                f"stop: {text!r} is {len(ids)} tokens of this tokenizer; each entry must be one."
                f"{did_you_mean(text, special)} Its special tokens: {', '.join(special)}."
            )
        ids_found += ids
    if faults:
        raise ConfigError(faults)
    return tuple(dict.fromkeys(int(i) for i in ids_found))
