"""How near each single sound is to an exemplar set: minus the Fréchet distance of its own frames (per-song FAD)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from mmalign.core.files import require_local
from mmalign.core.protocols import FrameEncoder
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Rollout, Scores, Status
from mmalign.rewards.encoders import SeesThroughEncoder, make_encoder, no_side
from mmalign.rewards.functional import frechet_distance
from mmalign.rewards.reference_sets.statistics import Reference, encoder_of, load_reference

__all__ = ["SongFad"]


@dataclass
class SongFad(SeesThroughEncoder):
    """Minus the Fréchet distance between the frames of one sound and the frames of all exemplars; at most 0.

    DRAGON's instance-to-distribution reward. The distance of few frames is biased like 1/frames, so sounds of different
    length do not compare. A sound of fewer than 2 frames is NOT_APPLICABLE, one that is not finite an ERROR.

    Args:
        reference: a folder of sounds, or `.safetensors` statistics made with `mmalign reference --unit frame`.
        encoder: the spec {name: …, options…} of an encoder that gives frames; as for `frechet`.
    """

    reference: str
    encoder: str | dict[str, Any] = ""
    range = (float("-inf"), 0.0)
    deterministic = True

    def __post_init__(self) -> None:
        require_local(self.reference)
        self.encoder = self.encoder or encoder_of(self.reference)
        encoder = make_encoder(self.encoder)
        if not isinstance(encoder, FrameEncoder):
            raise no_side(FrameEncoder, "gives one row per output and no frames")
        self.embedder: FrameEncoder = encoder

    @property
    def modalities(self) -> frozenset[Modality]:
        """Sounds alone, for only they have frames over time."""
        return frozenset({"audio"})

    @cached_property
    def target(self) -> Reference:
        """The frames of the reference, on first use."""
        return load_reference(self.reference, self.embedder, unit="frame")

    def fingerprint(self) -> str:
        """The digest of the encoder and the reference's statistics."""
        fitted = self.target.gaussian
        numbers = torch.cat([fitted.mean, fitted.cov.flatten()]).cpu().numpy().tobytes()
        return f"{self.embedder.fingerprint()} {hashlib.sha256(numbers).hexdigest()[:16]}"

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B sounds: minus the Fréchet distance of each one's own frames to the reference's, at most 0.

        A sound of one frame is NOT_APPLICABLE, one that is not finite an ERROR.
        """
        frames = self.embedder.frames(rollout)
        status = [Status.OK if len(f) > 1 else Status.NOT_APPLICABLE if len(f) else Status.ERROR for f in frames]
        values = [
            self._value(f) if s is Status.OK else f.new_tensor(float("nan"))
            for f, s in zip(frames, status, strict=True)
        ]
        reasons = {Status.OK: "", Status.NOT_APPLICABLE: "fewer than 2 frames", Status.ERROR: "the sound is not finite"}
        info = [reasons[s] for s in status]
        states = torch.tensor([int(s) for s in status], dtype=torch.int8, device=frames[0].device)
        return Scores(torch.stack(values), states, info=info if any(info) else None)

    def _value(self, frames: Tensor) -> Tensor:
        return -frechet_distance(frames, self.target.gaussian).clamp_min(0).float()
