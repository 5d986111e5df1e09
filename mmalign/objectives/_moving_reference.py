"""A reference that follows the policy: every so many steps it becomes what the policy is then (iterated DPO, DNO)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

from mmalign.core.errors import CapabilityError, CheckpointError
from mmalign.core.protocols import DensityPolicy, HoldsWeights
from mmalign.core.tensor import Tensor


class MovingReference:
    """The policy's trainable weights as they were when the step began that is the last multiple of `every`.

    Steps are counted from 0, at which the reference is the policy's own start; with 0 for `every` it always is.
    """

    def __init__(self, every: int) -> None:
        self.every, self.steps = every, 0
        self.weights: dict[str, Tensor] = {}

    def anchored(self, policy: DensityPolicy) -> DensityPolicy:
        """Begin a step: return the policy with the reference that it has in this step.

        Raises:
            CapabilityError: a policy that cannot compute with weights it had before.
        """
        if not self.every:
            return policy
        if not isinstance(policy, HoldsWeights):
            raise CapabilityError("reference_every: this policy cannot go back to earlier weights; set it to 0.")
        if self.steps and self.steps % self.every == 0:
            self.weights = policy.trained_weights()
        self.steps += 1
        return cast(DensityPolicy, Anchored(policy, self.weights)) if self.weights else policy

    def state_dict(self) -> dict[str, Any]:
        """Return the steps counted and the weights; {} where it never moves."""
        return {"steps": self.steps, "weights": dict(self.weights)} if self.every else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            CheckpointError: a checkpoint of a run whose reference did not move.
        """
        if not self.every:
            return
        if "steps" not in state:
            raise CheckpointError("the checkpoint holds no moving reference; resume with reference_every: 0.")
        self.steps, self.weights = int(state["steps"]), dict(state.get("weights", {}))


class Anchored:
    """A policy whose reference is given weights of its own; everything else is the policy's."""

    def __init__(self, policy: HoldsWeights, weights: Mapping[str, Tensor]) -> None:
        self._policy, self._weights = policy, weights

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, the policy computes with the given weights."""
        return self._policy.holding(self._weights)


__all__ = ["MovingReference"]
