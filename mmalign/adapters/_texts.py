"""Between texts and token ids: chat templates, what ends a completion, and padding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mmalign.core.errors import ConfigError, DataError, did_you_mean

Chat = bool | Literal["auto"]


class Texts:
    """A tokenizer with its chat template as it came, for prompts and completions of text.

    Args:
        tokenizer: of transformers.
        stop_ids: whatever ends a completion.
        chat: put prompts into the chat template: True, False, or "auto" (if the tokenizer has one).
        system: a system message before every prompt; "" for none.
        chat_options: further variables of the template (`enable_thinking: false`).
        keep_special_tokens: special tokens (but for what ends it) stay in a completion's text.
        cached: texts whose ids are kept.

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
    ) -> None:
        self.tokenizer, self.stop_ids = tokenizer, tuple(stop_ids)
        self.chat = bool(tokenizer.chat_template) if chat == "auto" else bool(chat)
        self.system, self.chat_options = system, dict(chat_options or {})
        self.keep_special_tokens = keep_special_tokens
        if self.chat and not tokenizer.chat_template:
            raise ConfigError(
                "chat: true, but the tokenizer has no chat template; set chat: false, or take a chat model."
            )
        if system and not self.chat:
            raise ConfigError("system: is set, but without a chat template it has no place; put it in prompts.")
        self.prompt_ids = lru_cache(maxsize=cached)(self._prompt_ids)

    @property
    def pad_id(self) -> int:
        """The tokenizer's, or the token that ends texts; its places are masked."""
        known = (self.tokenizer.pad_token_id, *self.stop_ids, 0)
        return next(int(i) for i in known if i is not None)

    def _prompt_ids(self, text: str) -> tuple[int, ...]:
        """Ids of a prompt, ready to be continued. Raises DataError for an empty text without a start token."""
        if self.chat:
            return self._templated(text)
        if ids := self.tokenizer(text)["input_ids"]:
            return tuple(ids)
        if (start := self.tokenizer.bos_token_id) is None:
            raise DataError("a prompt is an empty text, and this tokenizer has no start token to stand for it.")
        return (start,)

    def answered_ids(self, text: str, answer: str) -> tuple[int, ...]:
        """Ids of a prompt with its answer, ended."""
        if self.chat:
            return self._templated(text, {"role": "assistant", "content": answer})
        said = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        return (*self.prompt_ids(text), *said, *self._end())

    def _templated(self, text: str, *answers: Mapping[str, str]) -> tuple[int, ...]:
        """Ids of a conversation that ends with the answer, or is ready for one."""
        asked = [{"role": "system", "content": self.system}] if self.system else []
        written = self.tokenizer.apply_chat_template(
            [*asked, {"role": "user", "content": text}, *answers],
            add_generation_prompt=not answers,
            tokenize=False,
            **self.chat_options,
        )
        return tuple(self.tokenizer(written, add_special_tokens=False)["input_ids"])

    def tokenize(
        self, outputs: Sequence[str], device: torch.device | str
    ) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
        """Completions that end: ids of each text by itself and the token that ends it, right-padded."""
        end = self._end()
        ids = [[*self.tokenizer(text, add_special_tokens=False)["input_ids"], *end] for text in outputs]
        tokens, mask = padded(ids, self.pad_id, "right")
        return tokens.to(device), mask.to(device)

    def _end(self) -> list[int]:
        own = self.tokenizer.eos_token_id
        return [own] if own in self.stop_ids else list(self.stop_ids[:1])

    def decode(self, tokens: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> list[str]:
        """The texts of completions, without what ends them."""
        texts = []
        for row, live in zip(tokens.tolist(), mask.tolist(), strict=True):
            ids = [i for i, kept in zip(row, live, strict=True) if kept]
            if ids and ids[-1] in self.stop_ids:
                ids.pop()
            texts.append(self.tokenizer.decode(ids, skip_special_tokens=not self.keep_special_tokens))
        return texts


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
    found = [i for entry in named for i in (entry if isinstance(entry, list | tuple) else [entry]) if i is not None]
    faults = []
    for text in more:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            special = sorted(tokenizer.all_special_tokens)
            faults.append(
                f"stop: {text!r} is {len(ids)} tokens of this tokenizer; each entry must be one."
                f"{did_you_mean(text, special)} Its special tokens: {', '.join(special)}."
            )
        found += ids
    if faults:
        raise ConfigError(faults)
    return tuple(dict.fromkeys(int(i) for i in found))
