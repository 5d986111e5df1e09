"""A reward model's score: one that `mmalign train` fitted, or any published sequence classifier with one label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.files import local_path
from mmalign.core.options import Count, Positive
from mmalign.core.protocols import ScorePolicy
from mmalign.core.types import Modality, OneOutput, Prompt, Rollout, Scores, Status
from mmalign.loading.exclusive import alone
from mmalign.rewards.models.frozen import beside_digest, weights_digest
from mmalign.rewards.parsing import LONG, Unreadable, Where, answer_of, bounded

__all__ = ["RewardModel"]

Make = Callable[..., Any]


@dataclass
class RewardModel:
    """(score - mean) / std of each output, given its prompt.

    Scores of a Bradley-Terry model have no zero and no unit: only differences under one prompt mean something, so use
    it where rows are compared with their group (`grpo`), or set `mean` and `std` from scores of outputs you know. An
    output that is longer, with its prompt, than the model's context is an ERROR. Learned from people's choices, it is
    right only on outputs like those: watch it beside a judge that was not trained on.

    Args:
        model: a Hub id, a folder that a reward-model run saved, or its run directory (the newest checkpoint).
        user: whose taste counts, where the head tells users apart; "" is what the prompt's column says, or everybody's.
        mean, std: of the scores, taken out of them.
        rows: outputs per forward pass.
        judges: of a published model that reads pictures; folders of mmalign's know it themselves.
        chat: put prompt and output into the chat template; folders of mmalign's know how they were trained.
        dtype: of weights and arithmetic; heads compute in float32.
        device: where it runs; CUDA where there is one.
        range: of the values; those outside it are errors.
        revision: of the Hub.
        where: in a text the answer stands, see `parsing.answer_of`; `output`: all of it, thinking too, as the model was
            fitted on. A text in which it cannot be read is PARSE_FAIL.
    """

    model: str
    user: str = ""
    mean: float = 0.0
    std: Positive = 1.0
    rows: Count = 16
    judges: Literal["text", "image"] = "text"
    chat: bool | Literal["auto"] = "auto"
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str | None = None
    range: tuple[float, float] = (-1000.0, 1000.0)
    revision: str | None = None
    where: Where | Literal["output"] = "output"
    make: Make | None = field(default=None, repr=False)

    differentiable = False
    deterministic = True

    adapter: Any = field(init=False, repr=False, compare=False)
    policy: ScorePolicy = field(init=False, repr=False, compare=False)
    _loaded: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = [f"std: {self.std} must be positive."] if self.std <= 0 else []
        if self.make is None:
            faults.append("reward 'reward_model' builds a model of its own; make it with mmalign.load_reward.")
        if faults or self.make is None:
            raise ConfigError(faults)
        same: dict[str, Any] = {"model": self.model, "judges": self.judges, "chat": self.chat}
        same |= {"dtype": self.dtype, "device": self.device, "revision": self.revision}
        self.adapter = self.make("adapters", {"name": "reward_model", "train": "frozen", **same}, "model")
        self.policy = self.make("policies", {"name": "scorer", "rows": self.rows}, "rows", adapter=self.adapter)
        self.make = None
        users = self.adapter.head.users
        if self.user and self.user not in users:
            raise ConfigError(
                f"user: '{self.user}' is none of this model's users: {', '.join(users) or 'it knows none'}."
            )

    @property
    def modalities(self) -> frozenset[Modality]:
        """The kind of outputs that the model was trained to judge, which is read from its folder."""
        return frozenset({self.policy.modality})

    def fingerprint(self) -> str:
        """The digest of weights, configuration and tokenizer, where they are local."""
        folder = local_path(self.model)
        files = sorted(folder.rglob("*.safetensors")) if folder is not None else []
        folders = dict.fromkeys([folder, *(file.parent for file in files)])
        return weights_digest(f"{self.model} {self.revision}", files, "reward_model", beside_digest(*folders))

    def prepare(self) -> None:
        """Load the model."""
        with alone():
            if not self._loaded:
                self.adapter.load()
                self._loaded = True

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows by the model, (score - mean) / std; a row that it cannot read is an ERROR with the reason."""
        self.prepare()
        adapter, why = self.adapter, [""] * len(rollout)
        read: dict[int, Any] = {}
        status = torch.zeros(len(rollout), dtype=torch.int8)
        for row, (prompt, output) in enumerate(zip(rollout.prompts, rollout.output, strict=True)):
            try:
                read[row] = adapter.read([self._with_user(prompt)], [self._answer(output)])[0]
            except DataError as error:
                why[row], status[row] = str(error), int(Status.ERROR)
            except Unreadable as error:
                why[row], status[row] = str(error), int(Status.PARSE_FAIL)
        value = torch.where(status == int(Status.PARSE_FAIL), self.range[0], float("nan"))
        rows = list(read)
        with torch.no_grad():
            for start in range(0, len(rows), self.rows):
                part = rows[start : start + self.rows]
                value[part] = (adapter.score([read[i] for i in part]).float().cpu() - self.mean) / self.std
        return Scores(value, status, info=why if any(why) else None)

    def _answer(self, output: OneOutput) -> OneOutput:
        """What is scored of an output."""
        if self.where == "output" or not isinstance(output, str):
            return output
        return bounded(answer_of(output, self.where), LONG)

    def _with_user(self, prompt: Prompt) -> Prompt:
        column = self.adapter.head.user_column
        return replace(prompt, meta={**prompt.meta, column: self.user}) if self.user else prompt
