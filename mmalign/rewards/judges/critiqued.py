"""A reward that reads a critique of the output before it scores it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.options import AtLeastOne, Count
from mmalign.core.tensor import without_gradient
from mmalign.core.types import Modality, Rollout, Scores, Status
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.contract import merge_at, without_value
from mmalign.rewards.judges._around import AroundReward
from mmalign.rewards.models.asking import Make
from mmalign.rewards.models.critic import INSTRUCTION, TEMPLATE, Critic, check_criticised, criticised

__all__ = ["Critiqued"]


@dataclass
class Critiqued(AroundReward):
    """The inner reward of each output with what a critic says of it behind it.

    The critique-based reward model of MM-RLHF (2502.10391), as two models: a critic, and a reward model fitted to pairs
    that annotator `critique` gave critiques of the same critic, instruction and template. Of texts. Critiques are drawn
    by a seed of the row's own, so that a score depends on nothing but prompt, output and `seed`.

    Args:
        inner: the reward model, {name: reward_model, model: …}, or any other reward of texts.
        critic: who writes: a run directory, a language model's folder, or {adapter: …, policy: …}.
        instruction: what the critic is asked, with {prompt} and {output}.
        template: an output with its critique, with {output} and {critique}.
        seed: of the draws.
        rows: outputs that are criticised at once.
    """

    inner: dict[str, Any]
    critic: str | dict[str, Any]
    instruction: str = INSTRUCTION
    template: str = TEMPLATE
    seed: Count = 0
    rows: AtLeastOne = 32
    make: Make | None = field(default=None, repr=False)

    modalities: frozenset[Modality] = field(default=frozenset({"text"}), init=False, repr=False, compare=False)
    differentiable = False

    def __post_init__(self) -> None:
        reward = self._built("critiqued")
        self._template = check_criticised(self.template)
        self._critic = Critic(self.make, self.critic, self.instruction, self.seed, "critic")
        if "text" not in reward.modalities:
            raise ConfigError(f"inner: '{self.inner['name']}' judges {', '.join(sorted(reward.modalities))}, no texts.")
        self.make = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The inner reward's columns, and those that the instruction names."""
        return (*self._critic.instruction.columns, *super().needs)

    def fingerprint(self) -> str:
        """What tells inner reward and critic from any others."""
        return f"{identity(self._inner.reward) or ''} {self._critic.reader.fingerprint()}"

    @without_gradient
    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        texts, why = self._criticised(rollout)
        sound = torch.tensor([row for row in range(len(rollout)) if row in texts], dtype=torch.long)
        lost = torch.tensor([row for row in range(len(rollout)) if row not in texts], dtype=torch.long)
        pieces = []
        if len(sound):
            within = replace(rollout[sound], output=[texts[row] for row in sound.tolist()])
            pieces.append((sound, self._inner(within).to("cpu")))
        if len(lost):
            pieces.append((lost, without_value(len(lost), Status.ERROR, why)))
        return merge_at(pieces, len(rollout), "cpu")

    def _criticised(self, rollout: Rollout) -> tuple[dict[int, str], str]:
        """The texts for the inner reward by row, and why there is none of others: the critic cannot read so much."""
        texts: dict[int, str] = {}
        why = ""
        parts = [range(at, min(at + self.rows, len(rollout))) for at in range(0, len(rollout), self.rows)]
        while parts:
            part = parts.pop(0)
            prompts, outputs = [rollout.prompts[i] for i in part], [rollout.output[i] for i in part]
            try:
                written = self._critic.critiques(prompts, outputs)
            except DataError as error:  # of the longest row
                if len(part) > 1:
                    parts[:0] = [range(i, i + 1) for i in part]
                why = str(error)
                continue
            texts |= {
                i: criticised(self._template, prompt, output, critique)
                for i, prompt, output, critique in zip(part, prompts, outputs, written, strict=True)
            }
        return texts, why
