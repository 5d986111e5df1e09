"""Where the embedded models and prompt files lie."""

from pathlib import Path

from mmalign.core.files import assets_root

_MAKERS = {
    "scenes_sd3": "python -m mmalign.miniworld.train_autoencoder && python -m mmalign.miniworld.train_generator",
    "scenes_clip": "python -m mmalign.miniworld.train_clip",
    "scenes_grammar": "python -m pipelines.grammar_head --scenes 6000 --checkpoint assets/scenes_clip "
    "--out assets/scenes_grammar",
    "scenes_judge": "python -m mmalign.miniworld.train_clip --judge --out assets/scenes_judge",
    "scenes_rewriter": "python -m mmalign.miniworld.train_rewriter",
    "scenes_vlm": "mmalign miniworld train vlm",
    "scenes_captioner": "mmalign miniworld train captioner",
    "scenes_grounder": "mmalign miniworld train grounder",
    "tunes_sa3": "python -m mmalign.miniworld.tunes.train_autoencoder && "
    "python -m mmalign.miniworld.tunes.train_generator",
    "tunes_clap": "python -m mmalign.miniworld.tunes.train_clap",
    "prompts": "python -m mmalign.miniworld.splits && python -m mmalign.miniworld.tunes.splits",
}


class AssetMissing(FileNotFoundError):
    """An embedded model or prompt file that is not where it should be."""


def asset_path(name: str) -> Path:
    """Find ``assets/<name>``.

    Looked for in the folder named by the environment variable ``MMALIGN_ASSETS`` if it is set, and otherwise in the
    source checkout and then inside the installed package.

    Raises:
        AssetMissing: naming the place searched and the command that makes the asset.
    """
    root = assets_root()
    if (root / name).exists():
        return root / name
    maker = _MAKERS.get(Path(name).parts[0] if name else "")
    remedy = f"make it with: {maker}" if maker else "check the name, or point MMALIGN_ASSETS at the assets folder"
    raise AssetMissing(f"no asset {name!r} in {root}; {remedy}")
