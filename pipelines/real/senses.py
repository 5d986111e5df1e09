"""Do rewards whose models come in packages order what a reader and a listener would order?

    python -m pipelines.real.senses    # writes assets/results/real/senses.json; needs the extra `real`

Recordings are those that gradio (of the extra `demo`) brings: two of speech, two of music. Noise is white, at a ratio
of powers; a wrong pitch is the same recording played faster. Words are drawn in up to eight DejaVu and Liberation fonts
of the machine, or in Pillow's own.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign import errors_as_sentences, load_reward
from mmalign.core.checkout import commit
from mmalign.core.packages import need
from mmalign.core.tensor import Tensor
from mmalign.core.types import Audio, Prompt, Rollout
from mmalign.media.audio import read_audio
from pipelines._command_line import parser
from pipelines.real.models import model_folder
from pipelines.results import RESULTS, keep

SPEECH, MUSIC = ("heath_ledger.mp3", "cate_blanch.mp3"), ("sax.wav", "cantina.wav")
SECONDS = 9  # of a recording that are listened to
SIGN = "OPEN DAILY"
DRAWN = {
    "as asked": ("OPEN", "DAILY"),
    "a letter wrong": ("OPEN", "DAYLY"),
    "words turned round": ("DAILY", "OPEN"),
    "another word": ("CLOSED",),
    "no text": (),
}
TEXTS = {
    "the same, said otherwise": ("A cat sleeps on the windowsill.", "A kitten is napping by the window."),
    "near": ("A cat sleeps on the windowsill.", "A dog runs through the garden."),
    "unrelated": ("A cat sleeps on the windowsill.", "Quarterly earnings fell by nine per cent."),
}
ALIKE = ("A cat sleeps.", "The cat is asleep.", "A sleeping cat.", "The kitten naps.")
VARIED = ("A cat sleeps.", "Earnings fell again.", "Boil the rice first.", "The bridge is closed.")


def recording(name: str) -> Audio:
    """The first seconds of a recording, mixed to one channel."""
    samples, rate = read_audio(Path(need("gradio").__file__).parent / "media_assets" / "audio" / name)
    return Audio(samples.mean(0)[None, None, : SECONDS * rate], rate)


def noisy(sound: Audio, decibels: float) -> Audio:
    """The sound with white noise, `decibels` below its power."""
    noise = torch.randn(sound.samples.shape, generator=torch.Generator().manual_seed(0))
    level = sound.samples.square().mean().sqrt() * 10 ** (-decibels / 20)
    return Audio((sound.samples + level * noise).clamp(-1, 1), sound.rate)


def faster(sound: Audio, cents: float) -> Audio:
    """The sound played faster, so that every pitch in it is `cents` higher."""
    return Audio(sound.samples, round(sound.rate * 2 ** (cents / 1200)))


def scored(name: str, output: Any, prompt: Prompt, **options: Any) -> float:
    """The score of one output, of four digits."""
    return round(float(load_reward(name, **options)(Rollout([prompt], output, torch.zeros(1).long())).value[0]), 4)


def listening() -> dict[str, Any]:
    """Speech against music, clean speech against noisy, the right pitch against wrong ones."""
    voices, others = {n: recording(n) for n in SPEECH}, {n: recording(n) for n in MUSIC}
    prompt = Prompt("")
    scores: dict[str, Any] = {"speech": {n: scored("speech", sound, prompt) for n, sound in (voices | others).items()}}
    scores["speech_quality"] = {
        name: {f"{snr} dB": scored("speech_quality", noisy(sound, snr), prompt) for snr in (40, 20, 10, 0)}
        for name, sound in voices.items()
    }
    scores["pitch"] = {name: pitched(sound) for name, sound in voices.items()}
    return scores


def pitched(sound: Audio) -> dict[str, float]:
    """The score of a recording played faster, where its own pitch (the median, in eight parts) was asked for."""
    from mmalign.rewards.models.waves import waves

    reward = load_reward("pitch")
    cents, sure = reward.frame_pitches(waves(sound, 16_000)[0])
    parts = [cents[i][sure[i] >= 0.5] for i in torch.arange(len(cents)).tensor_split(8)]
    hertz = [10 * 2 ** (float(part.median() if len(part) else cents.median()) / 1200) for part in parts]
    prompt = Prompt("", meta={"hertz": hertz})
    return {f"{step} cents": scored("pitch", faster(sound, step), prompt) for step in (0, 100, 300, 600)}


def drawn(lines: Sequence[str], font: str | None, size: int = 256) -> Tensor:
    """Lines of text on a plain ground, (1, 3, size, size)."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (size, size), (240, 230, 200))
    letters = ImageFont.truetype(font, 34) if font else ImageFont.load_default(34)
    for i, line in enumerate(lines):
        ImageDraw.Draw(picture).text((20, 60 + 50 * i), line, fill=(30, 20, 90), font=letters)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255


def fonts() -> list[str | None]:
    """Fonts of the machine, at most eight; else Pillow's own."""
    places = [Path("/usr/share/fonts"), Path("/Library/Fonts"), Path(os.environ.get("WINDIR", "/none")) / "Fonts"]
    names = sorted(p for place in places for kind in ("DejaVu*", "Liberation*") for p in place.rglob(f"{kind}.ttf"))
    return [str(name) for name in names[:: max(1, math.ceil(len(names) / 8))]] or [None]


def reading() -> dict[str, Any]:
    """The mean score over fonts of what is drawn where a sign says OPEN DAILY, and the least of the right one."""
    prompt, each = Prompt(f'a sign that says "{SIGN}"'), fonts()
    scores: dict[str, Any] = {"fonts": [Path(font).stem if font else "Pillow's" for font in each]}
    for order in ("reading", "any"):
        by_font = {
            n: [scored("ocr", drawn(x, f), prompt, order=order, side=256) for f in each] for n, x in DRAWN.items()
        }
        scores[order] = {name: round(statistics.fmean(values), 4) for name, values in by_font.items()}
        scores[f"least as asked, {order}"] = min(by_font["as asked"])
    return scores


def meaning() -> dict[str, Any]:
    """all-MiniLM-L6-v2: token by token (`bmas`), whole sentences, and how many kinds a set has (`vendi`)."""
    from mmalign.rewards.encoders.text import TextEncoder

    folder = str(model_folder("minilm"))
    scores: dict[str, Any] = {"bmas": {}, "cosine": {}}
    for name, (first, second) in TEXTS.items():
        scores["bmas"][name] = scored("bmas", [second], Prompt("", meta={"references": [first]}), checkpoint=folder)
        one, other = TextEncoder(folder).texts([first, second])
        scores["cosine"][name] = round(float(one @ other), 4)
    vendi = load_reward("vendi", encoder={"name": "text", "checkpoint": folder})
    for name, texts in (("alike", ALIKE), ("varied", VARIED)):
        rollout = Rollout([Prompt("")] * len(texts), list(texts), torch.zeros(len(texts)).long())
        scores.setdefault("vendi", {})[name] = round(float(vendi.score(vendi.embed(rollout))), 4)
    return scores


if __name__ == "__main__":
    reader = parser(__doc__)
    reader.add_argument("--out", type=Path, default=RESULTS / "real" / "senses.json")
    args = reader.parse_args()
    with errors_as_sentences():
        command = {"command": "python -m pipelines.real.senses", "commit": commit()}
        keep(args.out, {**command, "reading": reading(), "meaning": meaning(), "listening": listening()})
