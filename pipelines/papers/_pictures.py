"""Pictures of one thing each, whose attributes are known, and a head on the embedded CLIP that is trained on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mmalign.adapters import load_adapter
from mmalign.core.types import Preference, Prompt
from mmalign.miniworld.scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES, Scene, Thing, render
from mmalign.policies.scorer import Scorer

CLIP = "assets/scenes_clip"
_KEPT: dict[bytes, torch.Tensor] = {}  # CLIP's embeddings of pictures, for all heads of an experiment


@dataclass(frozen=True)
class Look:
    """What one picture shows: `left` says on which half the thing lies, `y` how high."""

    shape: str
    color: str
    size: str
    left: bool
    y: float

    @property
    def kind(self) -> str:
        """Its colour and shape."""
        return f"{self.color} {self.shape}"


def drawn(rng: np.random.Generator, **fixed: Any) -> Look:
    """A look by chance but for what is `fixed`."""
    look = Look(
        shape=str(rng.choice(SHAPES)),
        color=str(rng.choice(COLORS)),
        size=str(rng.choice(SIZES)),
        left=bool(rng.random() < 0.5),
        y=float(rng.uniform(14, IMAGE_SIZE - 14)),
    )
    return replace(look, **fixed)


def picture(look: Look, rng: np.random.Generator) -> torch.Tensor:
    """The picture (3, 64, 64) of a look: its place is drawn inside its half, and so are all shades."""
    half = IMAGE_SIZE / 2
    x = float(rng.uniform(14, half - 2)) + (0 if look.left else half - 12)
    return torch.from_numpy(render(Scene((Thing(look.shape, look.color, look.size, x, look.y),)), rng))


def triple(anchor: torch.Tensor, near: torch.Tensor, far: torch.Tensor, **meta: Any) -> Preference:
    """An anchor with what is like it and what is not."""
    return Preference(Prompt("", {"image": anchor}, meta), near, far)


def head(seed: int, **options: Any) -> Scorer:
    """A fresh head on CLIP's pictures."""
    named = {"encoder": CLIP, "judges": "image", "width": 16, "seed": seed, "device": "cpu", "cached_outputs": 1 << 20}
    adapter: Any = load_adapter("embedder", **{**named, **options})
    adapter._kept = _KEPT
    return Scorer(adapter)


@torch.no_grad()
def features(policy: Scorer, pictures: list[torch.Tensor]) -> np.ndarray:
    """The features (N, D) of pictures."""
    rows = policy.observe([Prompt("")] * len(pictures), torch.stack(pictures))
    found: np.ndarray = policy.features(rows).numpy()
    return found


@torch.no_grad()
def clip_features(pictures: list[torch.Tensor]) -> np.ndarray:
    """CLIP's own features (N, E) of pictures."""
    from mmalign.core.types import Rollout
    from mmalign.rewards.encoders import make_encoder

    encoder = make_encoder(CLIP)
    parts = [pictures[i : i + 128] for i in range(0, len(pictures), 128)]
    found = [encoder.embed(Rollout.of([""] * len(part), torch.stack(part))) for part in parts]
    kept: np.ndarray = torch.cat(found).numpy()
    return kept


__all__ = ["CLIP", "Look", "clip_features", "drawn", "features", "head", "picture", "triple"]
