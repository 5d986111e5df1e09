"""How well a sound and its text agree, by a CLAP model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float

from mmalign.core.options import NotNegative
from mmalign.core.tensor import Tensor, without_gradient
from mmalign.core.types import Audio, Modality, Prompt, Rollout, Scores, Status
from mmalign.rewards.by_row import Known, media_of, read_rows
from mmalign.rewards.engine.contract import mask_empty_prompts
from mmalign.rewards.models.clap_towers import ClapBackend, ClapSource, ReadsClap
from mmalign.rewards.parsing import LONG, Where, answer_of, bounded

__all__ = ["Clap"]


@dataclass
class Clap(ReadsClap):
    """Cosine of sound and text in a CLAP model, in [-1, 1]; differentiable in the samples.

    Judges sounds against their prompts (an empty one is NOT_APPLICABLE); and texts (captions) against the sound they
    were written for, an `Audio` of one row in `prompt.media["audio"]` (or samples (C, S) there and Hz in
    `prompt.meta["rate"]`): without it a row is NOT_APPLICABLE, an empty caption is PARSE_FAIL. A sound that is empty,
    not finite or cannot be read is an ERROR of its row.

    Any rate, number of channels and length: mixed to one channel, resampled, cut into fixed windows whose features are
    averaged (`ClapTowers`). Scores of different checkpoints do not compare: always name the checkpoint with a score.

    Args:
        checkpoint: a transformers folder or Hub id, or a file of laion-clap's original weights.
        backend: `laion` runs a file through laion-clap (extra `laion`); else transformers' ClapModel reads everything.
        processor: where tokenizer and preprocessing lie, if not beside the checkpoint.
        hop: seconds between windows; 0: they do not overlap.
        score: `cosine`, or `logit`, cosine times the model's learned scale.
        prefix: put before every text, as "This is a sound of ".
        where: in a text the answer stands, see `parsing.answer_of`.
    """

    checkpoint: str
    backend: ClapBackend = "auto"
    processor: str = ""
    hop: NotNegative = 0.0
    score: Literal["cosine", "logit"] = "cosine"
    prefix: str = ""
    where: Where = "whole"
    modalities = frozenset({"audio", "text"})
    differentiable = True
    deterministic = True
    version = "2"  # empty prompts have no score

    def __post_init__(self) -> None:
        self._source = ClapSource(self.checkpoint, self.backend, self.processor, self.hop)

    @property
    def packages(self) -> dict[str, str]:
        """What it cannot do without: package by the extra that installs it."""
        return {"laion_clap": "laion"} if self.backend == "laion" else {}

    @property
    def range(self) -> tuple[float, float]:
        """Of the chosen score: [-1, 1] of "cosine", ± the model's scale of "logit", which loads it."""
        bound = 1.0 if self.score == "cosine" else self.towers.scale
        return -bound, bound

    def known_texts(self, prompts: Sequence[Prompt], modality: Modality) -> list[str]:
        """What it will read that is known before outputs are: the prompts of sounds."""
        return [self.prefix + prompt.text for prompt in prompts] if modality == "audio" else []

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B sounds by their prompts, or B captions by the sounds in `media["audio"]`.

        A sound that is empty or not finite is an ERROR; an empty prompt, or a caption without a sound, NOT_APPLICABLE.
        """
        if isinstance(rollout.output, Audio):
            scores = self._agreement(rollout.output, [prompt.text for prompt in rollout.prompts])
            return mask_empty_prompts(scores, rollout.prompts)
        return self._captions(rollout)

    def _agreement(self, audio: Audio, texts: list[str]) -> Scores:
        towers = self.towers
        words = towers.texts([self.prefix + text for text in texts], audio.samples.device)
        return self._scored((towers.sounds(audio) * words).sum(1))

    def _scored(self, cosine: Float[Tensor, " B"]) -> Scores:
        value = cosine if self.score == "cosine" else cosine * self.towers.scale
        bad = ~cosine.detach().isfinite()
        status = torch.where(bad, int(Status.ERROR), int(Status.OK)).to(torch.int8)
        why = ["the sound is empty or not finite" if row else "" for row in bad.tolist()]
        return Scores(value, status, info=why if bool(bad.any()) else None)

    @without_gradient
    def _captions(self, rollout: Rollout) -> Scores:
        known: Known = {}
        sounds: dict[tuple[int, Any], Audio | None] = {}

        def read(prompt: Prompt, caption: str) -> tuple[str, Audio] | None:
            if "audio" not in list(prompt.media):  # `in` alone would decode a file
                return None
            text = bounded(answer_of(caption, self.where), LONG)
            media, rate = media_of(prompt, known), prompt.meta.get("rate")
            sound = sounds.setdefault((id(media), rate), _sound_of(media["audio"], rate))
            return None if sound is None else (text, sound)

        captions, scores = read_rows(read, rollout, self.range[0])
        if captions:
            rows, towers = list(captions), self.towers
            different = {id(sound): sound for _, sound in captions.values()}  # captions of one sound hear it once
            features = {key: towers.sounds(sound.to(towers.device))[0] for key, sound in different.items()}
            words = towers.texts([self.prefix + caption for caption, _ in captions.values()])
            agreement = self._scored(
                (torch.stack([features[id(sound)] for _, sound in captions.values()]) * words).sum(1)
            )
            scores.value[rows], scores.status[rows] = agreement.value.cpu(), agreement.status.cpu()
            if agreement.info:
                reasons = dict(zip(rows, agreement.info, strict=True))
                scores.info = [reasons.get(row) or why for row, why in enumerate(scores.info or [""] * len(scores))]
        return scores


def _sound_of(sound: Tensor | Audio, rate: float | None) -> Audio | None:
    if isinstance(sound, Audio):
        return sound
    return None if rate is None else Audio(sound.reshape(1, -1, sound.shape[-1]), int(rate))
