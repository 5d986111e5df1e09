"""A frozen model of text, pictures or sounds that is asked questions and answers yes or no, as a probability.

Only the first answer token is looked at: one forward, nothing is written. Questions about one picture or sound, or
behind one text, share its forward: what they begin with is computed once, the rest of each behind it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float

from mmalign.core.errors import CapabilityError, ConfigError, DataError, MmalignWarning
from mmalign.core.files import local_path
from mmalign.core.protocols import Inputs, TokenAdapter
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Prompt
from mmalign.loading.exclusive import alone
from mmalign.loading.files import check_size
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.functional import yes_no_margin
from mmalign.rewards.models.answer_words import AnswerWords, answer_words
from mmalign.rewards.models.asking import Answers, Asking, Make, each_once
from mmalign.rewards.models.frozen import beside_digest, stamp, weight_files, weights_digest
from mmalign.rewards.models.shared_prefix import Cut, behind_prefixes

_LOADED: WeakValueDictionary[str, Any] = WeakValueDictionary()  # adapters, by what they were made of
_ALIKE = 200  # characters: texts that begin so are forwarded together as far as they agree


@runtime_checkable
class WritesText(TokenAdapter, Protocol):
    """An adapter whose tokens are words: what can be a judge."""

    texts: Any  # the tokenizer and the chat template
    context: int | None  # tokens that it reads at most, where that is known


class Judge:
    """Asks the model `checkpoint` (a folder or Hub id); loaded at the first question, shared by equal judges."""

    def __init__(self, make: Make | None, checkpoint: str, asking: Asking, kind: str) -> None:
        if make is None:
            raise ConfigError(f"reward '{kind}' builds its judge from a run file; use mmalign.load_reward.")
        self.checkpoint, self.asking = checkpoint, asking
        spec = {"name": self._kind(), "train": "frozen", **asking.adapter, "model": checkpoint}
        self._adapter = make("adapters", spec, "judge.adapter")
        self._key = json.dumps([spec, stamp(local_path(checkpoint))], sort_keys=True, default=str)

    def __getstate__(self) -> dict[str, Any]:
        """Without what was loaded: another process loads its own."""
        return {key: value for key, value in self.__dict__.items() if key not in ("model", "words")}

    def _kind(self) -> str:
        if (folder := local_path(self.checkpoint)) is None:
            return "image_text"
        files = [folder / f"{part}_config.json" for part in ("preprocessor", "processor")]
        for file in files:
            check_size(file)
        configs = " ".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        if "feature_extractor" in configs and "image_processor" not in configs:
            return "audio_text"
        return "image_text" if configs else "causal_lm"

    @cached_property
    def model(self) -> WritesText:
        """The loaded adapter."""
        with alone():
            if (adapter := _LOADED.get(self._key)) is None:
                with preserve_rng_state():
                    adapter = replace(self._adapter).load()  # the unloaded one stays: it can go to another process
                _LOADED[self._key] = adapter
        if not isinstance(adapter, WritesText):
            raise CapabilityError("judge.adapter: a judge answers in words; name image_text, audio_text or causal_lm.")
        return adapter

    @cached_property
    def words(self) -> AnswerWords:
        """The tokens that mean yes and no; warns where one is in doubt."""
        words = answer_words(self.model.texts.tokenizer, self.asking.yes, self.asking.no)
        for doubt in words.doubts:
            warnings.warn(f"judge {self.checkpoint}: {doubt}.", MmalignWarning, stacklevel=2)
        return words

    def prepare(self) -> None:
        """Load the model, and find the words."""
        _ = self.words

    def fingerprint(self) -> str:
        """The digest of weights, tokenizer, template and processor; of a Hub model, its name."""
        folder = local_path(self.checkpoint)
        return weights_digest(self.checkpoint, weight_files(folder), "judge", beside_digest(folder))

    @without_gradient
    def __call__(self, questions: Sequence[Prompt]) -> Answers:
        """Answers of N questions; each different one is asked once."""
        return each_once(questions, self._answers)

    def _answers(self, questions: Sequence[Prompt], pictures: Sequence[bytes]) -> Answers:
        margin, mass = (torch.full((len(questions),), float("nan")) for _ in range(2))
        answers = Answers(margin, mass, [""] * len(questions), [False] * len(questions))
        for start in range(0, len(questions), self.asking.rows):
            inputs = {
                n: made
                for n in range(start, min(start + self.asking.rows, len(questions)))
                if (made := self._read(questions[n], n, answers)) is not None
            }
            if not inputs:
                continue
            rows = list(inputs)
            logits = self._logits([questions[n] for n in rows], list(inputs.values()), [pictures[n] for n in rows])
            some, sure = yes_no_margin(logits, self.words.yes, self.words.no)
            margin[rows], mass[rows] = some.cpu(), sure.cpu()
            self._doubted(rows, logits, answers)
        return answers

    def _read(self, question: Prompt, n: int, answers: Answers) -> Inputs | None:
        """The model's inputs, or None with the reason noted."""
        try:
            inputs: Inputs = self.model.encode([question])[0]
        except DataError as error:
            answers.why[n] = str(error)
            return None
        length, context = len(inputs["input_ids"]), self.model.context
        if length < 2:
            answers.why[n] = "the question is a single token"
            return None
        if context is not None and length >= context:
            answers.why[n] = f"the question is {length} tokens long and the judge reads {context}"
            answers.too_long[n] = True
            return None
        return inputs

    def _logits(
        self, questions: Sequence[Prompt], inputs: Sequence[Inputs], pictures: Sequence[bytes]
    ) -> Float[Tensor, "N V"]:
        """Logits of the first answer token."""
        model = self.model
        numbers = torch.arange(len(inputs), device=model.device)
        if (cut := self._cut(questions, inputs, pictures)) is None:
            features = model.begin(inputs, numbers, 0).features
        else:
            tokens, mask = cut.tokens.to(model.device), cut.mask.to(model.device)
            states = model.features(cut.prefixes, cut.rows.to(model.device), tokens, mask)
            features = states[numbers, cut.lengths.to(model.device)]
        return model.logits(features).float()

    def _cut(self, questions: Sequence[Prompt], inputs: Sequence[Inputs], pictures: Sequence[bytes]) -> Cut | None:
        """The beginnings that questions share; None where none do, or where cut they are longer than the context."""
        alike = [
            picture or question.text[:_ALIKE].encode() for question, picture in zip(questions, pictures, strict=True)
        ]
        if len(set(alike)) == len(alike):
            return None
        placed: frozenset[int] = frozenset()
        if (first := next((n for n, picture in enumerate(pictures) if picture), None)) is not None:
            # What a picture adds to the ids must not be cut off from it.
            plain = self.model.encode([Prompt(questions[first].text)])[0]["input_ids"]
            placed = frozenset(inputs[first]["input_ids"].tolist()) - frozenset(plain.tolist())
        cut = behind_prefixes(inputs, alike, placed)
        longest = max(len(prefix["input_ids"]) for prefix in cut.prefixes) + cut.tokens.shape[1]
        return cut if self.model.context is None or longest <= self.model.context else None

    def _doubted(self, rows: Sequence[int], logits: Float[Tensor, "N V"], answers: Answers) -> None:
        """Take back answers in which yes and no together are unlikely."""
        for place, n in enumerate(rows):
            if float(answers.mass[n]) < self.asking.least_mass:
                beginning = self.model.texts.tokenizer.decode([int(logits[place].argmax())])
                answers.why[n] = (
                    f"the judge gives {self.asking.yes} and {self.asking.no} together {float(answers.mass[n]):.2f} of "
                    f"its probability (least_mass {self.asking.least_mass:g}); it would begin with {beginning!r}"
                )
                answers.margin[n] = float("nan")
