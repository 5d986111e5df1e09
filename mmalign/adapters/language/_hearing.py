"""Sounds of a prompt as what audio processors of transformers take: one channel at the processor's rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.adapters.language._looking import Sense
from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.packages import need
from mmalign.core.types import Audio


def _sound(name: str, value: Any, processor: Any) -> Any:
    """An `Audio` of one row as samples (S,) in NumPy: channels averaged, resampled, what its mask hides cut off."""
    if not (isinstance(value, Audio) and len(value.samples) == 1):
        kind = f"{len(value.samples)} rows" if isinstance(value, Audio) else type(value).__name__
        raise CapabilityError(
            f"media.{name}: audio_text hears an Audio of one row and this is {kind}; drop the column."
        )
    extractor = processor.feature_extractor
    length = value.samples.shape[2] if value.mask is None else int(value.mask[0].sum())
    wave = value.samples[0, :, :length].detach().cpu().float().mean(0)
    if not length or not bool(wave.isfinite().all()):
        raise DataError(
            f"media.{name}: a sound of {length} samples, or with samples that are not finite, says nothing."
        )
    if value.rate != extractor.sampling_rate:
        resample = need("torchaudio.functional").resample

        wave = resample(wave, value.rate, extractor.sampling_rate)
    longest = getattr(extractor, "n_samples", None)
    if longest and len(wave) > longest:
        raise DataError(
            f"media.{name}: a sound of {len(wave) / extractor.sampling_rate:g} s, and this model hears "
            f"{longest / extractor.sampling_rate:g} s; cut it."
        )
    return wave.numpy()


def _given(sounds: list[Any], processor: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    rate = {"sampling_rate": processor.feature_extractor.sampling_rate}
    return {"audio": sounds, "audio_kwargs": {**(options.get("audio_kwargs") or {}), **rate}}


SOUNDS = Sense(kind="audio", one="sound", read=_sound, given=_given)


def around_sounds(processor: Any) -> tuple[str, str]:
    """The tokens that a family puts before and after a sound, if its processor names them."""
    names = ("audio_bos_token", "audio_eos_token")
    start, end = (getattr(processor, name, None) or "" for name in names)
    return start, end
