"""Train the scenes' ``AutoencoderKL``: 64x64 pixels to 8x8x4 latents and back.

``pipelines.miniworld autoencoder`` (about seven minutes on two CPU cores).
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.miniworld.verifier import verify_batch
from pipelines.miniworld.half import half_where_fast
from pipelines.miniworld.provenance import save_atomically
from pipelines.miniworld.scenes.pictures import draw_pictures

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL


def build_autoencoder() -> "AutoencoderKL":
    """An untrained autoencoder of about one million weights."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(24, 48, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def as_tensor(images: np.ndarray) -> "torch.Tensor":
    """``(n, 3, 64, 64)`` uint8 to float in [-1, 1]."""
    import torch

    return torch.from_numpy(images).float() / 127.5 - 1


def encode_means(model: "AutoencoderKL", images: np.ndarray, batch: int = 256) -> "torch.Tensor":
    """Latent means ``(n, 4, 8, 8)``, unscaled, of uint8 images ``(n, 3, 64, 64)``."""
    import torch

    with torch.no_grad(), half_where_fast():
        parts = [model.encode(as_tensor(images[i : i + batch])).latent_dist.mean for i in range(0, len(images), batch)]
    return torch.cat([part.float() for part in parts])


def decode(model: "AutoencoderKL", latents: "torch.Tensor", batch: int = 256) -> "torch.Tensor":
    """Images ``(n, 3, 64, 64)`` in [0, 1] of unscaled latents ``(n, 4, 8, 8)``."""
    import torch

    with torch.no_grad(), half_where_fast():
        parts = [model.decode(part).sample for part in latents.split(batch)]
    return (torch.cat([part.float() for part in parts]) / 2 + 0.5).clamp(0, 1)


def measure(model: "AutoencoderKL", n: int = 512, seed: int = 10_001) -> dict[str, float]:
    """Reconstruction of held-out scenes: mean absolute error of [0, 1] pixels, and the share that still verifies."""
    images, requests, _ = draw_pictures(n, seed, "heldout")
    rebuilt = decode(model, encode_means(model, images)).numpy()
    return {
        "heldout_absolute_error": float(np.abs(rebuilt - images / 255).mean()),
        "heldout_verified": float(verify_batch(rebuilt, requests).fulfilled.mean()),
        "n": n,
    }


def normalise_latents(model: "AutoencoderKL", images: np.ndarray) -> None:
    """Set ``shift_factor`` and ``scaling_factor`` so that scaled latents have mean zero and unit deviation."""
    latents = encode_means(model, images)
    model.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))


def train(steps: int, seed: int, batch: int, report_every: int) -> tuple["AutoencoderKL", dict[str, Any]]:
    """Train on the train split; returns the model and its provenance."""
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    images, _, _ = draw_pictures(20_000, seed)
    model, started = build_autoencoder(), time.time()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        target = as_tensor(images[rng.integers(len(images), size=batch)])
        with half_where_fast():
            posterior = model.encode(target).latent_dist
            rebuilt = model.decode(posterior.sample()).sample.float()
        # The squared error keeps colours right, the absolute one keeps edges sharp.
        error = functional.l1_loss(rebuilt, target) + 2 * functional.mse_loss(rebuilt, target)
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        loss = error + 5e-4 * divergence
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % report_every == 0 or step == steps:
            seconds = round(time.time() - started)
            figures = f"loss {loss.item():.4f} kl {divergence.item():.3f}"
            print(f"step {step} {figures} {seconds} s", measure(model, 128), flush=True)
    normalise_latents(model, images[:2000])
    seconds = round(time.time() - started)
    return model, {"seed": seed, "steps": steps, "batch": batch, "seconds": seconds, "metrics": measure(model)}


def main(out: Path, steps: int = 1500, seed: int = 0, batch: int = 32, report_every: int = 250) -> None:
    """Train and save to the folder ``out``."""
    model, provenance = train(steps, seed, batch, report_every)
    save_atomically(out, model.save_pretrained, provenance)
    print(provenance["metrics"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes_autoencoder"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
