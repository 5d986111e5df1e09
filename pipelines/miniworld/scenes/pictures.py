"""Batches of rendered truth scenes, as training and test data."""

import numpy as np

from mmalign.miniworld.grammar import Request, sample_request, sample_scene
from mmalign.miniworld.scenes import IMAGE_SIZE, Scene, render


def draw_pictures(
    n: int, seed: int, split: str = "train", requests: list[Request] | None = None
) -> tuple[np.ndarray, list[Request], list[Scene]]:
    """Render ``n`` truth scenes.

    Args:
        n: how many.
        seed: decides everything.
        split: of the requests; with "train" no held-out pair of shape and colour is shown either.
        requests: use these (repeated in order) instead of sampling.

    Returns:
        Images ``(n, 3, 64, 64)`` uint8, the request of each, and the scene of each.
    """
    rng = np.random.default_rng([71, seed])
    images = np.empty((n, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    chosen, scenes = [], []
    for index in range(n):
        request = requests[index % len(requests)] if requests else sample_request(rng, split)
        scene = sample_scene(request, rng, seen_only=split == "train")
        images[index] = np.round(render(scene, rng) * 255)
        chosen.append(request)
        scenes.append(scene)
    return images, chosen, scenes
