"""Prompt conditions, encoded once per distinct text and kept.

Each text is encoded by itself: its condition then does not depend on which texts shared a batch with it, so a resumed
run, whose cache fills in another order, sees the same numbers. Families pad every text to one length.

One thread encodes at a time: fast tokenizers keep how they cut and fill as a state, and encoders move between devices.

A prompt longer than the encoder reads is cut as its pipeline cuts it, but never in silence.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from mmalign.core.cuts import brief, count_cut, counting_cuts
from mmalign.core.encoded import Kept
from mmalign.core.errors import MmalignWarning
from mmalign.core.protocols import Condition
from mmalign.core.tensor import Module, Tensor
from mmalign.loading.foreign import Tokenizer


@dataclass(kw_only=True)
class KeptTexts:
    """A least-recently-used cache, on the CPU, of what `encode_text` makes of one text.

    `on_disk` keeps what was made of whole texts; one that was cut is encoded by each run, which says so. `hits` and
    `misses` count distinct texts per call.
    """

    encode_text: Callable[[str], Mapping[str, Tensor]]
    capacity: int = 512
    on_disk: Kept | None = None
    hits: int = 0
    misses: int = 0
    _kept: OrderedDict[str, Condition] = field(default_factory=OrderedDict, repr=False)
    _cut: dict[str, list[str]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def look_up(self, distinct: Sequence[str]) -> dict[str, Condition]:
        """Return what was made of each of some different texts; what is not known is made now."""
        with self._lock:
            return self._looked_up(distinct)

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Inside it texts are encoded."""
        with torch.no_grad():
            yield

    def _looked_up(self, distinct: Sequence[str]) -> dict[str, Condition]:
        conditions = {text: self._kept[text] for text in distinct if text in self._kept}
        fresh = [text for text in distinct if text not in conditions]
        for text in conditions:  # kept ones are as short as they were
            for reader in self._cut.get(text, ()):
                count_cut(reader, text)
        self.hits, self.misses = self.hits + len(conditions), self.misses + len(fresh)
        if self.on_disk is not None:
            kept = {text: self.on_disk.read(text) for text in fresh}
            conditions |= {text: entry for text, entry in kept.items() if entry is not None}
            fresh = [text for text in fresh if text not in conditions]
        if fresh:
            with self.encoding():
                for text in fresh:
                    with counting_cuts() as cuts:
                        conditions[text] = {name: value.cpu() for name, value in self.encode_text(text).items()}
                    self._cut[text] = [reader for reader, _ in cuts.texts]
                    if self.on_disk is not None and not cuts.texts:
                        self.on_disk.write(text, conditions[text])
        for text in distinct:
            self._kept[text] = conditions[text]
            self._kept.move_to_end(text)
        while len(self._kept) > self.capacity:
            self._cut.pop(self._kept.popitem(last=False)[0], None)
        return conditions


@dataclass(kw_only=True)
class Conditions(KeptTexts):
    """Conditions of batches; what `encode_text` makes of one text are tensors of shape (1, ...).

    `encode_negative` makes the condition of the negative prompt; it is kept on `device` for good. `encoders` are moved
    to `device` while they work and, with `offload`, back to the CPU after.
    """

    encode_negative: Callable[[], Condition]
    encoders: Sequence[Module]
    device: torch.device
    offload: bool = False
    _negative: Condition | None = field(default=None, repr=False)

    def __call__(self, texts: Sequence[str]) -> Condition:
        """Conditions for B texts on `device`, every entry (B, ...)."""
        distinct = list(dict.fromkeys(texts))
        conditions = self.look_up(distinct)
        rows = torch.tensor([distinct.index(text) for text in texts], device=self.device)
        return {
            name: torch.cat([conditions[text][name] for text in distinct]).to(self.device).index_select(0, rows)
            for name in conditions[distinct[0]]
        }

    def unconditional(self, rows: int) -> Condition:
        """Return the negative prompt's condition for `rows` rows, every entry (rows, ...) on `device`."""
        with self._lock:
            if self._negative is None:
                with self.encoding():
                    self._negative = {name: value.to(self.device) for name, value in self.encode_negative().items()}
            negative = self._negative
        return {name: value.expand(rows, *value.shape[1:]) for name, value in negative.items()}

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Inside it the encoders are on `device`."""
        for encoder in self.encoders:
            encoder.to(self.device)
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            if self.offload:
                for encoder in self.encoders:
                    encoder.to("cpu")


def warn_if_cut(
    family: str, text: str, tokens: int, room: int, advice: str = "raise max_sequence_length or shorten it"
) -> None:
    """Warn where a prompt of `tokens` tokens is longer than the `room` there is for it; `advice` says what to do.

    It is counted, too, by whoever counts (`core.cuts.counting_cuts`).
    """
    if tokens > room:
        count_cut(family, text)
        warnings.warn(
            f"{family}: the last {tokens - room} of {tokens} tokens of the prompt '{brief(text)}' are cut; {advice}.",
            MmalignWarning,
            stacklevel=2,
        )


def warn_if_clip_cuts(family: str, text: str, *tokenizers: Tokenizer) -> None:
    """Warn as `warn_if_cut` does, for the shortest context of CLIP's encoders, which is fixed."""
    if text and tokenizers:
        rooms = {tokenizer.model_max_length: tokenizer for tokenizer in tokenizers}
        room = min(rooms)
        warn_if_cut(family, text, token_count(rooms[room], text), room, "CLIP reads no more; shorten it")


def token_count(tokenizer: Tokenizer, text: str) -> int:
    """Count the tokens of an uncut text, those that the tokenizer puts at its ends included."""
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)
