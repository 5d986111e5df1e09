"""What rewards that ask a judge have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mmalign.core.types import Prompt
from mmalign.rewards.models.asking import Answers, Asking, Make
from mmalign.rewards.models.judge import Judge
from mmalign.rewards.models.remote_judge import RemoteJudge


@runtime_checkable
class Answering(Protocol):
    """Whatever answers questions by yes or no."""

    def prepare(self) -> None:
        """Load what is needed, or see that it is there."""
        ...

    def fingerprint(self) -> str:
        """What tells it from others that might answer otherwise."""
        ...

    def __call__(self, questions: Sequence[Prompt]) -> Answers:
        """Answers of N questions."""
        ...


def judge_of(make: Make | None, checkpoint: str, asking: Asking, kind: str) -> Answering:
    """The judge that `asking` describes, for the reward called `kind`: a model here, or one on a server.

    Raises:
        ConfigError: a model that is to be loaded here, where there is nothing to make it with.
    """
    return Judge(make, checkpoint, asking, kind) if asking.server is None else RemoteJudge(checkpoint, asking)


class AsksJudge:
    """What every reward that asks a judge has: `judge` says how it is loaded, `ask(questions)` gives its answers.

    `ask` is None where there is no judge, and may be replaced by whatever answers like one.
    """

    judge: Asking
    ask: Answering | None

    @property
    def isolated(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.judge.isolated

    @property
    def packages(self) -> dict[str, str]:
        """What asking a server takes, with the extra that installs it."""
        return {} if self.judge.server is None else {"httpcore": "remote"}

    def prepare(self) -> None:
        """Load the judge, if there is one, or see that its server answers."""
        if self.ask is not None:
            self.ask.prepare()

    def fingerprint(self) -> str:
        """The judge's own; "" without one."""
        return self.ask.fingerprint() if self.ask is not None else ""
