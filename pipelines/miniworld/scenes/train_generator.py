"""Train the scenes' Stable Diffusion 3 pipeline on latents of rendered scenes.

``pipelines.miniworld generator`` (about a quarter of an hour on two CPU cores; needs the autoencoder that
``pipelines.miniworld autoencoder`` makes). The model is deliberately stopped early: alignment needs
something to gain. It is trained with one token of padding after the words, so generate with
``pipeline(prompt, height=64, width=64, max_sequence_length=1)``: the 256 that diffusers adds by default outweigh them.
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.miniworld.splits import distinct_requests
from mmalign.miniworld.verifier import verify_batch
from pipelines.miniworld.provenance import save_atomically
from pipelines.miniworld.scenes.pictures import draw_pictures
from pipelines.miniworld.scenes.silent_encoder import build_silent_encoder
from pipelines.miniworld.scenes.train_autoencoder import encode_means
from pipelines.miniworld.scenes.words import MAX_TOKENS, build_tokenizer

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection


#: Share of captions replaced by the empty one, so that guidance has something to steer away from.
DROPPED_CAPTIONS = 0.1
#: Mean of the logit of the training times: above 0, towards noise, where the caption decides what is drawn.
TIME_SHIFT = 0.4
LEARNING_RATE = 1.5e-3


def build_pipeline(autoencoder: Path) -> "StableDiffusion3Pipeline":
    """An untrained pipeline (about five million weights) around a trained autoencoder."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    from mmalign.loading.networks import open_network

    silent_encoder, silent_tokenizer = build_silent_encoder(width=160)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=160,
        caption_projection_dim=160,
        pooled_projection_dim=160,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=open_network(autoencoder, AutoencoderKL),
        text_encoder=build_text_encoder(width=128, layers=3),
        tokenizer=build_tokenizer(),
        text_encoder_2=build_text_encoder(width=32, layers=2),
        tokenizer_2=build_tokenizer(),
        text_encoder_3=silent_encoder,
        tokenizer_3=silent_tokenizer,
    )


def build_text_encoder(width: int, layers: int) -> "CLIPTextModelWithProjection":
    """A small CLIP text encoder over the grammar's words."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    tokenizer = build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        # The published initialisation assumes far larger widths and longer training.
        initializer_factor=2.0,
    )
    return CLIPTextModelWithProjection(config)


def read_captions(pipeline: "StableDiffusion3Pipeline", tokens: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Embed captions as the pipeline's ``encode_prompt`` does, with one zero token for all the padding.

    Args:
        pipeline: holds the two text encoders.
        tokens: ``(B, MAX_TOKENS)`` token ids.

    Returns:
        ``(B, MAX_TOKENS + 1, 160)`` token embeddings and ``(B, 160)`` pooled ones.
    """
    import torch

    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    outputs = [encoder(tokens, output_hidden_states=True) for encoder in encoders]
    embedded = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
    return torch.nn.functional.pad(embedded, (0, 0, 0, 1)), pooled


def tokenize(pipeline: "StableDiffusion3Pipeline", captions: list[str]) -> "torch.Tensor":
    """Token ids ``(n, MAX_TOKENS)`` of captions."""
    padded = pipeline.tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return padded.input_ids


def make_examples(pipeline: "StableDiffusion3Pipeline", n: int, seed: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """Scaled latents ``(n, 4, 8, 8)`` and token ids ``(n, MAX_TOKENS)`` of truth scenes of the train split."""
    import torch

    latents, tokens = [], []
    for part in range(0, n, 4000):
        images, requests, _ = draw_pictures(min(4000, n - part), seed * 1000 + part)
        latents.append(encode_means(pipeline.vae, images))
        tokens.append(tokenize(pipeline, [request.text for request in requests]))
    config = pipeline.vae.config
    return (torch.cat(latents) - config.shift_factor) * config.scaling_factor, torch.cat(tokens)


def measure(
    pipeline: "StableDiffusion3Pipeline", n: int, steps: int, guidance: float, padding: int = 1, batch: int = 64
) -> float:
    """Share of ``n`` distinct held-out requests whose image verifies, made by the pipeline itself."""
    images, requests = generate_heldout(pipeline, n, steps, guidance, padding, batch)
    return float(verify_batch(images, requests).fulfilled.mean())


def generate_heldout(
    pipeline: "StableDiffusion3Pipeline", n: int, steps: int, guidance: float, padding: int = 1, batch: int = 64
) -> tuple[np.ndarray, list]:
    """Images ``(n, 3, 64, 64)`` of ``n`` distinct held-out requests, and these; noise is fixed by the position."""
    requests = distinct_requests("heldout", n)
    return generate(pipeline, [request.text for request in requests], steps, guidance, padding, batch), requests


def generate(
    pipeline: "StableDiffusion3Pipeline",
    captions: list[str],
    steps: int,
    guidance: float,
    padding: int = 1,
    batch: int = 64,
) -> np.ndarray:
    """Images ``(n, 3, 64, 64)`` in [0, 1], one for each caption."""
    import torch
    from diffusers.utils import logging

    # Cutting the silent encoder's padding short is meant, and needs no warning a prompt.
    logging.set_verbosity_error()
    pipeline.set_progress_bar_config(disable=True)
    generator, images = torch.Generator().manual_seed(7), []
    for part in range(0, len(captions), batch):
        images.append(
            pipeline(
                captions[part : part + batch],
                height=64,
                width=64,
                num_inference_steps=steps,
                guidance_scale=guidance,
                max_sequence_length=padding,
                generator=generator,
                output_type="np",
            ).images.transpose(0, 3, 1, 2)
        )
    return np.concatenate(images)


class MovingAverage:
    """Exponential moving average of weights, warmed up so that early steps are forgotten quickly."""

    def __init__(self, modules: "list[torch.nn.Module]", decay: float) -> None:
        self.weights = [weight for module in modules for weight in module.parameters()]
        self.average = [weight.detach().clone() for weight in self.weights]
        self.decay, self.updates = decay, 0

    def update(self) -> None:
        """Take in the present weights."""
        import torch

        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1 - decay)

    def swap(self) -> None:
        """Exchange weights and averages; call again to undo."""
        for weight, average in zip(self.weights, self.average, strict=True):
            weight.data, average.data = average.data, weight.data


def flow_loss(pipeline: "StableDiffusion3Pipeline", latents: "torch.Tensor", tokens: "torch.Tensor") -> "torch.Tensor":
    """Squared error of the predicted flow from data to noise, at a logit-normal time.

    Args:
        pipeline: what is trained.
        latents: ``(B, 4, 8, 8)`` scaled latents.
        tokens: ``(B, MAX_TOKENS)`` ids.
    """
    import torch

    time_left = torch.sigmoid(torch.randn(len(latents)) + TIME_SHIFT)
    sigma = time_left[:, None, None, None]
    noise = torch.randn_like(latents)
    # Full precision: at this width bfloat16 is no faster on a CPU.
    embedded, pooled = read_captions(pipeline, tokens)
    flow = pipeline.transformer(
        hidden_states=(1 - sigma) * latents + sigma * noise,
        encoder_hidden_states=embedded,
        pooled_projections=pooled,
        timestep=time_left * 1000,
        return_dict=False,
    )[0]
    return torch.nn.functional.mse_loss(flow, noise - latents)


def train(
    pipeline: "StableDiffusion3Pipeline", out: Path, steps: int, seed: int, examples: int, stop_at: float
) -> dict[str, Any]:
    """Train in place, saving after every report; ends when ``stop_at`` of held-out requests verify at ten steps."""
    import torch

    latents, tokens = make_examples(pipeline, examples, seed)
    print(f"latents: mean {latents.mean():.3f}, deviation {latents.std():.3f}, {len(latents)} examples", flush=True)
    empty = tokenize(pipeline, [""])
    trained = [pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2]
    average = MovingAverage(trained, decay=0.998)
    optimizer = torch.optim.AdamW(average.weights, lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.99))
    batch, report_every, started, recent = 64, 250, time.time(), []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, step / 100) * max(0.05, 1 - 0.95 * step / steps)
        chosen = torch.randint(len(latents), (batch,))
        captions = torch.where(torch.rand(batch, 1) < DROPPED_CAPTIONS, empty, tokens[chosen])
        loss = flow_loss(pipeline, latents[chosen], captions)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(average.weights, 1.0)
        optimizer.step()
        average.update()
        recent.append(loss.item())
        if step % report_every == 0 or step == steps:
            average.swap()
            verified = measure(pipeline, 128, steps=10, guidance=0.0)
            seconds = round(time.time() - started)
            print(f"step {step} loss {np.mean(recent):.4f} verified {verified:.3f} {seconds} s", flush=True)
            provenance = {"seed": seed, "steps": step, "batch": batch, "examples": examples, "seconds": seconds}
            if step == steps or verified >= stop_at:
                return provenance
            save_atomically(
                out, pipeline.save_pretrained, provenance | {"metrics": {"heldout_verified_10_steps": verified}}
            )
            average.swap()
            recent = []
    raise ValueError(f"steps must be at least 1, got {steps}")


def final_metrics(pipeline: "StableDiffusion3Pipeline", n: int = 256) -> dict[str, float]:
    """Held-out figures at the samplings that the toolkit uses."""
    return {
        "heldout_verified_8_steps": measure(pipeline, n, 8, 0.0),
        "heldout_verified_10_steps": measure(pipeline, n, 10, 0.0),
        "heldout_verified_8_steps_guidance_3": measure(pipeline, n, 8, 3.0),
        "heldout_verified_28_steps_guidance_3": measure(pipeline, n, 28, 3.0),
        "n": n,
    }


def main(
    out: Path,
    autoencoder: Path,
    steps: int = 5000,
    seed: int = 0,
    examples: int = 40_000,
    stop_at: float = 0.6,
    start: Path | None = None,
) -> None:
    """Train and save the whole pipeline to the folder ``out``, from ``start`` if there is an earlier one."""
    import torch

    from mmalign.loading.pipelines import Origin, open_pipeline

    torch.manual_seed(seed)
    kind, whole = "StableDiffusion3Pipeline", {"default": torch.float32}
    pipeline = open_pipeline(kind, Origin(model=str(start)), whole) if start else build_pipeline(autoencoder)
    for part in (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2):
        part.train().requires_grad_(True)
    provenance = train(pipeline, out, steps, seed, examples, stop_at)
    if start:
        provenance["earlier"] = json.loads((start / "provenance.json").read_text(encoding="utf-8"))
    save_atomically(out, pipeline.save_pretrained, provenance | {"metrics": final_metrics(pipeline)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/scenes_sd3"))
    parser.add_argument("--autoencoder", type=Path, default=Path("runs/scenes_autoencoder"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=40_000)
    parser.add_argument("--stop-at", type=float, default=0.6)
    parser.add_argument("--start", type=Path, help="go on from this saved pipeline")
    main(**vars(parser.parse_args()))
