"""Train the tunes' CLAP, a ``ClapModel`` of transformers at small size.

``pipelines.miniworld tunes_clap`` makes ``assets/tunes_clap`` (needs the autoencoder of
``pipelines.miniworld.tunes.train_autoencoder`` for clips as a generator makes them). Its sounds are one window of
2.048 s, 64 frames of 64 mel bands, read by the ``clap`` reward as any CLAP checkpoint.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmalign.loading.networks import open_network
from mmalign.media.mel import LogMel
from mmalign.miniworld.tunes.clips import play_clips
from mmalign.miniworld.tunes.clockwork import play_clips_in_step
from mmalign.miniworld.tunes.grammar import Request, hard_negatives, restatements, sample_request, sample_tune
from mmalign.miniworld.tunes.instruments import unnamed
from mmalign.miniworld.tunes.language import Clause, clause_holds, make_request
from mmalign.miniworld.tunes.rendering import render
from mmalign.miniworld.tunes.tune import ATTRIBUTES, RATE, SAMPLES, Tune
from pipelines.miniworld.muon import build_optimizers
from pipelines.miniworld.provenance import save_atomically
from pipelines.miniworld.scenes.train_clip import contrast
from pipelines.miniworld.tunes.words import MAX_TOKENS, build_tokenizer, tokenize

if TYPE_CHECKING:
    from transformers import ClapModel

CHOICES = 32
#: Share of training clips on instruments that no caption names.
STRANGE = 0.3
#: Near misses per clip in a batch.
NEGATIVES = 2
LEARNING_RATE = 1.5e-3
#: As strong as took the scenes' CLIP from 82 to 92 %: combinations must not be learned one by one.
WEIGHT_DECAY = 0.5
WIDTH = 128
#: Of matching, and of naming the tune's attributes from the embedding, which makes the tower hear them long before
#: captions reward it.
LOSS_WEIGHTS = (1.0, 0.3)
_HOP = 520  # 64 frames a clip
_PLACES = 1 + max(map(len, ATTRIBUTES.values()))  # the last is of what has no name
FRONT = {
    "feature_size": 64,
    "sampling_rate": RATE,
    "hop_length": _HOP,
    "max_length_s": SAMPLES / RATE,
    "fft_window_size": 1024,
    "frequency_min": 150,
    "frequency_max": 7600,
    "truncation": "rand_trunc",
    "padding": "repeatpad",
}


def build_model() -> "ClapModel":
    """An untrained model of about two million weights."""
    from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

    tokenizer = build_tokenizer()
    audio = ClapAudioConfig(
        spec_size=64,
        num_mel_bins=64,
        patch_size=4,
        patch_stride=[4, 4],
        window_size=4,
        patch_embeds_hidden_size=48,
        depths=[2, 2, 2],
        num_attention_heads=[3, 6, 12],
        hidden_size=192,
        mlp_ratio=3.0,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        hidden_dropout_prob=0.0,
    )
    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=MAX_TOKENS + 2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        projection_dim=WIDTH,
    )
    model = ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=WIDTH))
    with torch.no_grad():
        # The tower knows no absolute pitch but by what this adds to each band.
        model.audio_model.audio_encoder.batch_norm.bias.copy_(torch.linspace(-1, 1, 64))
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "bias_table" not in name and "embedding" not in name:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
            elif "embeddings" in name and weight.ndim == 2:
                nn.init.normal_(weight, std=0.3)
    return model


def front() -> LogMel:
    """The log-mel spectrogram that the model hears."""
    return LogMel(rate=RATE, n_fft=1024, hop=_HOP, bands=64, low=150.0, high=7600.0, scale="slaney")


@dataclass
class Examples:
    """Spectrograms ``(n, 64, 64)`` in half precision, and the tune and caption of each."""

    mels: Tensor
    requests: list[Request]
    tunes: list[Tune]
    _said: dict[int, tuple[list[Request], list[Request]]] = field(default_factory=dict)

    def captions(self, rows: np.ndarray, rng: np.random.Generator) -> list[Request]:
        """A true caption of every chosen tune, then ``NEGATIVES`` near misses of each."""
        own, near = [], []
        for i in map(int, rows):
            if i not in self._said:
                request, tune = self.requests[i], self.tunes[i]
                true = [request, *restatements(request, tune, "train")]
                self._said[i] = (
                    true,
                    [edit for each in true[:3] for edit in hard_negatives(each, 6, rng, tune, "train")],
                )
            true, false = self._said[i]
            own.append(true[rng.integers(len(true))])
            near += [false[j] for j in rng.choice(len(false), NEGATIVES)]
        return own + near


@torch.no_grad()
def hear(clips: np.ndarray) -> Tensor:
    """``(n, 64, 64)`` dB of clips ``(n, SAMPLES)``."""
    return torch.cat([front()(part) for part in torch.from_numpy(clips).split(100)])


def play_unnamed(n: int, seed: int, split: str = "train") -> tuple[np.ndarray, list[Request], list[Tune]]:
    """Play as ``play_clips`` does, on instruments that no caption names: a chord must not depend on who plays it."""
    rng = np.random.default_rng([83, seed])
    clips, requests, tunes = np.empty((n, SAMPLES), dtype=np.float32), [], []
    for clip in clips:
        stated = sample_request(rng, split).stated
        requests.append(make_request({name: value for name, value in stated.items() if name != "timbre"}))
        tune = sample_tune(requests[-1], rng)
        clip[:] = render(tune, rng, unnamed(rng))
        tunes.append(tune._replace(timbre=""))
    return clips, requests, tunes


@torch.no_grad()
def make_examples(
    n: int, seed: int, split: str, autoencoder: Path, rebuilt: float = 0.4, strange: float = 0.0, noise: float = 0.2
) -> Examples:
    """Make examples of clips whose tunes are known.

    Args:
        n: how many.
        seed: decides everything.
        split: of the requests.
        autoencoder: folder.
        rebuilt: share of clips by clockwork and through the autoencoder, with noise on its latents.
        strange: share on instruments without a name.
        noise: greatest deviation of that noise.
    """
    from diffusers import AutoencoderSAME

    vae, through = open_network(autoencoder, AutoencoderSAME), round(n * rebuilt)
    generator, mels, requests, tunes = torch.Generator().manual_seed(seed), [], [], []
    for start in range(0, n, 500):
        count, codec = min(500, n - start), start < through
        play = play_clips_in_step if codec else play_unnamed if start >= n * (1 - strange) else play_clips
        clips, clip_requests, played = play(count, 2_000_000 + 1000 * seed + start, split)
        for some in torch.from_numpy(clips).split(100):
            if codec:
                latents = vae.encode(some[:, None]).latents
                strength = noise * torch.rand(len(some), 1, 1, generator=generator)
                some = vae.decode(latents + strength * torch.randn(latents.shape, generator=generator)).sample[:, 0]
            mels.append(front()(some).half())
        requests += clip_requests
        tunes += played
    return Examples(torch.cat(mels), requests, tunes)


def truths(tunes: list[Tune], requests: list[Request]) -> Tensor:
    """``(B, M)`` bool: which requests hold of which tune."""
    fits = np.ones((len(requests), len(ATTRIBUTES), _PLACES), dtype=bool)
    for row, request in zip(fits, requests, strict=True):
        for name, value in request.clauses:
            at = list(ATTRIBUTES).index(name)
            row[at] = [clause_holds(_with(name, v), Clause(name, value)) for v in _padded(ATTRIBUTES[name])]
    return torch.from_numpy(fits[:, np.arange(len(ATTRIBUTES)), attributes(tunes).numpy()].all(axis=-1).T)


def _padded(values: tuple[str, ...]) -> tuple[str, ...]:
    return values + ("",) * (_PLACES - len(values))


def _with(name: str, value: str) -> Tune:
    return Tune(*["" if other != name else value for other in Tune._fields])


def attributes(tunes: list[Tune]) -> Tensor:
    """``(B, 6)``: the place of each value among those of its attribute; -1 for a timbre without a name."""
    return torch.tensor(
        [[ATTRIBUTES[name].index(value) if value else -1 for name, value in tune._asdict().items()] for tune in tunes]
    )


def disturbed(mels: Tensor, rng: np.random.Generator) -> Tensor:
    """Spectrograms with a little noise in some, at another level."""
    floor = torch.from_numpy(rng.uniform(-75, -15, size=(len(mels), 1, 1)).astype(np.float32))
    mels = mels.float() + torch.from_numpy(rng.uniform(-4, 4, size=(len(mels), 1, 1)).astype(np.float32))
    return torch.where(torch.from_numpy(rng.random((len(mels), 1, 1)) < 0.5), torch.logaddexp(mels, floor), mels)


@torch.no_grad()
def accuracy(model: "ClapModel", examples: Examples, seed: int = 0) -> float:
    """How often the true caption wins against 31 with one change (more where those run out)."""
    rng, tokenizer, rows = np.random.default_rng(seed), build_tokenizer(), []
    for request, tune in zip(examples.requests, examples.tunes, strict=True):
        others = hard_negatives(request, CHOICES - 1, rng, tune)
        rows.append([request.text, *(other.text for other in others)])
    distinct = sorted({text for row in rows for text in row})
    places = {text: i for i, text in enumerate(distinct)}
    training = model.training
    model.eval()
    audio = torch.cat(
        [model.get_audio_features(part[:, None].float()).pooler_output for part in examples.mels.split(128)]
    )
    read = model.get_text_features(**tokenize(tokenizer, distinct)).pooler_output
    model.train(training)
    picks = [int((h @ read[[places[text] for text in row]].T).argmax()) for h, row in zip(audio, rows, strict=True)]
    return float(np.mean(np.array(picks) == 0))


def train(
    model: "ClapModel", out: Path, autoencoder: Path, steps: int, seed: int, clips: int, lr: float
) -> dict[str, Any]:
    """Train in place, saving after every report; returns the provenance."""
    started, batch, report_every = time.time(), 64, 200
    material = make_examples(clips, seed, "train", autoencoder, strange=STRANGE)
    heldout = make_examples(200, 777, "heldout", autoencoder)
    named = attributes(material.tunes)
    print(f"{len(material.mels)} examples after {time.time() - started:.0f} s", flush=True)
    rng, tokenizer = np.random.default_rng([8, seed]), build_tokenizer()
    naming = nn.Linear(WIDTH, sum(len(values) for values in ATTRIBUTES.values()))
    weights = [*model.parameters(), *naming.parameters()]
    layers = (model.audio_model.audio_encoder.layers, model.text_model.encoder.layer)
    optimizers = build_optimizers((model, naming), layers, lr, WEIGHT_DECAY, (0.9, 0.98))
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1, cycle_momentum=False)
        for optimizer in optimizers
    ]
    recent = []
    for step in range(1, steps + 1):
        rows = rng.integers(len(material.mels), size=batch)
        tunes = [material.tunes[i] for i in rows]
        captions = material.captions(rows, rng)
        pooled = model.audio_model(disturbed(material.mels[rows], rng)[:, None]).pooler_output
        audio_features = model.audio_projection(pooled)
        read = model.get_text_features(**tokenize(tokenizer, [caption.text for caption in captions])).pooler_output
        matching = contrast(
            functional.normalize(audio_features, dim=-1), read, truths(tunes, captions), model.logit_scale_a.exp()
        )
        logits = naming(audio_features).split([len(values) for values in ATTRIBUTES.values()], dim=1)
        known = torch.stack(
            [functional.cross_entropy(part, named[rows, i], ignore_index=-1) for i, part in enumerate(logits)]
        ).sum()
        for optimizer in optimizers:
            optimizer.zero_grad()
        (LOSS_WEIGHTS[0] * matching + LOSS_WEIGHTS[1] * known).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            model.logit_scale_a.clamp_(0, np.log(100))
        recent.append((matching.item(), known.item()))
        if step % report_every == 0 or step == steps:
            chosen, seconds = accuracy(model, heldout), round(time.time() - started)
            print(f"step {step} losses {np.mean(recent, axis=0).round(3)} heldout {chosen:.3f} {seconds} s", flush=True)
            provenance = {"seed": seed, "steps": step, "lr": lr, "batch": batch, "clips": clips}
            provenance |= {"seconds": seconds}
            save(model, out, provenance | {"metrics": {"heldout_accuracy_of_32": chosen}})
            recent = []
    return provenance


def save(model: "ClapModel", out: Path, provenance: dict[str, Any]) -> None:
    """Save as transformers loads it, with tokenizer and front end."""
    from transformers import ClapFeatureExtractor

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        ClapFeatureExtractor(**FRONT).save_pretrained(folder)

    save_atomically(out, write, provenance)


def main(
    out: Path,
    autoencoder: Path,
    steps: int = 2000,
    seed: int = 0,
    clips: int = 6000,
    lr: float = LEARNING_RATE,
    start: Path | None = None,
) -> None:
    """Train and save to the folder ``out``, from ``start`` if there is an earlier one."""
    from transformers import ClapModel

    torch.manual_seed(seed)
    model = open_network(start, ClapModel) if start else build_model()
    model.train().requires_grad_(True)
    provenance = train(model, out, autoencoder, steps, seed, clips, lr)
    if start:
        provenance["earlier"] = json.loads((start / "provenance.json").read_text(encoding="utf-8"))
    model.eval()
    metrics = {
        "heldout_accuracy_of_32": accuracy(model, make_examples(400, 778, "heldout", autoencoder, rebuilt=0.0)),
        "heldout_accuracy_of_32_after_autoencoder": accuracy(
            model, make_examples(400, 779, "heldout", autoencoder, rebuilt=1.0)
        ),
        "train_split_accuracy_of_32": accuracy(model, make_examples(400, 780, "train", autoencoder, rebuilt=0.0)),
        "n": 400,
    }
    save(model, out, provenance | {"metrics": metrics})
    print(metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/tunes_clap"))
    parser.add_argument("--autoencoder", type=Path, default=Path("assets/tunes_sa3/vae"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--lr", type=float, default=LEARNING_RATE)
    parser.add_argument("--start", type=Path, help="go on from this saved model")
    main(**vars(parser.parse_args()))
