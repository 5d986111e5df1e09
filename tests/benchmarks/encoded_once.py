"""Seconds of a step of fine-tuning with what is encoded kept on the disk, and encoded anew in each step."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from mmalign.core.config import load
from mmalign.core.files import assets_root
from mmalign.core.types import Audio
from mmalign.data.sources.captioned import Captioned
from mmalign.data.sources.scenes import Scenes
from mmalign.media.audio import write_audio
from mmalign.media.image import write_image
from mmalign.run.train import train

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS, STEPS = 48, 12
#: One noise draw a row, and nothing beside the steps.
PLAIN = [
    *("objective.draws=1", f"trainer.steps={STEPS}", "trainer.prompts_per_step=16", "trainer.preview_every=0"),
    *("evaluation.judges={}", "evaluation.count=1"),
]


def measure(repeats: int = 3) -> dict[str, Any]:
    """By generator: median seconds of a step and of its encoding, off, in the first run that keeps, and in a later."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        return {
            "scenes_sd3": _measured(folder / "scenes", _pictures(folder / "pictures"), repeats),
            "tunes_sa3": _measured(folder / "tunes", _sounds(folder / "sounds"), repeats),
        }


def _pictures(folder: Path) -> list[str]:
    for number, row in enumerate(Scenes(skill="draw", count=ROWS, held_out=1).training_items()):
        write_image(row.output, folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(row.prompt.text)
    return [str(CONFIGS / "scenes" / "finetune.yaml"), f"data={{name: captioned, path: {folder}}}"]


def _sounds(folder: Path) -> list[str]:
    rows = Captioned(str(assets_root() / "exemplars" / "mixed" / "rows.jsonl"), caption="prompt", output="output")
    for number in range(ROWS):
        row = rows.training_items()[number]
        assert isinstance(row.output, Audio)
        write_audio(row.output.samples[0], row.output.rate, folder / f"{number:03d}.wav")
        (folder / f"{number:03d}.txt").write_text(row.prompt.text)
    return [str(CONFIGS / "tunes" / "finetune.yaml"), f"data={{name: captioned, path: {folder}}}"]


def _measured(out: Path, run: list[str], repeats: int) -> dict[str, Any]:
    file, data = run
    sides: dict[str, list[dict[str, float]]] = {"off": [], "first": [], "later": []}
    for repeat in range(repeats):
        os.environ["MMALIGN_CACHE"] = str(out / f"cache_{repeat}")
        for side, steps in sides.items():
            kept = "data.encoded_gib=0" if side == "off" else "data.encoded_gib=1"
            train(load(Path(file), [data, kept, *PLAIN]), out=out / f"{side}_{repeat}")
            lines = (out / f"{side}_{repeat}" / "metrics.jsonl").read_text().splitlines()
            steps += [line for line in map(json.loads, lines) if "time/update" in line][1:]  # the first warms up
    found: dict[str, Any] = {
        side: {
            "step_seconds": round(statistics.median(line["time/collect"] + line["time/update"] for line in steps), 4),
            "encoding_seconds": round(statistics.median(line["time/collect"] for line in steps), 4),
        }
        for side, steps in sides.items()
    }
    found["kept_bytes"] = sum(path.stat().st_size for path in (out / "cache_0").rglob("*.safetensors"))
    return found
