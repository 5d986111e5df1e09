"""Models of transformers that hear: sound and text in, text out (Qwen2-Audio, Qwen2.5-Omni's thinker, …)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmalign.adapters.language._looking import Sense
from mmalign.adapters.language._media_text import MediaTextAdapter
from mmalign.core.errors import CapabilityError, DataError
from mmalign.core.packages import need
from mmalign.core.types import Audio
from mmalign.loading.files import read_json
from mmalign.loading.foreign import PretrainedModel, Processor


def _sound(name: str, value: object, processor: Processor) -> Any:
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


def _given(sounds: list[Any], processor: Processor, options: Mapping[str, Any]) -> dict[str, Any]:
    rate = {"sampling_rate": processor.feature_extractor.sampling_rate}
    return {"audio": sounds, "audio_kwargs": {**(options.get("audio_kwargs") or {}), **rate}}


SOUNDS = Sense(kind="audio", one="sound", read=_sound, given=_given)


def around_sounds(processor: Processor) -> tuple[str, str]:
    """Return the tokens that a family puts before and after a sound, if its processor names them."""
    names = ("audio_bos_token", "audio_eos_token")
    start, end = (getattr(processor, name, None) or "" for name in names)
    return start, end


@dataclass
class AudioText(MediaTextAdapter):
    """`TokenAdapter` around `AutoModelForMultimodalLM` (of Qwen2.5-Omni, its thinker) and its processor.

    Sounds are the entries of a prompt's `media`, each an `Audio` of one row, in their order; any rate and channels, no
    longer than the model hears. Prompts with and without them may share a batch. A prompt, its sounds included, is
    forwarded once for all rows that continue it. `train: full` trains the audio tower too.
    """

    part: ClassVar[tuple[str, str]] = ("feature_extractor", "sound")
    sense: ClassVar[Sense] = SOUNDS
    auto_class: ClassVar[str] = "AutoModelForMultimodalLM"

    def model_class(self, folder: Path) -> str:
        """The class that answers in text; Qwen2.5-Omni's checkpoints hold a voice besides."""
        return model_class(folder)

    def surroundings(self, model: PretrainedModel, processor: Processor) -> tuple[str, str]:
        """Return the tokens that the processor names."""
        return around_sounds(processor)


def model_class(folder: Path) -> str:
    """The class of transformers that answers in text; Qwen2.5-Omni's checkpoints hold a voice besides."""
    kind = str(read_json(folder / "config.json", "a model folder has it").get("model_type", ""))
    omni = kind.startswith("qwen2_5_omni")
    return "Qwen2_5OmniThinkerForConditionalGeneration" if omni else AudioText.auto_class


__all__ = ["AudioText"]
