"""The pipelines of captioning and grounding run from start to end on the embedded model, two tiny steps each."""

import json
from pathlib import Path

from PIL import Image, ImageColor

from mmalign.evaluation.report.boxes import TRUE
from pipelines import captioning, grounding

SMALL = ("trainer.steps=2", "trainer.batch=2", "evaluation.count=6", "objective.group_size=2", "adapter.device=cpu")
FEW = ("data.count=8", "data.held_out=6")


def test_grounding_leaves_pictures_and_weights(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    rows = grounding.main(changes=(*SMALL, *FEW), out=tmp_path)
    assert {row.name: row.role for row in rows}["found"] == "verifier" and all(row.n == 6 for row in rows)
    assert len(list((tmp_path / "before").glob("*.png"))) == len(list((tmp_path / "after").glob("*.png"))) == 6
    AutoModelForImageTextToText.from_pretrained(tmp_path / "adapter")
    assert AutoProcessor.from_pretrained(tmp_path / "adapter").chat_template
    drawn = {colour for _, colour in Image.open(tmp_path / "before" / "00.png").getcolors(100_000)}
    assert ImageColor.getrgb(TRUE) in drawn


def test_captioning_leaves_captions_before_and_after(tmp_path: Path) -> None:
    rows = captioning.main(Path("configs/scenes/caption_bmas.yaml"), (*SMALL, *FEW), tmp_path)
    assert {"bmas", "judge_clip", "truth", "colours"} == {row.name for row in rows}
    said = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert len(said) == 6 and all(set(row) == {"references", "before", "after"} for row in said)
