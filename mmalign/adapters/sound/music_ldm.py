"""MusicLDM (Chen et al., 2308.01546): music by latent diffusion over log-mel spectrograms, told one CLAP embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmalign.adapters.sound._mel_adapter import ClapAdapter


@dataclass
class MusicLDM(ClapAdapter):
    """`LatentAdapter` around `MusicLDMPipeline`; predicts ε or v, as its scheduler says; one channel of sound.

    The pipeline class cannot read prompts with transformers 5 by itself (CLAP answers with an object there): give it
    `prompt_embeds`, which are `encode(...)["class_labels"]`. The adapter does not ask it to.
    """

    pipeline_name: ClassVar[str] = "MusicLDMPipeline"


__all__ = ["MusicLDM"]
