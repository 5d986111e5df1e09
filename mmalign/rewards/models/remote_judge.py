"""A judge on an OpenAI-compatible server (vLLM, SGLang, llama.cpp, an API): yes or no, asked by HTTP.

The margin is that of the judges that are loaded here: of the first token, log P(yes) - log P(no), each summed over all
its spellings among the 20 likeliest tokens. A word that is none of them is taken to be as likely as it can be: as the
least likely of them, or all that they leave. Where a server gives no log-probs, `samples` answers are drawn: the mass
is the share that says either word, the margin log (yes + ½) - log (no + ½). Pictures go as PNG, sounds as WAV.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from mmalign.core.errors import ConfigError, did_you_mean
from mmalign.core.types import Audio, Prompt
from mmalign.media.audio import audio_bytes
from mmalign.media.image import data_uri
from mmalign.rewards.models.asking import Answers, Asking, each_once
from mmalign.rewards.models.endpoint import Endpoint, Unanswered

__all__ = ["RemoteJudge"]

_TOP = 20  # log-probs that OpenAI's interface gives at most
_WORDS = 4  # tokens of an answer that is drawn
_TRIAL = Prompt("Is water wet? Answer yes or no.")


class RemoteJudge:
    """Asks the model called `checkpoint` on `asking.server`, several questions at once."""

    def __init__(self, checkpoint: str, asking: Asking) -> None:
        if asking.server is None:
            raise ConfigError("judge.server: names no server.")
        self.checkpoint, self.asking, self.server = checkpoint, asking, asking.server
        self.endpoint = Endpoint(self.server)

    def prepare(self) -> None:
        """See that the server is there, has the model, and answers a trial question.

        Raises:
            ConfigError: it does not; says why.
        """
        try:
            served = self.endpoint.ask("GET", "/models").get("data")
        except Unanswered as missing:
            raise ConfigError(f"judge.server: {missing}.") from None
        entries = served if isinstance(served, list) else []
        models = [str(entry.get("id")) for entry in entries if isinstance(entry, dict)]
        if models and self.checkpoint not in models:
            hint = did_you_mean(self.checkpoint, models)
            raise ConfigError(f"judge.server: has no model '{self.checkpoint}'.{hint} It has: {', '.join(models)}.")
        _, _, why = self._answer(_TRIAL)
        if why and "together" not in why:  # neither yes nor no to this question is no fault of the set-up
            raise ConfigError(f"judge.server: {why}.")

    def fingerprint(self) -> str:
        """The digest of where it is and what it is called: what a server's model is made of cannot be seen."""
        return hashlib.sha256(f"{self.server.url} {self.checkpoint} {self.server.samples}".encode()).hexdigest()

    def __call__(self, questions: Sequence[Prompt]) -> Answers:
        """Answers of N questions; each different one is asked once."""
        return each_once(questions, self._answers)

    def _answers(self, questions: Sequence[Prompt], digests: Sequence[bytes]) -> Answers:
        answers = self.endpoint.each(self._answer, questions)
        margin, mass = (torch.tensor([row[at] for row in answers]).float() for at in (0, 1))
        return Answers(margin, mass, [why for _, _, why in answers], [False] * len(answers))

    def _answer(self, question: Prompt) -> tuple[float, float, str]:
        """Margin, mass, and why there is no answer ("": there is one)."""
        try:
            answer = self.endpoint.ask("POST", "/chat/completions", self._request(question))
            yes, no, begins = self._drawn(answer) if self.server.samples else self._likely(answer)
        except (Unanswered, ValueError) as error:
            return math.nan, math.nan, str(error)
        mass = yes + no
        if mass < self.asking.least_mass or mass <= 0:
            why = (
                f"the judge gives {self.asking.yes} and {self.asking.no} together {mass:.2f} of its probability "
                f"(least_mass {self.asking.least_mass:g}); it would begin with {begins!r}"
            )
            return math.nan, mass, why
        if count := self.server.samples:
            return math.log(yes * count + 0.5) - math.log(no * count + 0.5), mass, ""
        return math.log(max(yes, 1e-30)) - math.log(max(no, 1e-30)), mass, ""

    def _request(self, question: Prompt) -> dict[str, Any]:
        content: Any = question.text
        if question.media:
            content = [*map(_shown, question.media.values()), {"type": "text", "text": question.text}]
        request = {"model": self.checkpoint, "messages": [{"role": "user", "content": content}]}
        if self.server.samples:
            return {**request, "n": self.server.samples, "max_tokens": _WORDS, "temperature": 1.0}
        return {**request, "max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": _TOP}

    def _likely(self, answer: Mapping[str, Any]) -> tuple[float, float, str]:
        """P(yes), P(no) and the likeliest token of the first one. Raises ValueError where they are not there."""
        try:
            tokens = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            table = [(str(token["token"]), float(token["logprob"])) for token in tokens]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(
                f"{self.server.url}: gave no log-probs of the first token; set judge.server.samples: 8 to draw answers"
            ) from None
        if not table or not all(logprob <= 1e-3 for _, logprob in table):
            raise ValueError(f"{self.server.url}: gave log-probs that are none: {table[:3]}")
        likely = [(token, math.exp(logprob)) for token, logprob in table]
        most = max(0.0, min(*(p for _, p in likely), 1 - math.fsum(p for _, p in likely)))
        yes, no = (math.fsum(p for token, p in likely if _is(token, word)) or most for word in self._words)
        return min(yes, 1.0), min(no, 1.0), max(likely, key=lambda entry: entry[1])[0]

    def _drawn(self, answer: Mapping[str, Any]) -> tuple[float, float, str]:
        """The shares of drawn answers that begin with yes and with no, and the first of them."""
        try:
            texts = [str(choice["message"]["content"] or "") for choice in answer["choices"]]
        except (KeyError, TypeError):
            texts = []
        if len(texts) != self.server.samples:
            raise ValueError(f"{self.server.url}: gave {len(texts)} of {self.server.samples} answers")
        yes, no = (sum(_is(_first(text), word) for text in texts) / len(texts) for word in self._words)
        return yes, no, texts[0]

    @property
    def _words(self) -> Iterable[str]:
        return self.asking.yes, self.asking.no


def _shown(medium: Any) -> dict[str, Any]:
    """A picture or sound as OpenAI's interface takes it."""
    if isinstance(medium, Audio):
        whole = medium.samples[0] if medium.mask is None else medium.samples[0][:, medium.mask[0]]
        data = base64.b64encode(audio_bytes(whole, medium.rate)).decode()
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return {"type": "image_url", "image_url": {"url": data_uri(medium)}}


def _is(token: str, word: str) -> bool:
    return token.strip(" Ġ▁\n\t").casefold() == word.casefold()


def _first(text: str) -> str:
    """The first word of a text, without what surrounds it."""
    return next(iter(text.split()), "").strip(".,;:!?\"'*`()")
