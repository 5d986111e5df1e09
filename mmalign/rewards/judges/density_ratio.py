"""How much likelier a better model finds an output than a worse one: a reward of any two checkpoints, untrained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import AtLeastOne, Count
from mmalign.core.types import Modality, Prompt, Rollout, Scores, device_of
from mmalign.rewards.functional import density_ratio
from mmalign.rewards.models.reader import Make, Reader, shared_probe

__all__ = ["DensityRatio"]


@dataclass
class DensityRatio:
    """log p_strong(output | prompt) - log p_weak(output | prompt), in nats; of texts, pictures and sounds.

    CDR (Xu et al. 2024, arXiv 2411.02481), for which no reward model is fitted: two checkpoints of one model are
    enough, the later one strong. With what a run trained as `strong` and its start as `weak` it is DPO's implicit
    reward over β (CREAM's self-reward, arXiv 2410.12735). Of texts it is exact. Of pictures and sounds both log-probs
    are denoising errors under one draw of noise and levels, which all outputs of a prompt share (`draws` of them): an
    estimate, up to a constant of the prompt, of which only differences under one prompt mean something.

    Args:
        strong: the better generator: a run directory, a folder or Hub id of a causal language model, or
            {adapter: {name: …}, policy: {name: …}} as in a run file, of any modality.
        weak: the worse one, of the same modality.
        prefix: an instruction that both read before the prompt: what is good here, as a text.
        per: "output", or "token": divided by the weak reader's number of tokens (of texts).
        draws: of noise per prompt, for pictures and sounds.
        seed: of that noise.
        rows: outputs per forward pass.
        range: of the values; those outside it are errors.
    """

    strong: str | dict[str, Any]
    weak: str | dict[str, Any]
    prefix: str = ""
    per: Literal["output", "token"] = "output"
    draws: AtLeastOne = 8
    seed: Count = 0
    rows: AtLeastOne = 16
    range: tuple[float, float] = (-1e6, 1e6)
    make: Make | None = field(default=None, repr=False)

    differentiable = False
    deterministic = True

    better: Reader = field(init=False, repr=False, compare=False)
    worse: Reader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.better = Reader(self.make, self.strong, "strong")
        self.worse = Reader(self.make, self.weak, "weak")
        self.make = None
        kinds = (self.better.policy.modality, self.worse.policy.modality)
        if kinds[0] != kinds[1]:
            raise ConfigError(f"weak: makes {kinds[1]}, and strong makes {kinds[0]}; both must read the same outputs.")

    @property
    def modalities(self) -> frozenset[Modality]:
        """What both readers make."""
        return frozenset({self.better.policy.modality})

    def prepare(self) -> None:
        """Load both readers."""
        _ = self.better.loaded, self.worse.loaded

    def fingerprint(self) -> str:
        """The digests of both readers."""
        return f"{self.better.fingerprint()} {self.worse.fingerprint()}"

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows; `parts` are both log-probs."""
        prompts = [self._instructed(prompt) for prompt in rollout.prompts]
        read = [reader.read(prompts, rollout.output) for reader in (self.better, self.worse)]
        probe = shared_probe(self.better.loaded, read[0], self.draws, self.seed, "density_ratio")
        if probe:
            self._require_one_space(*(each.trajectory["x0"].shape[1:] for each in read))
        strong = self.better.log_prob(read[0], probe, self.rows).cpu()
        weak = self.worse.log_prob(read[1], probe, self.rows).cpu()
        value = density_ratio(strong, weak)
        if self.per == "token":
            if probe or read[1].mask is None:
                raise CapabilityError("per: token divides by tokens, and these outputs have none; set per: output.")
            value = value / read[1].mask.sum(1).clamp(min=1).cpu()
        parts = {"strong": strong.sum(1).float(), "weak": weak.sum(1).float()}
        return Scores.of(value, parts=parts).to(device_of(rollout.output))

    def _instructed(self, prompt: Prompt) -> Prompt:
        return replace(prompt, text=f"{self.prefix} {prompt.text}".strip()) if self.prefix else prompt

    def _require_one_space(self, one: torch.Size, other: torch.Size) -> None:
        if one != other:
            raise CapabilityError(
                f"weak: has latents {tuple(other)}, and strong {tuple(one)}; denoising errors of two autoencoders "
                "cannot be compared, name two checkpoints of one family."
            )
