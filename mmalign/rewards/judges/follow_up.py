"""What people would say next: a language model finds thanks after a good output likelier than a complaint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.options import AtLeastOne
from mmalign.core.types import Prompt, Rollout, Scores, device_of, modality_of, single_outputs
from mmalign.rewards.functional import follow_up_likelihood, mean_log_prob
from mmalign.rewards.models.reader import Make, Reader
from mmalign.rewards.models.template import Template

__all__ = ["FollowUp"]


@dataclass
class FollowUp:
    """The mean of log p(f | prompt, output) over good follow-ups f minus that over bad ones; nats per token.

    Follow-up likelihood (Zhang et al. 2024, arXiv 2409.13948): what a person says next tells how good the answer was,
    and any language model knows how likely that is; nothing is fitted. Each follow-up's log-prob, its end included, is
    divided by its tokens. Texts stand in the context, with what
    their prompts show; pictures and sounds are shown to a reader that sees or hears.
    The paper's sum over categories of feedback is one slot for each of them. `parts` are both means.

    Args:
        checkpoint: who reads: a folder or Hub id of a causal language model, a run directory, or {adapter: {name: …},
            policy: {name: tokens}} as in a run file (of `image_text` and `audio_text` for pictures and sounds).
        good: what people say when they are content.
        bad: what they say when they are not.
        context: what the follow-ups stand behind, with {prompt}, {output} (of texts) and columns of `Prompt.meta`.
        rows: outputs per forward pass.
        range: of the values; those outside it are errors.
    """

    checkpoint: str | dict[str, Any]
    good: list[str]
    bad: list[str] = field(default_factory=list)
    context: str = ""
    rows: AtLeastOne = 16
    range: tuple[float, float] = (-100.0, 100.0)
    make: Make | None = field(default=None, repr=False)

    modalities = frozenset({"text", "image", "audio"})
    differentiable = False
    deterministic = True

    reader: Reader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = [] if self.good else ["good: is empty; name at least one follow-up."]
        faults += [f"{side}: holds an empty follow-up." for side in ("good", "bad") if not all(getattr(self, side))]
        if both := sorted({*self.good} & {*self.bad}):
            faults.append(f"bad: '{both[0]}' is among the good follow-ups, too.")
        if faults:
            raise ConfigError(faults)
        self.reader = Reader(self.make, self.checkpoint, "checkpoint")
        self.make = None
        if self.reader.policy.modality != "text":
            raise ConfigError(
                f"checkpoint: makes {self.reader.policy.modality}; follow-ups are texts, name a language model."
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns of `Prompt.meta` that the context names."""
        return Template(self.context).columns

    def prepare(self) -> None:
        """Load the reader."""
        _ = self.reader.loaded

    def fingerprint(self) -> str:
        """The digest of the reader."""
        return self.reader.fingerprint()

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B rows."""
        kind = modality_of(rollout.output)
        template = Template(self.context or ("{prompt} {output}" if kind == "text" else "{prompt}"))
        if kind == "text" and "output" not in template.names:
            raise CapabilityError("context: shows none of the text that is judged; name {output} in it.")
        prompts = [
            Prompt(template.filled(prompt, output), prompt.media)
            if kind == "text"
            else Prompt(template.filled(prompt), {kind: output})
            for prompt, output in zip(rollout.prompts, single_outputs(rollout.output), strict=True)
        ]
        read = [self.reader.read(prompts, [text] * len(prompts)) for text in (*self.good, *self.bad)]
        means = [
            mean_log_prob(log_prob.cpu(), follow.mask.cpu())
            for log_prob, follow in zip(self.reader.log_probs(read, self.rows), read, strict=True)
            if follow.mask is not None
        ]
        good, bad = means[: len(self.good)], means[len(self.good) :]
        parts = {"good": follow_up_likelihood(good, [])} | ({"bad": -follow_up_likelihood([], bad)} if bad else {})
        return Scores.of(follow_up_likelihood(good, bad), parts=parts).to(device_of(rollout.output))
