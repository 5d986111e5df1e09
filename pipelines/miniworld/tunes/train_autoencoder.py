"""Train the tunes' ``AutoencoderSAME``: 2.048 s of clockwork to 16 frames of latents and back.

``pipelines.miniworld tunes_autoencoder``. One latent frame is one patch of 2048 samples, so nothing works
at the rate of the samples: waveform autoencoders with convolutions there (Oobleck) cost half a second a step and are
far from converged after hundreds of steps, and a HiFi-GAN, given a steady spectrogram, can only answer with what
repeats with its hop. In step with the frames (see ``clockwork``) the waveform is a function of what is heard, and plain
regression learns it.

Frames are coded one by one: the two stacks are trained as the perceptrons ``Stack``, and `assemble` writes them into
the autoencoder with an attention that hands each frame to its own latent and back.
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign.loading.networks import open_network
from mmalign.miniworld.tunes.clockwork import FRAME, play_clips_in_step
from mmalign.miniworld.tunes.listening import bands
from mmalign.miniworld.tunes.tune import RATE
from mmalign.miniworld.tunes.verifier import verify_batch
from pipelines.miniworld.provenance import save_atomically

if TYPE_CHECKING:
    from diffusers import AutoencoderSAME

WIDTH, CHANNELS, DEPTH, HEADS, SPREAD = 256, 32, 2, 8, 2
LEARNING_RATE = 2e-3
POLISHING_RATE = 7e-4
#: The largest deviation of the noise then: what an early generator gets wrong.
POLISHING_NOISE = 0.5
#: Not 32, which is how many tokens a clip has: diffusers 0.42 takes the (tokens, tokens) mask of attention for one of
#: (rows, tokens) when there are as many rows.
POLISHING_BATCH = 24
#: Deviation of the noise on latents in training, whose own is about one: small errors of a generator must not matter.
NOISE = 0.1
#: How sharply a token attends to the one before it.
_SHARP = 40.0


class Norm(nn.Module):
    """``gamma tanh(alpha x) + beta``, as in the autoencoder (Zhu et al., 2503.10622)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.6))
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Transform entry by entry."""
        return self.gamma * torch.tanh(self.alpha * x) + self.beta


class Stack(nn.Module):
    """What a frame's own token goes through: handed over by the first attention, then ``DEPTH`` gated perceptrons."""

    def __init__(self) -> None:
        super().__init__()
        self.handed = Norm(WIDTH)
        self.handing = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norms = nn.ModuleList([Norm(WIDTH) for _ in range(DEPTH)])
        self.wide = nn.ModuleList([nn.Linear(WIDTH, 2 * SPREAD * WIDTH) for _ in range(DEPTH)])
        narrow = [nn.Linear(SPREAD * WIDTH, WIDTH) for _ in range(DEPTH)]
        self.narrow = nn.ModuleList(narrow)
        nn.init.eye_(self.handing.weight)
        for layer in narrow:
            nn.init.normal_(layer.weight, std=0.3 / (SPREAD * WIDTH) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, WIDTH)`` to the same."""
        x = self.handing(self.handed(x))
        for norm, wide, narrow in zip(self.norms, self.wide, self.narrow, strict=True):
            value, gate = wide(norm(x)).chunk(2, dim=-1)
            x = x + narrow(value * functional.silu(gate))
        return x


class FrameCoder(nn.Module):
    """Frames ``(n, FRAME)`` to latents ``(n, CHANNELS)`` and back; it starts near the best linear one."""

    def __init__(self, frames: Tensor) -> None:
        super().__init__()
        self.heard, self.told = nn.Linear(FRAME, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.asked, self.played = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, FRAME)
        self.encoding, self.decoding = Stack(), Stack()
        _, basis = torch.linalg.eigh(frames.T @ frames)
        basis = basis.flip(1)[:, :WIDTH]
        with torch.no_grad():
            self.heard.weight.copy_(0.3 * basis.T)
            self.played.weight.copy_(basis / 0.3)
            self.heard.bias.zero_()
            self.played.bias.zero_()

    def encode(self, frames: Tensor) -> Tensor:
        """Latents of frames."""
        return self.told(self.encoding(self.heard(frames)))

    def decode(self, latents: Tensor) -> Tensor:
        """Frames of latents."""
        return self.played(self.decoding(self.asked(latents)))


def compressed(sound: Tensor) -> Tensor:
    """Complex spectra of clips ``(B, S)`` with the square root of their amplitudes: what is soft counts, too."""
    window = torch.hann_window(512, dtype=sound.dtype)
    spectrum = torch.stft(sound, 512, 256, window=window, pad_mode="constant", return_complex=True) / 16
    strength = spectrum.real.square() + spectrum.imag.square()
    return torch.view_as_real(spectrum) * ((strength + 1e-4) ** -0.25).unsqueeze(-1)


def losses(coder: FrameCoder, clips: Tensor) -> Tensor:
    """``(3,)``: errors of spectra and of samples relative to what there is, and how far latents are from unit scale."""
    latents = coder.encode(clips.view(-1, FRAME))
    rebuilt = coder.decode(latents + NOISE * torch.randn_like(latents)).view(clips.shape)
    ours, theirs = compressed(rebuilt), compressed(clips)
    spectra = (ours - theirs).square().sum() / theirs.square().sum()
    samples = (rebuilt - clips).square().sum() / clips.square().sum()
    scale = (latents.mean(0).square() + (latents.std(0) - 1).square()).mean()
    return torch.stack([spectra, samples, scale])


def loudness(sound: Tensor) -> Tensor:
    """How loud 40 bands are over time, ``(B, times, 40)`` logarithms; only what is near the loudest counts."""
    window = torch.hann_window(1024, dtype=sound.dtype)
    spectrum = torch.stft(sound, 1024, 128, window=window, pad_mode="constant", return_complex=True)
    power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
    strength = (power @ torch.from_numpy(bands(40)) + 1e-6).sqrt()
    return (strength / strength.detach().amax((1, 2), keepdim=True) + 0.1).log()


def train(steps: int, seed: int, batch: int, clips: int, report_every: int) -> tuple[FrameCoder, dict[str, Any]]:
    """Train on the train split; returns the coder and its provenance."""
    torch.manual_seed(seed)
    rng, started = np.random.default_rng(seed), time.time()
    material = torch.from_numpy(play_clips_in_step(clips, seed)[0]).half()
    print(f"{clips} clips after {time.time() - started:.0f} s", flush=True)
    coder = FrameCoder(material[:800].float().view(-1, FRAME))
    optimizer = torch.optim.AdamW(coder.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    recent = []
    for step in range(1, steps + 1):
        parts = losses(coder, material[rng.integers(len(material), size=batch)].float())
        optimizer.zero_grad()
        parts.dot(torch.tensor([1.0, 0.5, 0.1])).backward()
        nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(parts.detach().numpy())
        if step % report_every == 0 or step == steps:
            figures = np.round(np.mean(recent, axis=0), 4).tolist()
            print(f"step {step} losses {figures} {time.time() - started:.0f} s", measure(coder, 64), flush=True)
            recent = []
    normalise(coder, material[:1000].float().view(-1, FRAME))
    seconds = round(time.time() - started)
    return coder, {"seed": seed, "steps": steps, "batch": batch, "clips": clips, "seconds": seconds}


@torch.no_grad()
def normalise(coder: FrameCoder, frames: Tensor) -> None:
    """Give every latent channel mean zero and unit deviation; what is decoded does not change."""
    latents = coder.encode(frames)
    mean, deviation = latents.mean(0), latents.std(0)
    coder.told.weight.div_(deviation[:, None])
    coder.told.bias.sub_(mean).div_(deviation)
    coder.asked.bias.add_(coder.asked.weight @ mean)
    coder.asked.weight.mul_(deviation)


@torch.no_grad()
def measure(coder: "FrameCoder | AutoencoderSAME", n: int) -> dict[str, float]:
    """Reconstruction of held-out clips: error relative to their power, and the share that still verifies."""
    clips, requests, _ = play_clips_in_step(n, 10_001, "heldout")
    sound = torch.from_numpy(clips)
    if isinstance(coder, FrameCoder):
        rebuilt = coder.decode(coder.encode(sound.view(-1, FRAME))).view(sound.shape)
    else:
        rebuilt = coder(sound[:, None]).sample[:, 0]
    error = (rebuilt - sound).square().sum() / sound.square().sum()
    verified = verify_batch(rebuilt.numpy(), requests).fulfilled.mean()
    return {"heldout_error": round(float(error), 4), "heldout_verified": round(float(verified), 4), "n": n}


@torch.no_grad()
def assemble(coder: FrameCoder) -> "AutoencoderSAME":
    """The same functions as diffusers' autoencoder."""
    from diffusers import AutoencoderSAME

    model = AutoencoderSAME(
        audio_channels=1,
        patch_size=FRAME,
        encoder_channels=WIDTH,
        encoder_c_mults=(1,),
        encoder_strides=(1,),
        encoder_transformer_depths=(DEPTH,),
        latent_dim=CHANNELS,
        use_differential_attention=False,
        dim_heads=WIDTH // HEADS,
        ff_mult=SPREAD,
        sampling_rate=RATE,
    )
    for block, stack, mapping in (
        (model.encoder.blocks[0], coder.encoding, coder.heard),
        (model.decoder.blocks[0], coder.decoding, coder.played),
    ):
        block.mapping.weight_v.copy_(mapping.weight[..., None])
        block.mapping.weight_g.copy_(mapping.weight.norm(dim=1)[:, None, None])
        block.mapping.bias.copy_(mapping.bias)
        block.new_tokens.zero_()
        for index, layer in enumerate(block.transformers):
            for ours, theirs in (
                (stack.norms[index], layer.norm_ff),
                *(((stack.handed, layer.norm_attn),) * (not index)),
            ):
                theirs.load_state_dict(ours.state_dict())
            layer.ff.proj_in.load_state_dict(stack.wide[index].state_dict())
            layer.ff.proj_out.load_state_dict(stack.narrow[index].state_dict())
            layer.attn.to_qkv.weight.zero_()
        attend_to_the_token_before(block.transformers[0].attn)
        block.transformers[0].attn.to_qkv.weight[2 * WIDTH :].copy_(torch.eye(WIDTH))
        block.transformers[0].attn.to_out.weight.copy_(stack.handing.weight)
    model.encoder.proj.load_state_dict(coder.told.state_dict())
    model.decoder.proj.load_state_dict(coder.asked.state_dict())
    return model.eval()


def attend_to_the_token_before(attention: Any) -> None:
    """Queries and keys alike for all tokens, turned by their places so that place - 1 has the highest product.

    The first pair of channels turns by one radian a place: a query turned one place back meets the key there.
    """
    half, angle = attention.rope.inv_freq.numel(), attention.rope.inv_freq[0]
    key, query = torch.zeros_like(attention.k_norm.beta), torch.zeros_like(attention.k_norm.beta)
    key[0] = (_SHARP * attention.dim_heads**0.5) ** 0.5
    query[0], query[half] = key[0] * angle.cos(), -key[0] * angle.sin()
    for norm, value in ((attention.q_norm, query), (attention.k_norm, key)):
        norm.gamma.zero_()
        norm.beta.copy_(value)


def polish(
    model: "AutoencoderSAME", out: Path, steps: int, seed: int, clips: int, earlier: dict[str, Any]
) -> dict[str, Any]:
    """Train on with an ear for loudness, and with more noise on the latents: a generator's errors must stay small.

    A tone that is held and one that is struck again differ in a few soft samples, which the spectra hardly count: here
    they weigh as much as they are heard, and so they come to lie apart in the latents. Saves to ``out`` with every
    report; returns the provenance, ``earlier`` being what it is so far.
    """
    torch.manual_seed(seed)
    rng, started = np.random.default_rng(seed), time.time()
    material = torch.from_numpy(play_clips_in_step(clips, seed + 1)[0]).half()
    weights = list(model.requires_grad_(True).parameters())
    second = model.decoder.blocks[0].transformers[1]
    if not second.attn.to_qkv.weight.any():
        # Values begin at nothing, so that what has been learned is not disturbed.
        nn.init.normal_(second.attn.to_qkv.weight[: 2 * WIDTH], std=0.5 / WIDTH**0.5)
        second.norm_attn.alpha.data.fill_(0.6)
    optimizer = torch.optim.AdamW(weights, lr=POLISHING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, POLISHING_RATE, total_steps=steps, pct_start=0.1)
    recent = []
    for step in range(1, steps + 1):
        sound = material[rng.integers(len(material), size=POLISHING_BATCH)].float()
        latents = model.encode(sound[:, None]).latents
        strength = POLISHING_NOISE * torch.rand(POLISHING_BATCH, 1, 1)
        rebuilt = model.decode(latents + strength * torch.randn_like(latents)).sample[:, 0]
        ours, theirs = compressed(rebuilt), compressed(sound)
        spectra = (ours - theirs).square().sum() / theirs.square().sum()
        samples = (rebuilt - sound).square().sum() / sound.square().sum()
        joins = (loudness(rebuilt) - loudness(sound)).square().mean()
        scale = (latents.mean((0, 2)).square() + (latents.std((0, 2)) - 1).square()).mean()
        optimizer.zero_grad()
        (spectra + 0.5 * samples + 4.0 * joins + 0.3 * scale).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        recent.append((spectra.item(), samples.item(), joins.item(), scale.item()))
        if step % 50 == 0 or step == steps:
            figures, metrics = np.round(np.mean(recent, axis=0), 4).tolist(), measure(model, 64)
            print(f"polish {step} losses {figures} {time.time() - started:.0f} s", metrics, flush=True)
            earlier = earlier | {"polish_steps": step, "polish_seconds": round(time.time() - started)}
            save_atomically(out, model.save_pretrained, earlier | {"metrics": metrics})
            recent = []
    return earlier


def main(
    out: Path,
    steps: int = 1500,
    seed: int = 0,
    batch: int = 32,
    clips: int = 6000,
    polishing: int = 500,
    start: Path | None = None,
) -> None:
    """Train and save to the folder ``out``; with ``start``, only polish that autoencoder."""
    from diffusers import AutoencoderSAME

    if start:
        model = open_network(start, AutoencoderSAME).requires_grad_(True)
        provenance = json.loads((start / "provenance.json").read_text(encoding="utf-8"))
    else:
        coder, provenance = train(steps, seed, batch, clips, report_every=200)
        model = assemble(coder)
        save_atomically(out, model.save_pretrained, provenance | {"metrics": measure(model, 256)})
    provenance = polish(model, out, polishing, seed, clips, provenance) | {"metrics": measure(model, 256)}
    save_atomically(out, model.save_pretrained, provenance)
    print(provenance["metrics"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tunes_autoencoder"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--polishing", type=int, default=500)
    parser.add_argument("--start", type=Path, help="polish this saved autoencoder")
    main(**vars(parser.parse_args()))
