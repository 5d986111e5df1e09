"""How much of a sound is speech, as Silero VAD hears it; its weights come in the package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch

from mmalign.core.errors import MissingExtra
from mmalign.core.options import Share
from mmalign.core.packages import stamp_of
from mmalign.core.types import Audio, Prompt
from mmalign.loading.exclusive import loading
from mmalign.rewards.by_row import RowRule
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.models.waves import finite_sound, waves

__all__ = ["Speech"]

RATE, FRAME = 16_000, 512  # Hz, and samples of one decision: 32 ms


@dataclass
class Speech(RowRule):
    """The share of frames of 32 ms that are speech, or the mean probability of it, in [0, 1]; of the mix, at 16 kHz.

    It says that somebody speaks, not what or how well: noise beside a voice hardly lowers it. To have none, weigh it
    negatively. An empty sound, and one that is not finite, is an ERROR.

    Args:
        score: `share` of frames above the threshold, or the mean `probability`.
        threshold: of a frame's probability, for `share`.
    """

    score: Literal["share", "probability"] = "share"
    threshold: Share = 0.5
    modalities = frozenset({"audio"})
    range = (0.0, 1.0)
    differentiable = False
    deterministic = True
    packages: ClassVar[dict[str, str]] = {"silero_vad": "speech", "onnxruntime": "speech"}

    @cached_property
    def model(self) -> Any:
        """The package's own, by ONNX. MissingExtra where it is not installed."""
        threads = torch.get_num_threads()
        try:
            import onnxruntime  # noqa: F401
            from silero_vad import load_silero_vad
        except (ImportError, OSError):
            raise MissingExtra("reward speech (package silero-vad)", "speech") from None
        try:
            with preserve_rng_state(), loading():
                return load_silero_vad(onnx=True)
        finally:
            torch.set_num_threads(threads)  # the package sets one for the whole process

    def prepare(self) -> None:
        """Load the model."""
        _ = self.model

    def fingerprint(self) -> str:
        """The version of the package, which holds the weights."""
        return stamp_of("silero-vad")

    def judge(self, prompt: Prompt, output: Audio) -> tuple[float, dict[str, float]]:
        """The verdict on one sound."""
        finite_sound(output)
        wave = waves(output, RATE)[0]
        frames = max(1, -(-len(wave) // FRAME))
        padded = torch.nn.functional.pad(wave, (0, frames * FRAME - len(wave)))
        probability = self.model.audio_forward(padded[None], RATE)[0]
        share, mean = float((probability >= self.threshold).float().mean()), float(probability.mean())
        return share if self.score == "share" else mean, {"share": share, "probability": mean}
