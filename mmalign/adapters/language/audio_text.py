"""Models of transformers that hear: sound and text in, text out (Qwen2-Audio, Qwen2.5-Omni's thinker, …)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmalign.adapters.language._hearing import SOUNDS, around_sounds
from mmalign.adapters.language._looking import Sense
from mmalign.adapters.language._media_text import MediaTextAdapter
from mmalign.loading.files import read_json


@dataclass
class AudioText(MediaTextAdapter):
    """`TokenAdapter` around `AutoModelForMultimodalLM` (of Qwen2.5-Omni, its thinker) and its processor.

    Sounds are the entries of a prompt's `media`, each an `Audio` of one row, in their order; any rate and channels, no
    longer than the model hears. Prompts with and without them may share a batch. A prompt, its sounds included, is
    forwarded once for all rows that continue it. `train: full` trains the audio tower too.
    """

    part: ClassVar[tuple[str, str]] = ("feature_extractor", "sound")
    sense: ClassVar[Sense] = SOUNDS

    def model_class(self, folder: Path) -> str:
        """The class that answers in text; Qwen2.5-Omni's checkpoints hold a voice besides."""
        return model_class(folder)

    def surroundings(self, model: Any, processor: Any) -> tuple[str, str]:
        """What the processor names."""
        return around_sounds(processor)


def model_class(folder: Path) -> str:
    """The class of transformers that answers in text; Qwen2.5-Omni's checkpoints hold a voice besides."""
    kind = str(read_json(folder / "config.json", "a model folder has it").get("model_type", ""))
    omni = kind.startswith("qwen2_5_omni")
    return "Qwen2_5OmniThinkerForConditionalGeneration" if omni else "AutoModelForMultimodalLM"


__all__ = ["AudioText"]
