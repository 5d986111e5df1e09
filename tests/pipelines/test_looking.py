"""The pipelines of pictures, captions and boxes run from start to end on the embedded models, two tiny steps each."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor

from mmalign.core.signals import Interrupted
from mmalign.evaluation.report.boxes import TRUE
from pipelines import captioning, grounding, text_to_image

SMALL = (
    "trainer.steps=2",
    "trainer.prompts_per_step=2",
    "evaluation.count=6",
    "objective.group_size=2",
    "adapter.device=cpu",
)
FEW = ("data.count=8", "data.held_out=6")


def test_grounding_leaves_pictures_and_weights(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    place = tmp_path / "run"
    rows = grounding.main(changes=(*SMALL, *FEW), out=place).rows
    assert {row.name: row.role for row in rows}["found"] == "verifier" and all(row.n == 6 for row in rows)
    boxes = place / "boxes"
    assert len(list((boxes / "before").glob("*.png"))) == len(list((boxes / "after").glob("*.png"))) == 6
    weights = place / "checkpoints" / "step_000002" / "adapter"
    AutoModelForImageTextToText.from_pretrained(weights)
    assert AutoProcessor.from_pretrained(weights).chat_template
    drawn = {colour for _, colour in Image.open(boxes / "before" / "00.png").getcolors(100_000)}
    assert ImageColor.getrgb(TRUE) in drawn


def test_captioning_leaves_captions_before_and_after(tmp_path: Path) -> None:
    rows = captioning.main(Path("configs/scenes/caption_bmas.yaml"), (*SMALL, *FEW), tmp_path / "run").rows
    assert {"bmas", "judge_clip", "truth", "colours"} == {row.name for row in rows}
    said = [json.loads(line) for line in (tmp_path / "run" / "captions.jsonl").read_text().splitlines()]
    assert len(said) == 6 and all(set(row) == {"references", "before", "after"} for row in said)


TINY = (
    *(
        "trainer.steps=3",
        "trainer.prompts_per_step=1",
        "trainer.minibatches=1",
        "objective.group_size=2",
        "evaluation.count=3",
    ),
    *("policy={name: flow, num_inference_steps: 2, eval_steps: 2}", "evaluation.judges={}", "adapter.device=cpu"),
    *("trainer.preview_every=1", "trainer.evaluate_every=2", "trainer.save_every=1"),
)


def test_what_a_run_file_asks_for_along_the_way_is_done_and_ctrl_c_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook is called after every step; the second is stopped by the first person to press Ctrl-C."""
    import signal

    seen: list[int] = []

    def hook(session: Any, policy: Any, experience: Any) -> None:
        seen.append(session.step)
        if seen == [1, 2]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(text_to_image, "steep", hook)
    place = tmp_path / "run"
    with pytest.raises(Interrupted, match=r"resume='.*run' .*goes on after step 2 of 3"):
        text_to_image.main(changes=TINY, out=place)
    assert {path.name for path in (place / "checkpoints").iterdir()} >= {"step_000002"}
    finished = text_to_image.main(resume=place)
    assert seen == [1, 2, 3] and {"colourful", "clauses", "all"} == {row.name for row in finished.rows}
    assert [path.name for path in sorted((place / "samples").iterdir())] == [f"step_00000{i}" for i in (1, 2, 3)]
    measured = [line for line in (place / "metrics.jsonl").read_text().splitlines() if "eval/colourful" in line]
    assert [json.loads(line)["step"] for line in measured] == [2, 3]  # along the way, and at the end


def test_a_judge_of_one_s_own_is_checked_like_any_other(tmp_path: Path) -> None:
    import mmalign
    from mmalign.core.errors import CapabilityError, ConfigError

    for judges, told in (
        ({"clauses": text_to_image.colourful()}, "evaluation.judges.clauses: a reward or judge of the run file has"),
        ({"own": text_to_image.colourful}, "evaluation.judges.own: a judge is a reward, as my_rule"),
    ):
        with pytest.raises(ConfigError, match=told):
            mmalign.train(text_to_image.CONFIG, out=tmp_path / "run", judges=judges)
    with pytest.raises(CapabilityError, match=r"evaluation.judges.own: judges text, but the policy makes image"):
        mmalign.train(text_to_image.CONFIG, out=tmp_path / "run", judges={"own": captioning.colours_named()})
    assert not (tmp_path / "run").exists()
