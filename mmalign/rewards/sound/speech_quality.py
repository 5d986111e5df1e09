"""How good speech sounds to listeners, as DNSMOS estimates it; its weights come in the package speechmos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from mmalign.core.errors import MissingExtra
from mmalign.core.packages import stamp_of
from mmalign.core.types import Audio, Prompt
from mmalign.loading.exclusive import loading
from mmalign.rewards.by_row import RowRule, Verdict
from mmalign.rewards.engine.foreign_code import preserve_rng_state
from mmalign.rewards.models.waves import finite_sound, waves

__all__ = ["SpeechQuality"]

RATE = 16_000
_KEYS = {"overall": "ovrl_mos", "speech": "sig_mos", "background": "bak_mos", "p808": "p808_mos"}


@dataclass
class SpeechQuality(RowRule):
    """A mean opinion score of speech, cut to [1, 5]: DNSMOS P.835 and P.808 (Reddy et al. 2022, 2110.01763).

    Of the mix, at 16 kHz; windows of 9 s averaged, shorter sounds repeated. Meant for speech: of music and noise it
    says little, so put it beside `speech`. Silence is NOT_APPLICABLE; an empty sound, and one that is not finite, an
    ERROR. All four scores are in `parts`.

    Args:
        axis: `overall`, the `speech` itself or the `background` (P.835), or `p808` (one question, another model).
    """

    axis: Literal["overall", "speech", "background", "p808"] = "overall"
    modalities = frozenset({"audio"})
    range = (1.0, 5.0)
    differentiable = False
    deterministic = True
    packages: ClassVar[dict[str, str]] = {"speechmos": "speech", "onnxruntime": "speech"}

    @cached_property
    def run(self) -> Any:
        """The package's own function. MissingExtra where it is not installed."""
        try:
            with preserve_rng_state(), loading():
                from speechmos import dnsmos
        except (ImportError, OSError):
            raise MissingExtra("reward speech_quality (package speechmos)", "speech") from None
        return dnsmos.run

    def prepare(self) -> None:
        """Import the package."""
        _ = self.run

    def fingerprint(self) -> str:
        """The version of the package, which holds the weights."""
        return stamp_of("speechmos")

    def judge(self, prompt: Prompt, output: Audio) -> Verdict:
        """The verdict on one sound."""
        finite_sound(output)
        wave = waves(output, RATE)[0].clamp(-1, 1)
        if not bool(wave.abs().max() > 0):
            return None
        result = self.run(wave.double().numpy(), RATE)
        scores = {name: min(5.0, max(1.0, float(result[key]))) for name, key in _KEYS.items()}
        return scores[self.axis], scores
