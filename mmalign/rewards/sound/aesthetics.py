"""How pleasing a sound is to Audiobox Aesthetics (Tjandra et al. 2025, arXiv 2502.05139), which hears 16 kHz mono."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch

from mmalign.core.errors import MissingExtra
from mmalign.core.files import require_local
from mmalign.core.packages import stamp_of
from mmalign.core.tensor import Tensor
from mmalign.core.types import Rollout, Scores, Status
from mmalign.loading.exclusive import loading
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.models.frozen import weights_digest
from mmalign.rewards.models.waves import sounding

__all__ = ["Aesthetics"]

AXES = ("CE", "CU", "PC", "PQ")
_PACKAGE, _PUBLISHED = "audiobox-aesthetics", "facebook/audiobox-aesthetics"


@dataclass
class Aesthetics:
    """One axis of the model, or their mean: about 1 to 10. Not differentiable (the model runs in inference mode).

    Windows of 10 s weighted by what they hold, as the package does it. Blind to stereo and to anything above 8 kHz. All
    axes are in `parts`.

    Args:
        axis: CE content enjoyment, CU content usefulness, PC production complexity, PQ production quality; or mean.
        checkpoint: its weights, a file; the published ones by default.
    """

    axis: Literal["CE", "CU", "PC", "PQ", "mean"] = "PQ"
    checkpoint: str = ""
    modalities = frozenset({"audio"})
    range = (-5.0, 15.0)
    differentiable = False
    deterministic = True
    packages: ClassVar[dict[str, str]] = {"audiobox_aesthetics": "aesthetics"}

    def __post_init__(self) -> None:
        # The package would take the published weights in silence for a file that is not there.
        self._file = require_local(self.checkpoint) if self.checkpoint else None

    @cached_property
    def predictor(self) -> Any:
        """The package's own. MissingExtra where it is not installed."""
        try:
            from audiobox_aesthetics.infer import initialize_predictor
        except (ImportError, OSError):
            raise MissingExtra(f"reward aesthetics (package {_PACKAGE})", "aesthetics") from None
        with preserve_rng_state(), loading():
            return initialize_predictor(str(self._file) if self._file else None)

    def fingerprint(self) -> str:
        """The digest of the weights' bytes (published ones go by their name) and of the package, which preprocesses."""
        return weights_digest(_PUBLISHED, [self._file] if self._file else [], stamp_of(_PACKAGE))

    def __call__(self, rollout: Rollout) -> Scores:
        """Score B sounds by the chosen axis or the mean of all, each in `parts`; an unusable sound is an ERROR."""
        audio = rollout.output
        sounds = [sounding(audio, row).detach().float().cpu() for row in range(len(audio))]
        usable = [i for i, sound in enumerate(sounds) if sound.numel() and bool(sound.isfinite().all())]
        axes = torch.full((len(sounds), len(AXES)), float("nan"))
        if usable:
            batch = [{"path": sounds[i], "sample_rate": audio.rate} for i in usable]
            axes[usable] = torch.tensor([_axes(row) for row in self.predictor.forward(batch)])
        status = torch.full((len(sounds),), int(Status.ERROR), dtype=torch.int8)
        status[usable] = int(Status.OK)
        value = axes.mean(1) if self.axis == "mean" else axes[:, AXES.index(self.axis)]
        parts: dict[str, Tensor] = {name: axes[:, i] for i, name in enumerate(AXES)}
        info = ["" if i in usable else "the sound is empty or not finite" for i, _ in enumerate(sounds)]
        return Scores(value, status, parts=parts, info=info if any(info) else None).to(audio.samples.device)


def _axes(row: str | Mapping[str, float]) -> list[float]:
    """The axes of one answer; older versions of the package answer in JSON."""
    answer = json.loads(row) if isinstance(row, str) else row
    return [float(answer[axis]) for axis in AXES]
