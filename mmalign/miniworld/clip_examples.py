"""Training material for the scenes' CLIP: pictures, true captions, near misses, and what lies in every patch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmalign.miniworld.grammar import Request, hard_negatives, rearrangements, restatements
from mmalign.miniworld.pictures import draw_pictures
from mmalign.miniworld.scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES, Scene
from mmalign.miniworld.words import CAPTION_TOKENS, build_tokenizer

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

KEPT_NEGATIVES = 12
DRAWN_NEGATIVES = 2
#: Drawn besides, where there are any: captions of the same things in another order, which a bag of words cannot tell.
DRAWN_REARRANGED = 2


@dataclass
class Examples:
    """``n`` scenes with two looks each (plain, and through the autoencoder) and their captions."""

    looks: np.ndarray  # (2, n, 3, 64, 64) uint8
    labels: np.ndarray  # (n, patches, 3) int64: shape + 1 or 0, color, size
    positives: list[list[Request]]
    negatives: list[list[Request]]
    rearranged: list[list[list[Request]]]  # one list for each positive
    scenes: list[Scene]
    token_ids: dict[str, list[int]]

    def draw(
        self, batch: int, rng: np.random.Generator
    ) -> "tuple[torch.Tensor, torch.Tensor, list[Request], list[Scene]]":
        """A batch: images ``(B, 3, 64, 64)`` in [0, 1], labels, ``B`` own captions and then near misses, scenes."""
        import torch

        chosen = rng.integers(len(self.scenes), size=batch)
        picks = [(i, rng.integers(len(self.positives[i]))) for i in chosen]
        own = [self.positives[i][k] for i, k in picks]
        near: list[Request] = []
        for i, k in picks:
            confusing = self.rearranged[i][k]
            if confusing:
                near += [confusing[m] for m in rng.integers(len(confusing), size=DRAWN_REARRANGED)]
            near += [self.negatives[i][m] for m in rng.integers(len(self.negatives[i]), size=DRAWN_NEGATIVES)]
        images = self.looks[rng.integers(2, size=batch), chosen].astype(np.float32) / 255
        return (
            torch.from_numpy(soften(images, rng)),
            torch.from_numpy(self.labels[chosen]),
            own + near,
            [self.scenes[i] for i in chosen],
        )

    def tokens(self, requests: list[Request]) -> "torch.Tensor":
        """Token ids ``(n, CAPTION_TOKENS)``."""
        import torch

        return torch.tensor([self.token_ids[request.text] for request in requests])


def soften(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slightly blur some images and add faint noise to some: generated pictures are not as crisp as rendered ones."""
    from scipy.ndimage import gaussian_filter

    blurred = rng.random(len(images)) < 0.3
    images[blurred] = gaussian_filter(images[blurred], (0, 0, 0.6, 0.6))
    strength = rng.uniform(0, 0.05, size=(len(images), 1, 1, 1)) * (rng.random((len(images), 1, 1, 1)) < 0.5)
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(images + strength.astype(np.float32) * noise, 0, 1)


def distort(images: np.ndarray, autoencoder: "AutoencoderKL", noise: float, seed: int) -> np.ndarray:
    """Pass images ``(n, 3, 64, 64)`` in [0, 1] through the autoencoder, with noise relative to unit latents."""
    import torch

    from mmalign.miniworld.train_autoencoder import decode, encode_means

    generator, parts = torch.Generator().manual_seed(seed), []
    for part in range(0, len(images), 1000):
        latents = encode_means(autoencoder, np.round(images[part : part + 1000] * 255).astype(np.uint8))
        extra = torch.randn(latents.shape, generator=generator) * noise / autoencoder.config.scaling_factor
        parts.append(decode(autoencoder, latents + extra).numpy())
    return np.concatenate(parts)


def patch_labels(scenes: list[Scene], patch: int) -> np.ndarray:
    """``(n, patches, 3)`` int64: what is centred in each patch, as shape + 1 (0 for nothing), color and size."""
    across = IMAGE_SIZE // patch
    labels = np.zeros((len(scenes), across * across, 3), dtype=np.int64)
    for row, scene in zip(labels, scenes, strict=True):
        for thing in scene.things:
            cell = int(thing.y) // patch * across + int(thing.x) // patch
            row[cell] = SHAPES.index(thing.shape) + 1, COLORS.index(thing.color), SIZES.index(thing.size)
    return labels


def make_examples(n: int, seed: int, patch: int, autoencoder: Path) -> Examples:
    """Examples of the train split; no caption, true or false, names a held-out composition."""
    from diffusers import AutoencoderKL

    plain, requests, scenes = draw_pictures(n, 500_000 + seed)
    vae = AutoencoderKL.from_pretrained(autoencoder)
    rebuilt = np.empty_like(plain)
    for part in range(0, n, 1000):
        images = plain[part : part + 1000].astype(np.float32) / 255
        rebuilt[part : part + 1000] = np.round(distort(images, vae, 0.1, seed + part) * 255)
    rng = np.random.default_rng([6, seed])
    pairs = list(zip(requests, scenes, strict=True))
    positives = [[request, *restatements(request, scene, "train")] for request, scene in pairs]
    negatives = [hard_negatives(request, KEPT_NEGATIVES, rng, scene, "train") for request, scene in pairs]
    rearranged = [
        [rearrangements(positive, scene, "train") for positive in some]
        for some, scene in zip(positives, scenes, strict=True)
    ]
    groups = (*positives, *negatives, *(some for row in rearranged for some in row))
    texts = {request.text for some in groups for request in some}
    tokenizer = build_tokenizer()
    ids = {t: tokenizer(t, padding="max_length", max_length=CAPTION_TOKENS, truncation=True).input_ids for t in texts}
    labels = patch_labels(scenes, patch)
    return Examples(np.stack([plain, rebuilt]), labels, positives, negatives, rearranged, scenes, ids)
