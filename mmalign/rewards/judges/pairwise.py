"""The outputs of a group against one another, by a principle in words: a judge says which of two is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
from jaxtyping import Int

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import Count, Positive
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Prompt, Rollout, Scores, Status, device_of, modality_of
from mmalign.rewards.by_row import Known, media_of, read_rows
from mmalign.rewards.engine.contract import is_empty
from mmalign.rewards.functional import win_rates
from mmalign.rewards.models.asking import Answers, Asking, Make
from mmalign.rewards.models.asks_judge import Answering, AsksJudge, judge_of
from mmalign.rewards.models.template import Template
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["Pairwise"]

_OWN = ("first", "second", "principle")
_NOUNS = {"image": "pictures", "audio": "sounds", "text": "texts"}


@dataclass(frozen=True)
class Candidate:
    """One readable output: its prompt, its text (None for what is shown), what the judge is shown of it."""

    prompt: Prompt
    text: str | None
    output: Any
    about: Mapping[str, Any]


@dataclass
class Pairwise(AsksJudge):
    """How often a judge holds an output to be better than the others of its group, by a principle; in [0, 1].

    A judge that ranks several outputs of a prompt by a principle in words (RewardAnything 2506.03637), as comparisons
    of two: every pair is asked in both orders, and what the judge adds for a place falls out (`functional.win_rates`).
    Candidates have no names, so that nothing about names can count. The value is the win rate of Direct Nash
    Optimization (2404.03715): preferences need not be transitive.

    An output without a readable rival is NOT_APPLICABLE, one about which no comparison has an answer an ERROR. A text
    that is empty, or too long for the judge beside each of its rivals and longer than they, is PARSE_FAIL. `parts`:
    the readings of `functional.win_rates`, with `place`, the nats that the judge gives to what stands first.

    Args:
        checkpoint: the judge: a folder or Hub id, of any image-text-to-text, audio-text or causal model of
            transformers; for pictures and sounds one that takes two at once.
        principle: what better means, with columns of `Prompt.meta` in braces: "{principle}" is a column's own.
        question: what the judge reads, with {principle}, {prompt}, columns, and for texts {first} and {second}; by
            default one that fits the output.
        reading: the value: the mean `probability` of being better, or the share of `wins`.
        neighbours: each is compared with so many before and behind it in the order of its group, the last with the
            first; 0: with all.
        media: for texts, whether the judge is shown what the prompt is about: `auto`, if there is anything;
            `required`, a row without is NOT_APPLICABLE; `ignored`.
        temperature: divides the strength of a preference.
        where: in a text the answer stands, see `parsing.answer_of`.
        judge: how the judge is loaded and read; its `yes` and `no` are the words for the first and the second, `first`
            and `second` where they are not set.
    """

    checkpoint: str
    principle: str = "The better one does what the request asks."
    question: str = ""
    reading: Literal["probability", "wins"] = "probability"
    neighbours: Count = 0
    media: Literal["auto", "required", "ignored"] = "auto"
    temperature: Positive = 1.0
    where: Where = "whole"
    judge: Asking = field(default_factory=Asking)
    make: Make | None = field(default=None, repr=False)
    modalities = frozenset({"image", "audio", "text"})
    range = (0.0, 1.0)
    differentiable = False
    batch_dependent = True  # a row's score depends on its group: calls are neither split nor cached by row

    def __post_init__(self) -> None:
        faults = [] if self.principle.strip() else ["principle: says nothing; say what better means."]
        if self.question and {"first", "second"} & set(Template(self.question).names) == {"first"}:
            faults.append("question: names {first} and no {second}; name both, or none where they are shown.")
        if faults:
            raise ConfigError(faults)
        if (self.judge.yes, self.judge.no) == ("yes", "no"):
            self.judge = replace(self.judge, yes="first", no="second")
        self.ask: Answering = judge_of(self.make, self.checkpoint, self.judge, "pairwise")
        self.make = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta`."""
        template = Template(self.question or "{principle}")
        principle = Template(self.principle).columns if "principle" in template.names else ()
        return tuple(dict.fromkeys([*(name for name in template.columns if name not in _OWN), *principle]))

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows, whole groups of them."""
        made = modality_of(rollout.output)
        if self.question and ("first" in Template(self.question).names) != (made == "text"):
            raise CapabilityError(
                "question: shows the judge neither text; name {first} and {second}."
                if made == "text"
                else "question: names {first} and {second}, which are shown to the judge; leave them out."
            )
        read, scores = read_rows(partial(self._candidate, made, {}), rollout, self.range[0], self.needs)
        comparisons = Comparisons.within(list(read), rollout.group.tolist(), self.neighbours)
        questions = [
            self._compared(made, read[i], read[j])
            for i, j in zip(comparisons.first.tolist(), comparisons.second.tolist(), strict=True)
        ]
        answers = self.ask(questions) if questions else Answers(torch.zeros(0), torch.zeros(0), [], [])
        self._fill(scores, read, comparisons, answers)
        return scores.to(device_of(rollout.output))

    def _candidate(self, made: Modality, known: Known, prompt: Prompt, output: Any) -> Candidate | None:
        if made != "text":
            return Candidate(prompt, None, output, {})
        text = bounded(answer_of(output, self.where), LONG)
        about = {} if self.media == "ignored" else media_of(prompt, known)
        return None if self.media == "required" and not about else Candidate(prompt, text, None, about)

    def _compared(self, made: Modality, one: Candidate, other: Candidate) -> Prompt:
        """The question that shows `one` first."""
        prompt = one.prompt
        meta = {**prompt.meta, "principle": Template(self.principle).filled(prompt)}
        media = one.about if made == "text" else {"first": one.output, "second": other.output}
        if made == "text":
            meta |= {"first": one.text, "second": other.text}
        question = Template(self.question or _usual(made, not is_empty(prompt)))
        return Prompt(question.filled(Prompt(prompt.text, meta=meta)), media)

    def _fill(self, scores: Scores, read: Mapping[int, Candidate], comparisons: Comparisons, answers: Answers) -> None:
        """Put what the comparisons came to into the scores of the rows that were read."""
        rates = win_rates(answers.margin, comparisons.first, comparisons.second, len(scores), self.temperature)
        info = scores.info or [""] * len(scores)
        for row in read:
            mine = comparisons.of(row)
            scores.value[row] = rates[self.reading][row]
            if not mine:
                scores.status[row] = int(Status.NOT_APPLICABLE)
                info[row] = "there is no other output of its prompt to compare it with"
            elif bool(scores.value[row].isnan()):
                unread = all(answers.too_long[k] for k in mine) and _longest(row, read, comparisons)
                scores.status[row] = int(Status.PARSE_FAIL if unread else Status.ERROR)
                scores.value[row] = self.range[0] if unread else float("nan")
                info[row] = next((answers.why[k] for k in mine if answers.why[k]), "a comparison has no answer")
        scores.parts |= rates
        scores.info = info if any(info) else None


def _longest(row: int, read: Mapping[int, Candidate], comparisons: Comparisons) -> bool:
    """Is it a text, at least as long as each that it is compared with? Then it is the one that is too long."""
    rivals = {int(comparisons.first[k]) for k in comparisons.of(row)} | {
        int(comparisons.second[k]) for k in comparisons.of(row)
    }
    texts = [read[rival].text for rival in rivals]
    own = read[row].text
    return own is not None and all(text is not None and len(text) <= len(own) for text in texts)


def _usual(made: Modality, requested: bool) -> str:
    """What the judge reads, for outputs of a kind, and any request."""
    request = "Request:\n{prompt}\n\n" if requested else ""
    texts = "First:\n{first}\n\nSecond:\n{second}\n\n" if made == "text" else ""
    return f"{{principle}}\n\n{request}{texts}Which of the two {_NOUNS[made]} is better? Answer first or second."


@dataclass(frozen=True)
class Comparisons:
    """P ordered comparisons: the rows that are shown first, and those that are shown second."""

    first: Int[Tensor, " P"]
    second: Int[Tensor, " P"]

    def of(self, row: int) -> list[int]:
        """The numbers of the comparisons of a row."""
        return [int(k) for k in ((self.first == row) | (self.second == row)).nonzero().flatten()]

    @classmethod
    def within(cls, rows: Sequence[int], group: Sequence[int], neighbours: int) -> Comparisons:
        """Both orders of every pair of `rows` that is compared, each within its group."""
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(group[row], []).append(row)
        pairs: dict[tuple[int, int], None] = {}
        for own in groups.values():
            steps = range(1, min(neighbours or len(own), len(own) - 1) + 1)
            for place, step in product(range(len(own)), steps):
                one, other = own[place], own[(place + step) % len(own)]
                pairs |= {(one, other): None, (other, one): None}
        first, second = zip(*pairs, strict=True) if pairs else ((), ())
        return cls(torch.tensor(first, dtype=torch.long), torch.tensor(second, dtype=torch.long))
