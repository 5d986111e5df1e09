"""What is brought and scored, part by part; and a rewriter's request, rewrites and pictures."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.core.errors import CapabilityError, DataError, MediaError
from mmalign.core.types import Audio, Prompt, Rollout, Scores, Status
from mmalign.demo import rewrite_tab
from mmalign.demo.answers import Side
from mmalign.demo.score_tab import brought, score_brought, verdicts_as_html
from mmalign.media.audio import write_audio
from mmalign.media.image import to_pil
from mmalign.run.load import Trained
from tests.typecheck import unchecked


def test_what_is_brought_is_one_output(tmp_path: Path) -> None:
    prompt = Prompt("a cat", meta={"count": 1})
    assert brought(prompt, "text", "a cat sits").output == ["a cat sits"]
    picture = brought(prompt, "image", to_pil(torch.full((3, 4, 6), 0.5)))
    assert picture.output.shape == (1, 3, 4, 6) and picture.prompts == [prompt]
    write_audio(torch.full((1, 800), 0.25), 8_000, tmp_path / "a.wav")
    sound = brought(prompt, "audio", str(tmp_path / "a.wav")).output
    assert isinstance(sound, Audio) and sound.samples.shape == (1, 1, 800) and sound.rate == 8_000
    for modality, said in (("text", "write a text"), ("image", "bring a picture"), ("audio", "bring a sound")):
        with pytest.raises(DataError, match=said):
            brought(prompt, modality, None)  # type: ignore[arg-type]
    (tmp_path / "b.wav").write_text("no sound")
    with pytest.raises(MediaError):
        brought(prompt, "audio", str(tmp_path / "b.wav"))


def test_every_reward_says_something_with_its_parts_as_bars(run: Trained) -> None:
    def stubborn(rollout: Rollout) -> Scores:
        raise CapabilityError("it reads <other> pictures.")

    rollout = brought(Prompt("a cat"), "image", to_pil(torch.rand(3, 16, 16)))
    found = score_brought({**run.rewards, "other": stubborn}, rollout)
    assert list(found) == ["crisp", "small", "other"] and found["other"] == "it reads <other> pictures."
    parts = {"colour": torch.tensor([0.25]), "margin": torch.tensor([-3.0]), "none": torch.tensor([math.nan])}
    made = Scores.of(torch.tensor([0.5]), parts=parts)
    lost = Scores(torch.tensor([math.nan]), torch.tensor([int(Status.NOT_APPLICABLE)]), info=["no <boxes>"])
    told = verdicts_as_html({"a<b>": made, "lost": lost, "other": found["other"]}, {"a<b>": "trained"})
    assert "a&lt;b&gt;" in told and "trained" in told and "no &lt;boxes&gt;" in told and "&lt;other&gt;" in told
    assert "width: 25.0%" in told and "colour" in told and "−3.000" in told and "width: 0;" in told
    assert "none" not in told and told.count('class="verdict"') == 3 and "does not apply" in told


def test_a_request_stands_beside_its_rewrites_by_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    class Through:
        def made(self, prompts: Any, texts: Any) -> Any:
            asked.append(list(texts))
            return Rollout.of(list(texts), torch.zeros(len(texts), 3, 4, 4))

    slots = {"align": SimpleNamespace(reward=Through())}
    run: Any = SimpleNamespace(parts=SimpleNamespace(reward=SimpleNamespace(slots=slots)))
    sides = [Side(Rollout.of(["a"], [text]), {}, torch.full((1, 3, 4, 4), i / 2)) for i, text in enumerate(("b", "c"))]
    monkeypatch.setattr(rewrite_tab, "generate_both", lambda *_: sides)
    with unchecked():  # the run is only what is read of it
        texts, made, both = rewrite_tab.rewrite(run, Prompt("a"), 7)
    assert texts == ["a", "b", "c"] and asked == [["a"]] and list(both) == sides
    assert [float(picture.mean()) for picture in made] == [0.0, 0.0, 0.5]
