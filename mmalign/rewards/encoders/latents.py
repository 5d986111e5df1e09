"""The generator's own latents as features: nothing is decoded, and every latent frame is a sample of the sound."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Audio, Rollout
from mmalign.rewards.encoders._frames import FrameEncoder
from mmalign.rewards.models.codec import Codec, load_codec
from mmalign.rewards.models.frozen import local_or_hub

__all__ = ["LatentsEncoder"]


@dataclass
class LatentsEncoder(FrameEncoder):
    """Mean and standard deviation over time of `rollout.trajectory["x0"]`, (B, C, …) with time on one axis.

    Rollouts of flow, ddpm and few_step policies carry x0. Outputs that come without it (files, references) need
    `checkpoint`, whose autoencoder encodes them; `mmalign reference --adapter` makes references through any generator.
    With `checkpoint`, sounds that carry gradient are encoded too, so that the gradient reaches them.

    Args:
        checkpoint: a pipeline or autoencoder (AutoencoderOobleck) whose latents these are, folder or Hub id.
        time: the axis of x0 that is time: 2 for Stable Audio (B, C, T) and AudioLDM2 (B, C, T, F), 3 for ACE-Step.
        space: a word for the latent space where there is no `checkpoint`; references of another word are refused.
    """

    checkpoint: str = ""
    time: int = 2
    space: str = ""
    modalities = frozenset({"audio"})

    def __post_init__(self) -> None:
        if self.time < 1:
            raise ConfigError(f"time: axis {self.time} of x0 holds the rows or lies before them; set 1 or more.")
        if not (self.checkpoint or self.space):
            raise ConfigError("name the latents: their autoencoder as `checkpoint`, or any word for them as `space`.")
        if self.checkpoint:
            local_or_hub(self.checkpoint)

    @property
    def differentiable(self) -> bool:
        """Whether gradient can reach the sound itself."""
        return bool(self.checkpoint)

    @property
    def codec(self) -> Codec:
        """The autoencoder, loaded on first use. CapabilityError without `checkpoint`."""
        if not self.checkpoint:
            raise CapabilityError(
                "encoder latents: these sounds come without their latents (trajectory['x0']); name the generator's "
                "autoencoder as `checkpoint`, or use a policy that keeps x0 (flow, ddpm, few_step)."
            )
        return load_codec("oobleck", self.checkpoint)

    def prepare(self) -> None:
        """Load the autoencoder, if there is one."""
        if self.checkpoint:
            _ = self.codec

    def frames(self, rollout: Rollout) -> list[Float[Tensor, "_ D"]]:
        """The latent frames of each output, all other axes flattened; none where they are not finite."""
        output, x0 = rollout.output, rollout.trajectory.get("x0")
        carries = isinstance(output, Audio) and output.samples.requires_grad and torch.is_grad_enabled()
        if x0 is None or (carries and self.checkpoint):
            return self.codec.frames(output)
        if x0.ndim <= self.time:
            raise CapabilityError(f"encoder latents: x0 is {tuple(x0.shape)} and has no axis {self.time}; set `time`.")
        frames = x0.float().movedim(self.time, 1).flatten(2)
        return [frame if bool(frame.detach().isfinite().all()) else frame[:0] for frame in frames]

    def fingerprint(self) -> str:
        """The digest of the autoencoder's weights, or of the latent space's name, not of how sounds became latents."""
        return f"latents-{self.time}-{self.codec.fingerprint if self.checkpoint else self.space}"
