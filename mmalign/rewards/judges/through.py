"""Texts judged by what a frozen generator makes of them: how prompt rewriters are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.files import local_path
from mmalign.core.options import AtLeastOne, Count
from mmalign.core.protocols import Adapter, Policy
from mmalign.core.rng import stream
from mmalign.core.types import Modality, Prompt, Rollout, Scores
from mmalign.loading.exclusive import alone
from mmalign.rewards.by_row import read_rows
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.contract import merge_at
from mmalign.rewards.engine.foreign_code import prepare
from mmalign.rewards.engine.traits import RewardTraits, data_check
from mmalign.rewards.judges._around import row_reward
from mmalign.rewards.models.frozen import beside_digest, weights_digest
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["Through"]

Make = Callable[..., Any]


@runtime_checkable
class Pretrained(Protocol):
    """A part whose option `model` names the checkpoint that it is read from."""

    model: Any


@runtime_checkable
class FromLoRA(Protocol):
    """A part that may start from LoRAs, whose files it knows."""

    def start_files(self) -> list[tuple[Path, float]]:
        """List the files of the LoRAs, each with the weight of its LoRA."""
        ...


@dataclass
class Through:
    """The mean of `inner` over `images` outputs that the generator makes of each text.

    `inner` judges against the original prompt (its text and `meta`), never against the rewrite, which could leave out
    what is hard. Outputs of one prompt share their noise, so rewrites are ranked and not their luck; a text's score
    depends on nothing but prompt, text and `seed`. Parts and confidence of `inner` are averaged like its values. A text
    that is empty, or in which the rewrite cannot be read, is PARSE_FAIL; outputs that `inner` could not score pass on
    their status. Source: PromptEnhancer (arXiv 2509.04545), with any reward in AlignEvaluator's place.

    Args:
        generator: {adapter: {name: …}, policy: {name: …}} as in a run file; `policy.generate` is called, no gradient.
        inner: the reward, {name: …, options}; of rows, not of sets.
        images: outputs per text.
        seed: of the noise.
        rows: texts generated from and judged at once.
        where: in a text the rewrite stands, see `parsing.answer_of`; what is around it, as thoughts, is not sent on.
    """

    generator: dict[str, Any]
    inner: dict[str, Any]
    images: AtLeastOne = 1
    seed: Count = 0
    rows: Count = 64
    where: Where = "whole"
    make: Make | None = field(default=None, repr=False)

    modalities = frozenset({"text"})
    differentiable = False

    adapter: Adapter = field(init=False, repr=False, compare=False)
    policy: Policy = field(init=False, repr=False, compare=False)
    judge: Any = field(init=False, repr=False, compare=False)
    _loaded: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        counts = {"images": self.images, "rows": self.rows}
        faults = [f"{name}: must be at least 1." for name, count in counts.items() if count < 1]
        if self.make is None:
            faults.append("reward 'through' builds a generator and a reward from a run file; name it there.")
        if sorted(self.generator) != ["adapter", "policy"]:
            faults.append(f"generator: needs adapter and policy, got {', '.join(sorted(self.generator)) or 'nothing'}.")
        if faults or self.make is None:
            raise ConfigError(faults)
        self.adapter = self.make("adapters", self.generator["adapter"], "generator.adapter")
        self.policy = self.make("policies", self.generator["policy"], "generator.policy", adapter=self.adapter)
        self.judge = row_reward(self.make, self.inner, "inner")
        self.make = None  # what names a reward in the cache must be the same in every process
        if self.policy.modality not in self.judge.modalities:
            raise CapabilityError(
                f"inner: judges {' and '.join(sorted(self.judge.modalities))}, but the generator makes "
                f"{self.policy.modality}."
            )

    @property
    def range(self) -> tuple[float, float]:
        """The declared range of `inner`."""
        return self.judge.range

    @property
    def deterministic(self) -> bool:
        """Whether equal inputs always score the same in `inner`; the generator's noise is fixed."""
        return RewardTraits.of(self.judge).deterministic

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns of `Prompt.meta` that `inner` cannot do without."""
        return RewardTraits.of(self.judge).needs

    @property
    def check_data(self) -> Callable[[Prompt], None]:
        """Raises ValueError where `inner` can never score the row."""
        return data_check(self.judge)

    def fingerprint(self) -> str:
        """The digest of the generator's weights and configuration (of the Hub, its name) and all that names `inner`."""
        model = str(self.adapter.model) if isinstance(self.adapter, Pretrained) else ""
        folder = local_path(model)
        files = sorted(folder.rglob("*.safetensors")) if folder else []
        parts = (
            sorted({file.parent for file in folder.rglob("*.json")}) if folder else []
        )  # schedule and tokenizers too
        begun = self.adapter.start_files() if isinstance(self.adapter, FromLoRA) else []
        started = f" {weights_digest('', [file for file, _ in begun], '', str([w for _, w in begun]))}" if begun else ""
        return f"{weights_digest(model, files, '', beside_digest(*parts))}{started} {identity(self.judge) or ''}"

    @property
    def makes(self) -> Modality:
        """The modality of what the generator makes, which `inner` judges."""
        return self.policy.modality

    def prepare(self) -> None:
        """Load the generator, and what `inner` needs."""
        prepare(self.judge, "inner")
        self._load()

    def _load(self) -> None:
        with alone():
            if not self._loaded:
                self.adapter.load()
                self._loaded = True

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B texts by what the generator makes of them: the mean over `images` outputs each.

        A text of blanks is PARSE_FAIL; of the statuses of one text's outputs the worst counts.
        """
        texts, read = read_rows(self._rewrite, rollout, self.range[0])
        rows = torch.tensor(list(texts), dtype=torch.long)
        sent = replace(rollout, output=[texts.get(row, "") for row in range(len(rollout))])
        pieces = [(part, self._judged(sent[part])) for part in rows.split(self.rows) if len(part)]
        unread = torch.tensor([row for row in range(len(rollout)) if row not in texts], dtype=torch.long)
        return merge_at([*pieces, (unread, read[unread])] if len(unread) else pieces, len(rollout), "cpu")

    def _rewrite(self, prompt: Prompt, output: str) -> str:
        return bounded(answer_of(output, self.where), LONG)

    def made(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Rollout:
        """What the generator makes of B texts, `images` rows each, for the prompts the texts were written for."""
        self._load()
        shown = [Prompt(text) for text in texts for _ in range(self.images)]
        judged = [prompt for prompt in prompts for _ in range(self.images)]
        noise = [stream(self.seed, "through", p.text, i % self.images) for i, p in enumerate(judged)]
        with torch.no_grad():
            output = self.policy.generate(shown, noise).output
        order: dict[str, int] = {}
        group = torch.tensor([order.setdefault(p.text, len(order)) for p in judged])
        return Rollout(prompts=judged, output=output, group=group)

    def _judged(self, rollout: Rollout) -> Scores:
        """Means over each text's outputs: the value, its parts, its confidence."""
        scores = self.judge(self.made(rollout.prompts, rollout.output)).to("cpu")

        def each(values: torch.Tensor) -> torch.Tensor:
            return values.detach().float().view(len(rollout), self.images)

        reasons = [scores.info[i : i + self.images] for i in range(0, len(scores), self.images)] if scores.info else []
        return Scores(
            value=each(scores.value).mean(dim=1),
            # The worst of OK < not applicable < parse failure < error < time-out.
            status=scores.status.view(len(rollout), self.images).amax(dim=1),
            confidence=None if scores.confidence is None else each(scores.confidence).mean(dim=1),
            parts={name: each(part).nanmean(dim=1) for name, part in scores.parts.items()},
            info=[next(filter(None, texts), "") for texts in reasons] or None,
        )
