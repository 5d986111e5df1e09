"""Pictures that the scenes' generator makes of captions, flaws included, kept in a file to learn to judge by."""

from pathlib import Path

import numpy as np

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.grammar import Request, parse
from mmalign.miniworld.splits import distinct_requests

#: Steps and guidance of the generator; every caption gets one picture of each.
_SETTINGS = ((8, 0.0), (8, 3.0))


def generated_pictures(file: Path, split: str, n: int, seed: int = 0) -> tuple[np.ndarray, list[Request]]:
    """Two pictures of each of ``n`` distinct requests, from ``file``; where there is none they are made and kept there.

    Returns:
        Images ``(2 n, 3, 64, 64)`` uint8, and the request of each.
    """
    if not file.exists():
        import torch

        from mmalign.loading.pipelines import Origin, open_pipeline
        from pipelines.miniworld.scenes.train_generator import generate

        pipeline = open_pipeline(
            "StableDiffusion3Pipeline", Origin(model=str(asset_path("scenes_sd3"))), {"default": torch.float32}
        )
        captions = [request.text for request in distinct_requests(split, n, seed)]
        images = [np.round(generate(pipeline, captions, *setting) * 255).astype(np.uint8) for setting in _SETTINGS]
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, images=np.concatenate(images), captions=captions * len(_SETTINGS))
    with np.load(file) as archive:
        return archive["images"], [parse(str(caption)) for caption in archive["captions"]]
