"""AudioLDM (Liu et al., 2301.12503): sound by latent diffusion over log-mel spectrograms, told one CLAP embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmalign.adapters.sound._mel_adapter import ClapAdapter


@dataclass
class AudioLDM(ClapAdapter):
    """`LatentAdapter` around `AudioLDMPipeline`; predicts ε or v, as its scheduler says; one channel of sound."""

    pipeline_name: ClassVar[str] = "AudioLDMPipeline"


__all__ = ["AudioLDM"]
