"""Training material for the scenes' CLIP: pictures, true captions, near misses, and what there is to see in each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmalign.miniworld.grammar import Request, hard_negatives, rearrangements, restatements, sample_request
from mmalign.miniworld.scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES, Scene
from pipelines.miniworld.scenes.pictures import draw_pictures
from pipelines.miniworld.scenes.scene_facts import scene_facts, scene_layout
from pipelines.miniworld.scenes.words import CAPTION_TOKENS, build_tokenizer

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPTokenizer

#: False captions per image: with some other content, and (where there are any) of the same things in another order,
#: which a bag of words cannot tell.
NEGATIVES, REARRANGED = 1, 3
#: How much of a batch has been through the autoencoder, as generated pictures have.
REBUILT_SHARE = 0.25


@dataclass
class Batch:
    """``B`` images and the captions that they are compared with."""

    images: "torch.Tensor"  # (B, 3, 64, 64) in [0, 1]
    patches: "torch.Tensor"  # (B, patches, 3), see patch_labels
    facts: "torch.Tensor"  # (B, facts), see scene_facts
    layouts: "torch.Tensor"  # (B, numbers), see scene_layout
    captions: list[Request]  # the B images' own, then near misses
    scenes: list[Scene]


@dataclass
class Examples:
    """Endless examples of the train split, none of whose captions, true or false, names a held-out composition.

    Scenes are new in every batch, but for those rebuilt by the autoencoder, which is slow: they are drawn once.
    """

    rebuilt: np.ndarray  # (n, 3, 64, 64) uint8
    rebuilt_requests: list[Request]
    rebuilt_scenes: list[Scene]
    patch: int
    rng: np.random.Generator
    tokenizer: "CLIPTokenizer" = field(default_factory=build_tokenizer)
    _ids: dict[str, list[int]] = field(default_factory=dict)

    def draw(self, batch: int, arranged: bool = False) -> Batch:
        """The next batch; ``arranged`` shows mostly two things in a relation, with every false arrangement of them."""
        import torch

        old = self.rng.integers(len(self.rebuilt), size=round(batch * REBUILT_SHARE))
        fresh = batch - len(old)
        arrangements = [sample_request(self.rng, "train", "position") for _ in range(fresh)] if arranged else None
        plain, requests, scenes = draw_pictures(fresh, int(self.rng.integers(2**62)), requests=arrangements)
        images = soften(np.concatenate([plain, self.rebuilt[old]]).astype(np.float32) / 255, self.rng)
        requests = requests + [self.rebuilt_requests[i] for i in old]
        scenes = scenes + [self.rebuilt_scenes[i] for i in old]
        own, near = [], []
        for request, scene in zip(requests, scenes, strict=True):
            true = [request, *restatements(request, scene, "train")]
            own.append(true[self.rng.integers(len(true))])
            near += hard_negatives(own[-1], NEGATIVES, self.rng, scene, "train")
            confusing = rearrangements(own[-1], scene, "train")
            self.rng.shuffle(confusing)
            near += confusing[: None if arranged else REARRANGED]
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(patch_labels(scenes, self.patch)),
            torch.from_numpy(np.stack([scene_facts(scene) for scene in scenes])),
            torch.from_numpy(np.stack([scene_layout(scene) for scene in scenes])),
            own + near,
            scenes,
        )

    def tokens(self, requests: list[Request]) -> "torch.Tensor":
        """The token ids of the requests' captions, ``(n, CAPTION_TOKENS)``."""
        import torch

        new = list({request.text for request in requests} - self._ids.keys())
        if new:
            padding = {"padding": "max_length", "max_length": CAPTION_TOKENS, "truncation": True}
            self._ids.update(zip(new, self.tokenizer(new, **padding).input_ids, strict=True))
        return torch.tensor([self._ids[request.text] for request in requests])


def make_examples(rebuilt: int, seed: int, patch: int, autoencoder: Path) -> Examples:
    """Examples of which ``rebuilt`` pictures have been through the autoencoder."""
    from diffusers import AutoencoderKL

    from mmalign.loading.networks import open_network

    plain, requests, scenes = draw_pictures(rebuilt, 500_000 + seed)
    looks = distort(plain.astype(np.float32) / 255, open_network(autoencoder, AutoencoderKL), 0.1, seed)
    return Examples(np.round(looks * 255).astype(np.uint8), requests, scenes, patch, np.random.default_rng([6, seed]))


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

    from pipelines.miniworld.scenes.train_autoencoder import decode, encode_means

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
