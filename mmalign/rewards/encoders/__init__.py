"""What set rewards embed rows with: one dataclass per file.

Its members are those of `Encoder` (`mmalign.core.protocols`). For references it is an `ImageEncoder` or a
`TextEncoder` too, where it can; one of sounds that sees them over time is a `FrameEncoder`.
"""

import sys
from collections.abc import Collection
from dataclasses import asdict, is_dataclass
from typing import Any

from jaxtyping import Float

from mmalign.core.capabilities import members, offers, require_members
from mmalign.core.errors import ConfigError
from mmalign.core.protocols import Encoder
from mmalign.core.registry import Registry
from mmalign.core.tensor import Tensor
from mmalign.core.types import Modality, Rollout

encoders = Registry("encoder", "mmalign.rewards.encoders")

__all__ = ["EncodedSet", "SeesThroughEncoder", "described", "encoders", "make_encoder", "named_by", "no_side"]


def make_encoder(spec: str | dict[str, Any], allow: Collection[str] = ()) -> Encoder:
    """The encoder of a spec, {name: …, options…}; a plain string is the checkpoint of a `clip` encoder.

    Raises:
        ConfigError: no spec (what embeds is never guessed; the message lists what there is), or a wrong one.
        CapabilityError: a class that lacks a member of `Encoder`.
    """
    if not spec:
        raise ConfigError(
            "encoder: missing. Name what embeds the outputs, as {name: …, options…}, for the numbers mean nothing "
            f"without it. There is {'; '.join(map(_summary, encoders.names()))}."
        )
    named = {"name": "clip", "checkpoint": spec} if isinstance(spec, str) else spec
    encoder: Encoder = encoders.build(named, "encoder", allow)
    require_members(encoder, [Encoder], f"encoder '{named['name']}'")
    return encoder


def no_side(side: type, why: str) -> ConfigError:
    """The fault of an encoder that is no `side` (`FrameEncoder`, …): `why`, and the encoders that are one."""
    (member,) = set(members(side)) - set(members(Encoder))
    fitting = ", ".join(name for name in encoders.names() if offers(encoders.get(name), side)) or "none"
    return ConfigError(f"encoder: {why}; encoders with {member}: {fitting}.")


class SeesThroughEncoder:
    """A reward that judges outputs by what an encoder makes of them: `embedder`, made of the option `encoder`."""

    embedder: Encoder

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the encoder embeds."""
        return self.embedder.modalities

    @property
    def differentiable(self) -> bool:
        """Whether gradient passes through the encoder."""
        return self.embedder.differentiable


class EncodedSet(SeesThroughEncoder):
    """A reward of sets whose embeddings are the encoder's."""

    def embed(self, rollout: Rollout) -> Float[Tensor, "B D"]:
        """One row per output; with gradient where the encoder passes it."""
        return self.embedder.embed(rollout)


def _summary(name: str) -> str:
    """What an encoder takes, and what it is good for by the first line of its file."""
    kind = encoders.get(name)
    line = (sys.modules[kind.__module__].__doc__ or "").partition("\n")[0].rstrip(".")
    return f"`{name}` ({', '.join(sorted(kind.modalities))}): {line[:1].lower()}{line[1:]}"


def described(encoder: Encoder) -> str:
    """An encoder in a few words, for what is printed about its numbers: its name, and the weights it reads."""
    name = type(encoder).__module__.rpartition(".")[2]
    options: dict[str, Any] = asdict(encoder) if is_dataclass(encoder) and not isinstance(encoder, type) else {}
    weights = [str(options[key]) for key in ("checkpoint", "model", "space") if options.get(key)]
    return " ".join([name, *weights[:1]])


def named_by(reward: object) -> str:
    """The encoder of a reward in a few words, "" for one that has none."""
    return described(reward.embedder) if isinstance(reward, SeesThroughEncoder) else ""
