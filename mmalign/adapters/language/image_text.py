"""Any image-text-to-text model of transformers' Auto classes: pictures and text in, text out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mmalign.adapters.language._looking import PICTURES, Sense, surroundings
from mmalign.adapters.language._media_text import MediaTextAdapter
from mmalign.loading.foreign import PretrainedModel, Processor


@dataclass
class ImageText(MediaTextAdapter):
    """`TokenAdapter` around `AutoModelForImageTextToText` and its processor.

    Pictures are the entries of a prompt's `media`, (3, H, W) in [0, 1], in their order; prompts with and without them
    may share a batch. A prompt, its pictures included, is forwarded once for all rows that continue it. `train: full`
    trains the vision tower too.
    """

    part: ClassVar[tuple[str, str]] = ("image_processor", "images")
    sense: ClassVar[Sense] = PICTURES
    auto_class: ClassVar[str] = "AutoModelForImageTextToText"

    def model_class(self, folder: Path) -> str:
        """Name transformers' Auto class of image-text-to-text models."""
        return self.auto_class

    def surroundings(self, model: PretrainedModel, processor: Processor) -> tuple[str, str]:
        """Return the tokens that the model's config names."""
        return surroundings(model.config, processor.tokenizer)


__all__ = ["ImageText"]
