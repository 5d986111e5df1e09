"""Adapters around a diffusers pipeline that makes sound."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mmalign.adapters.loading.described import Configs, Heard
from mmalign.adapters.loading.diffusers_adapter import DiffusersAdapter
from mmalign.core.options import AtLeastOne
from mmalign.core.types import Modality


@dataclass
class SoundAdapter(DiffusersAdapter):
    """Text to sound.

    Args:
        decode_rows: sounds decoded at once.
    """

    decode_rows: AtLeastOne = 4

    modality: ClassVar[Modality] = "audio"

    @staticmethod
    @abstractmethod
    def heard(configs: Configs) -> Heard:
        """What the sounds of a checkpoint are like, by its configuration files alone."""

    @property
    def rate(self) -> int:
        """Samples a second, Hz."""
        return int(self.loaded.autoencoder.rate)
