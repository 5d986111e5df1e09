"""The embedded models by name, each with the call that makes it anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

AUTOENCODER, TUNES_AUTOENCODER = Path("runs/scenes_autoencoder"), Path("runs/tunes_autoencoder")


def autoencoder(out: Path) -> None:
    """The generator's autoencoder; it becomes part of `scenes_sd3`, so it lies outside `out`."""
    from pipelines.miniworld.scenes import train_autoencoder

    train_autoencoder.main(AUTOENCODER)


def generator(out: Path) -> None:
    """`out/scenes_sd3`, the generator of the scenes."""
    from pipelines.miniworld.scenes import train_generator

    train_generator.main(out / "scenes_sd3", AUTOENCODER)


def clip(out: Path) -> None:
    """`out/scenes_clip`: everything, then arrangements with the image tower fixed, then everything again.

    The strong weight decay of the last stretch is what lets it tell compositions apart that training never showed.
    """
    from pipelines.miniworld.scenes import train_clip

    folder = out / "scenes_clip"
    train_clip.main(folder, AUTOENCODER)
    train_clip.main(folder, AUTOENCODER, train_clip.Phase(steps=900, arranged=True), start=folder)
    train_clip.main(folder, AUTOENCODER, train_clip.Phase(steps=2000, seed=1, lr=6e-4), start=folder)
    train_clip.main(folder, AUTOENCODER, train_clip.Phase(steps=1400, seed=3, weight_decay=0.6), start=folder)


def rewriter(out: Path) -> None:
    """`out/scenes_rewriter`, which learns from rewrites that leave out most colours, sizes and relations."""
    from pipelines.miniworld.scenes import train_rewriter

    train_rewriter.main(out / "scenes_rewriter")


def vlm(out: Path) -> None:
    """`out/scenes_vlm`, on the image tower of `out/scenes_clip`; `assets/scenes_sd3` makes some of its pictures."""
    from pipelines.miniworld.scenes import train_vlm

    train_vlm.main(out / "scenes_vlm", clip=out / "scenes_clip")


def captioner(out: Path) -> None:
    """`out/scenes_captioner`: `out/scenes_vlm` after captions that leave out most colours, sizes and relations."""
    _unlearned(out, "scenes_captioner", seed=21, captions=1.0, boxes=0.3, careless=0.6)


def grounder(out: Path) -> None:
    """`out/scenes_grounder`: `out/scenes_vlm` after boxes of which most are drawn with a margin."""
    _unlearned(out, "scenes_grounder", seed=22, captions=0.3, boxes=2.0, loose=0.6)


def _unlearned(out: Path, name: str, **course: Any) -> None:
    """`out/scenes_vlm` after a short course of careless work, with the image tower fixed."""
    from pipelines.miniworld.scenes import train_vlm

    phase = train_vlm.Phase(
        steps=300, lr=6e-4, weight_decay=0.3, batch=16, rebuilt=64, asked=2, unseen=0.0, tower=0.0, hidden=0.0, **course
    )
    train_vlm.main(out / name, phase, start=out / "scenes_vlm")


def tunes_autoencoder(out: Path) -> None:
    """The tunes generator's autoencoder; it becomes part of `tunes_sa3`, so it lies outside `out`."""
    from pipelines.miniworld.tunes import train_autoencoder

    train_autoencoder.main(TUNES_AUTOENCODER)


def tunes_generator(out: Path) -> None:
    """`out/tunes_sa3`, the generator of the tunes."""
    from pipelines.miniworld.tunes import train_generator

    train_generator.main(out / "tunes_sa3", TUNES_AUTOENCODER)


def tunes_clap(out: Path) -> None:
    """`out/tunes_clap`, the judge of the tunes."""
    from pipelines.miniworld.tunes import train_clap

    train_clap.main(out / "tunes_clap", TUNES_AUTOENCODER)


MODELS: dict[str, Callable[[Path], None]] = {
    "autoencoder": autoencoder,
    "generator": generator,
    "clip": clip,
    "rewriter": rewriter,
    "vlm": vlm,
    "captioner": captioner,
    "grounder": grounder,
    "tunes_autoencoder": tunes_autoencoder,
    "tunes_generator": tunes_generator,
    "tunes_clap": tunes_clap,
}
