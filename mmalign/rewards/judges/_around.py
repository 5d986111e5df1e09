"""What rewards have in common that are made of another one, which they are given as the option `inner`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt
from mmalign.rewards import Guarded
from mmalign.rewards.engine.traits import data_check
from mmalign.rewards.models.asking import Make

__all__ = ["AroundReward", "row_reward"]


class AroundReward:
    """A reward around `inner`, a reward of rows; what it does not say itself is the inner reward's."""

    inner: dict[str, Any]
    make: Make | None
    _inner: Guarded

    def _built(self, kind: str) -> Any:
        """The inner reward, also guarded as `_inner`; ConfigError unless a run file builds it and it judges rows."""
        if self.make is None:
            raise ConfigError(f"reward '{kind}' is built of another reward; use mmalign.load_reward or a run file.")
        reward = row_reward(self.make, self.inner, "inner")
        self._inner = Guarded("inner", reward, monitor=True)
        return reward

    @property
    def range(self) -> tuple[float, float]:
        """The range of the inner reward."""
        low, high = self._inner.range
        return low, high

    @property
    def needs(self) -> tuple[str, ...]:
        """The inner reward's columns."""
        return self._inner.traits.needs

    @property
    def deterministic(self) -> bool:
        """Whether equal inputs score the same in the inner reward."""
        return self._inner.traits.deterministic

    @property
    def batch_dependent(self) -> bool:
        """Whether rows count for one another in the inner reward."""
        return self._inner.traits.batch_dependent

    @property
    def check_data(self) -> Callable[[Prompt], None]:
        """Raises ValueError where the inner reward can never score a row."""
        return data_check(self._inner.reward)

    def prepare(self) -> None:
        """Load what the inner reward needs."""
        self._inner.prepare()


def row_reward(make: Make, spec: dict[str, Any], at: str) -> Any:
    """The reward that `spec` names, at the option `at`; ConfigError where it judges sets."""
    reward = make("rewards", spec, at)
    if not callable(reward):
        raise ConfigError(f"{at}: '{spec['name']}' judges sets, not rows; name a reward of rows.")
    return reward
