"""The embedded models by name, each with the call that makes it anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

AUTOENCODER = Path("runs/scenes_autoencoder")


def autoencoder(out: Path) -> None:
    """The generator's autoencoder; it becomes part of `scenes_sd3`, so it lies outside `out`."""
    from mmalign.miniworld import train_autoencoder

    train_autoencoder.main(AUTOENCODER)


def generator(out: Path) -> None:
    """`out/scenes_sd3`."""
    from mmalign.miniworld import train_generator

    train_generator.main(out / "scenes_sd3", AUTOENCODER)


def clip(out: Path) -> None:
    """`out/scenes_clip`."""
    from mmalign.miniworld import train_clip

    train_clip.main(out / "scenes_clip", AUTOENCODER)


def rewriter(out: Path) -> None:
    """`out/scenes_rewriter`."""
    from mmalign.miniworld import train_rewriter

    train_rewriter.main(out / "scenes_rewriter")


MODELS: dict[str, Callable[[Path], None]] = {
    "autoencoder": autoencoder,
    "generator": generator,
    "clip": clip,
    "rewriter": rewriter,
}
