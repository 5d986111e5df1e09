"""What counts the tokens of a language model's rows before the model is loaded: its tokenizer, template and context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mmalign.adapters.tokens.texts import Texts, max_positions
from mmalign.core.conversation import message_text, without_oldest
from mmalign.core.errors import CheckpointError, DataError, shown
from mmalign.core.files import local_path
from mmalign.core.types import Prompt
from mmalign.loading.files import read_json
from mmalign.loading.folders import READER, downloaded, model_folder
from mmalign.loading.foreign import Processor, Tokenizer
from mmalign.loading.texts import open_config


@dataclass(frozen=True)
class Reader:
    """Counts tokens. `length` of a prompt, raising DataError where it cannot be read; `context` None: nothing says."""

    texts: Texts
    length: Callable[[Prompt], int]
    context: int | None

    def prompt(self, prompt: Prompt) -> int:
        """Count a prompt's tokens in its template, without those of its media. DataError if it cannot be asked."""
        return self.length(prompt)

    def target(self, text: str, prompt: Prompt) -> int:
        """Count the tokens of a given text and its end, behind its prompt. DataError if no template can write it."""
        return len(self.texts.given_ids(prompt, text)[0])

    def shortened(self, prompt: Prompt, over: int) -> Prompt | None:
        """Drop at least `over` of the first tokens of a prompt's text; None where nothing would be left."""
        wanted = self.prompt(prompt) - over
        return without_first(self.texts.tokenizer, prompt, over, lambda shorter: self.prompt(shorter) <= wanted)


@dataclass(frozen=True)
class PairReader:
    """Counts tokens of a prompt with one of its outputs, as a reward model reads them; `context` as of `Reader`."""

    tokenizer: Tokenizer
    length: Callable[[Prompt, str], int]
    context: int | None

    def pair(self, prompt: Prompt, output: str) -> int:
        """Count the tokens of both together, without those of media. DataError if they cannot be read."""
        return self.length(prompt, output)

    def shortened(self, prompt: Prompt, output: str, over: int) -> Prompt | None:
        """Drop at least `over` of the first tokens of a prompt's text; None where nothing would be left."""
        wanted = self.pair(prompt, output) - over
        return without_first(self.tokenizer, prompt, over, lambda shorter: self.pair(shorter, output) <= wanted)


def without_first(tokenizer: Tokenizer, prompt: Prompt, over: int, fits: Callable[[Prompt], bool]) -> Prompt | None:
    """Drop the first `over` tokens of a prompt's text, or more until it `fits`; None where nothing is left.

    A conversation loses its oldest turns instead, the system's stay; one about media is not cut.
    """
    if prompt.messages:
        shorter = prompt
        while not shorter.media and (messages := without_oldest(shorter.messages)):
            shorter = replace(shorter, messages=messages)
            if fits(shorter):
                return shorter
        return None
    ids = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    for gone in range(over, len(ids)):
        shorter = replace(prompt, text=tokenizer.decode(ids[gone:]))
        if shorter.text.strip() and fits(shorter):
            return shorter
    return None


def reading_folder(model: str, revision: str | None, fetch: bool) -> Path:
    """Return the local folder with tokenizer and config of `model`; of a Hub id those files, downloaded if `fetch`.

    Raises:
        CheckpointError: they are not here, and could or should not be fetched.
    """
    if local_path(model) is None and not fetch:
        from huggingface_hub import try_to_load_from_cache

        try:
            config = try_to_load_from_cache(model, "config.json", revision=revision)
        except ValueError as error:
            raise CheckpointError(f"{shown(model, 80)}: no folder, and no Hub id ({error})") from None
        if not isinstance(config, str):
            raise CheckpointError(f"{model} is not on this machine")
    wanted, advice = "a model folder (with config.json)", "save_pretrained(folder) of transformers makes one."
    folder = model_folder(model, wanted, advice, lambda: downloaded(model, revision, READER, local=not fetch))
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder / 'config.json'}: missing")
    return folder


def context_in(folder: Path) -> int | None:
    """Return the most tokens that the model of `folder` takes, by its config.json, or by what its class fills in."""
    entries = read_json(folder / "config.json", "copy it again")
    parted = any(isinstance(value, dict) for name, value in entries.items() if name.endswith("_config"))
    if not parted and isinstance(most := entries.get("max_position_embeddings"), int):
        return most  # making the configuration imports torch
    return max_positions(open_config(folder))


def refuse_markers(prompt: Prompt, processor: Processor, kind: str, chat: bool) -> None:
    """Raise DataError where a prompt's text holds more of the processor's places for media than there are media for.

    A template writes the places itself, so that none may stand in the text; without one, those in the text are filled.
    """
    names = {f"{kind}_token", "boi_token"} if kind == "image" else {f"{kind}_token"}
    room = 0 if chat else len(prompt.media)
    for mark in sorted({m for name in names if (m := getattr(processor, name, None))}):
        words = [message_text(message) for message in prompt.messages] or [prompt.text]
        if (count := sum(text.count(mark) for text in words)) > room:
            instead = "the chat template writes it" if chat else f"or give it that many (it has {len(prompt.media)})"
            raise DataError(
                f"the prompt's text holds {mark} {count} times, a place for {kind}: take it out, {instead}."
            )
