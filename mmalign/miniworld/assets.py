"""Where the embedded models and prompt files lie."""

from pathlib import Path

from mmalign.core.files import absent_asset, assets_root

_TRAIN = "python -m pipelines.miniworld"  # in a source checkout
_MAKERS = {
    "scenes_sd3": f"{_TRAIN} autoencoder generator",
    "scenes_clip": f"{_TRAIN} clip",
    "scenes_grammar": "python -m pipelines.grammar_head --scenes 6000 --checkpoint assets/scenes_clip "
    "--out assets/scenes_grammar",
    "scenes_judge": "python -m pipelines.miniworld.scenes.train_clip --judge --out assets/scenes_judge",
    "scenes_rewriter": f"{_TRAIN} rewriter",
    "scenes_vlm": f"{_TRAIN} vlm",
    "scenes_captioner": f"{_TRAIN} captioner",
    "scenes_grounder": f"{_TRAIN} grounder",
    "tunes_sa3": f"{_TRAIN} tunes_autoencoder tunes_generator",
    "tunes_clap": f"{_TRAIN} tunes_clap",
    "prompts": "python -m mmalign.miniworld.splits && python -m mmalign.miniworld.tunes.splits",
}


class AssetMissing(FileNotFoundError):
    """An embedded model or prompt file that is not where it should be."""


def asset_path(name: str) -> Path:
    """Find ``assets/<name>``.

    Looked for in the folder named by the environment variable ``MMALIGN_ASSETS`` if it is set, and otherwise in the
    source checkout and then inside the installed package, which has the prompts alone.

    Raises:
        AssetMissing: naming the place searched and the command that makes the asset.
    """
    root = assets_root()
    if (root / name).exists():
        return root / name
    maker = _MAKERS.get(Path(name).parts[0] if name else "")
    remedy = f"make it with: {maker}" if maker else "check the name, or point MMALIGN_ASSETS at the assets folder"
    raise AssetMissing(f"no asset {name!r} in {root}; {remedy}. {absent_asset(f'assets/{name}')}".strip())
