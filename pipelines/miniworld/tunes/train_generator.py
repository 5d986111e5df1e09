"""Train the tunes' Stable Audio 3 pipeline on latents of tunes that a clockwork plays.

``pipelines.miniworld tunes_generator`` (needs the autoencoder that
``pipelines.miniworld tunes_autoencoder`` makes). The model is deliberately stopped early: alignment needs
something to gain. Generate with
``pipeline(prompt, duration=2.048, num_inference_steps=8, logsnr_min=-3, logsnr_max=3)``:
the published grid spends half of so few steps on almost pure noise.
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmalign.loading.networks import open_network
from mmalign.loading.pipelines import Origin, open_pipeline
from mmalign.miniworld.tunes.clockwork import play_clips_in_step
from mmalign.miniworld.tunes.grammar import Request
from mmalign.miniworld.tunes.language import make_request
from mmalign.miniworld.tunes.splits import distinct_requests
from mmalign.miniworld.tunes.tune import RATE, SAMPLES
from mmalign.miniworld.tunes.verifier import verify_batch
from pipelines.miniworld.muon import build_optimizers
from pipelines.miniworld.provenance import save_atomically
from pipelines.miniworld.scenes.train_generator import MovingAverage
from pipelines.miniworld.tunes.words import build_tokenizer, tokenize

if TYPE_CHECKING:
    from diffusers import StableAudio3Pipeline
    from transformers import T5GemmaEncoderModel

SECONDS = SAMPLES / RATE
#: Ends of the grid of noise levels.
GRID = {"logsnr_min": -3.0, "logsnr_max": 3.0}
#: Share of captions replaced by the empty one, so that guidance has something to steer away from.
DROPPED_CAPTIONS = 0.1
#: Share of captions that state all of a tune: with nothing left open, each example says more of what its words do.
FULL_CAPTIONS = 0.4
#: Mean of the logit of the training times: above 0, towards noise, where the caption decides what is played.
TIME_SHIFT = 0.4
LEARNING_RATE = 1e-3
#: Strong, as for the scenes' CLIP: what training never showed together must not be learned pair by pair.
WEIGHT_DECAY = 0.2
_WIDTH, _WORDS = 160, 96


def build_pipeline(autoencoder: Path) -> "StableAudio3Pipeline":
    """An untrained pipeline around a trained autoencoder."""
    from diffusers import (
        AutoencoderSAME,
        FlowMatchEulerDiscreteScheduler,
        StableAudio3DiTModel,
        StableAudio3DurationEmbedder,
        StableAudio3Pipeline,
    )

    vae = open_network(autoencoder, AutoencoderSAME)
    transformer = StableAudio3DiTModel(
        io_channels=vae.config.latent_dim,
        embed_dim=_WIDTH,
        depth=4,
        num_heads=_WIDTH // 32,
        cond_token_dim=_WORDS,
        global_cond_dim=_WORDS,
        local_add_cond_dim=1,
        timestep_features_dim=64,
        ff_mult=2.0,
        num_memory_tokens=2,
        use_differential_attention=False,
    )
    return StableAudio3Pipeline(
        vae=vae,
        text_encoder=build_text_encoder(),
        tokenizer=build_tokenizer(),
        duration_embedder=StableAudio3DurationEmbedder(output_dim=_WORDS, fourier_dim=16, max_val=8.0),
        transformer=transformer,
        # Times are the noise levels themselves, and every step is deterministic, as for the undistilled checkpoints.
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )


def build_text_encoder() -> "T5GemmaEncoderModel":
    """A small T5Gemma encoder over the grammar's words."""
    from transformers import T5GemmaConfig, T5GemmaEncoderModel

    tokenizer = build_tokenizer()
    module = {
        "vocab_size": len(tokenizer),
        "hidden_size": _WORDS,
        "intermediate_size": 2 * _WORDS,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "max_position_embeddings": 64,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        # The published one assumes far larger widths and longer training.
        "initializer_range": 0.1,
    }
    config = T5GemmaConfig(encoder=module, decoder=module, is_encoder_decoder=False, vocab_size=len(tokenizer))
    return T5GemmaEncoderModel(config)


@torch.no_grad()
def make_examples(pipeline: "StableAudio3Pipeline", n: int, seed: int) -> tuple[Tensor, list[str], list[str]]:
    """Latents ``(n, channels, frames)`` of truth tunes of the train split, a caption of each, and one that says all."""
    latents, captions, full = [], [], []
    for part in range(0, n, 1000):
        clips, requests, tunes = play_clips_in_step(min(1000, n - part), 1_000_000 * (seed + 1) + part)
        sound = torch.from_numpy(clips)[:, None]
        latents.append(torch.cat([pipeline.vae.encode(some).latents for some in sound.split(100)]))
        captions += [request.text for request in requests]
        full += [make_request(tune._asdict()).text for tune in tunes]
    return torch.cat(latents), captions, full


def generate_heldout(
    pipeline: "StableAudio3Pipeline", n: int, steps: int, guidance: float = 1.0
) -> tuple[np.ndarray, list[Request]]:
    """Clips ``(n, SAMPLES)`` of ``n`` distinct held-out requests, and these; noise is fixed by the position."""
    requests = distinct_requests("heldout", n)
    pipeline.set_progress_bar_config(disable=True)
    generator, clips = torch.Generator().manual_seed(7), []
    for part in range(0, n, 64):
        prompts = [request.text for request in requests[part : part + 64]]
        made = pipeline(
            prompts, duration=SECONDS, num_inference_steps=steps, guidance_scale=guidance, generator=generator, **GRID
        )
        clips.append(made.audios[:, 0].numpy())
    return np.concatenate(clips), requests


def measure(pipeline: "StableAudio3Pipeline", n: int, steps: int, guidance: float = 1.0) -> float:
    """Share of ``n`` distinct held-out requests whose clip verifies, made by the pipeline itself."""
    clips, requests = generate_heldout(pipeline, n, steps, guidance)
    return float(verify_batch(clips, requests).fulfilled.mean())


def flow_loss(pipeline: "StableAudio3Pipeline", latents: Tensor, words: dict[str, Tensor]) -> Tensor:
    """Squared error of the predicted flow from data to noise, at a logit-normal time.

    Args:
        pipeline: what is trained.
        latents: ``(B, channels, frames)``.
        words: of `tokenize`.
    """
    sigma = torch.sigmoid(torch.randn(len(latents)) + TIME_SHIFT)
    noise = torch.randn_like(latents)
    duration = pipeline.duration_embedder(torch.full((len(latents),), SECONDS))
    states = pipeline.text_encoder(**words)[0]
    context, mask = pipeline.prepare_cross_attention(states, words["attention_mask"], duration)
    flow = pipeline.transformer(
        (1 - sigma)[:, None, None] * latents + sigma[:, None, None] * noise,
        sigma,
        encoder_hidden_states=context,
        encoder_attention_mask=mask,
        global_hidden_states=duration,
        return_dict=False,
    )[0]
    return torch.nn.functional.mse_loss(flow, noise - latents)


def train(
    pipeline: "StableAudio3Pipeline", out: Path, steps: int, seed: int, examples: int, stop_at: float, lr: float
) -> dict[str, Any]:
    """Train in place, saving after every report; ends when ``stop_at`` of held-out requests verify at eight steps."""
    started = time.time()
    latents, captions, full = make_examples(pipeline, examples, seed)
    print(f"{len(latents)} examples, deviation {latents.std():.3f}, {time.time() - started:.0f} s", flush=True)
    partly, fully, empty = (tokenize(pipeline.tokenizer, texts) for texts in (captions, full, [""]))
    trained = [pipeline.transformer, pipeline.text_encoder, pipeline.duration_embedder]
    average = MovingAverage(trained, decay=0.998)
    layers = (pipeline.transformer.transformer_blocks, pipeline.text_encoder.encoder.layers)
    optimizers = build_optimizers(trained, layers, lr, WEIGHT_DECAY, (0.9, 0.99))
    batch, report_every, recent = 64, 500, []
    for step in range(1, steps + 1):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = lr * min(1.0, step / 100) * max(0.05, 1 - 0.95 * step / steps)
        chosen = torch.randint(len(latents), (batch,))
        dropped, all_told = torch.rand(batch, 1) < DROPPED_CAPTIONS, torch.rand(batch, 1) < FULL_CAPTIONS
        read = {
            name: torch.where(dropped, empty[name], torch.where(all_told, fully[name][chosen], partly[name][chosen]))
            for name in empty
        }
        loss = flow_loss(pipeline, latents[chosen], read)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(average.weights, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average.update()
        recent.append(loss.item())
        if step % report_every == 0 or step == steps:
            average.swap()
            verified = measure(pipeline, 128, steps=8)
            seconds = round(time.time() - started)
            print(f"step {step} loss {np.mean(recent):.4f} verified {verified:.3f} {seconds} s", flush=True)
            provenance = {"seed": seed, "steps": step, "lr": lr, "batch": batch, "examples": examples}
            provenance |= {"seconds": seconds}
            if step == steps or verified >= stop_at:
                return provenance
            save(pipeline, out, provenance | {"metrics": {"heldout_verified_8_steps": verified}})
            average.swap()
            recent = []
    raise ValueError(f"steps must be at least 1, got {steps}")


def save(pipeline: "StableAudio3Pipeline", out: Path, provenance: dict[str, Any]) -> None:
    """Save the pipeline, its weights as half-precision numbers."""
    from safetensors.torch import load_file, save_file

    def write(folder: Path) -> None:
        pipeline.save_pretrained(folder)
        for file in folder.rglob("*.safetensors"):
            save_file({name: weight.half() for name, weight in load_file(file).items()}, file, {"format": "pt"})

    save_atomically(out, write, provenance)


def final_metrics(pipeline: "StableAudio3Pipeline", n: int = 256) -> dict[str, float]:
    """Held-out figures at the samplings that the toolkit uses."""
    return {
        "heldout_verified_8_steps": measure(pipeline, n, 8),
        "heldout_verified_8_steps_guidance_3": measure(pipeline, n, 8, 3.0),
        "heldout_verified_28_steps_guidance_3": measure(pipeline, n, 28, 3.0),
        "n": n,
    }


def main(
    out: Path,
    autoencoder: Path,
    steps: int = 5000,
    seed: int = 0,
    examples: int = 14_000,
    stop_at: float = 0.6,
    lr: float = LEARNING_RATE,
    start: Path | None = None,
) -> None:
    """Train and save the whole pipeline to ``out``, from ``start`` if there is an earlier one for the same latents."""
    kind, whole = "StableAudio3Pipeline", {"default": torch.float32}
    torch.manual_seed(seed)
    if start:
        pipeline = open_pipeline(kind, Origin(model=str(start), parts={"vae": autoencoder}), whole)
    else:
        pipeline = build_pipeline(autoencoder)
    for part in (pipeline.transformer, pipeline.text_encoder, pipeline.duration_embedder):
        part.train().requires_grad_(True)
    provenance = train(pipeline, out, steps, seed, examples, stop_at, lr)
    provenance["autoencoder"] = json.loads((autoencoder / "provenance.json").read_text(encoding="utf-8"))
    if start:
        provenance["earlier"] = json.loads((start / "provenance.json").read_text(encoding="utf-8"))
    save(pipeline, out, provenance)
    rounded = open_pipeline(kind, Origin(model=str(out)), whole)
    save(rounded, out, provenance | {"metrics": final_metrics(rounded)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/tunes_sa3"))
    parser.add_argument("--autoencoder", type=Path, default=Path("runs/tunes_autoencoder"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=14_000)
    parser.add_argument("--stop-at", type=float, default=0.6)
    parser.add_argument("--lr", type=float, default=LEARNING_RATE)
    parser.add_argument("--start", type=Path, help="go on from this saved pipeline")
    main(**vars(parser.parse_args()))
