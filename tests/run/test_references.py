"""What a run file names: found from every folder, there before anything loads, and never asked blind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mmalign.core.config import dump, load
from mmalign.core.errors import DataError
from mmalign.media.image import write_image
from mmalign.run.build import build, examine, held_out
from mmalign.run.evaluate import evaluate
from mmalign.run.train import train

RUN = """
adapter: {name: image_text, model: models/tiny}
policy: {name: tokens, max_new_tokens: 4}
rewards:
  same: {name: exact_match, column: answer}
  liked: {name: reward_model, model: models/liked}
objective: {name: grpo, group_size: 4}
data: {name: prompts, path: rows.jsonl, image: image}
evaluation: {prompts: asked.jsonl}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A run file in `proj/`, whose models lie beside that folder."""
    proj = tmp_path / "proj"
    (proj / "image").mkdir(parents=True)
    for name in ("models/tiny", "models/liked", "image", "answer"):
        (tmp_path / name).mkdir(parents=True)
    rows = [{"prompt": f"{n}?", "image": f"image/{n}.png", "answer": "x"} for n in range(4)]
    for row in rows:
        write_image(torch.zeros(3, 4, 4), proj / row["image"])
    for name in ("rows", "asked"):
        (proj / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (proj / "run.yaml").write_text(RUN)
    return proj


def test_a_resolved_file_means_the_same_from_every_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = project.parent
    monkeypatch.chdir(top)
    (project / "asked.jsonl").rename(top / "asked.jsonl")
    shutil.copytree(project / "image", top / "image", dirs_exist_ok=True)
    resolved = build(load(Path("proj/run.yaml"))).resolved()
    assert resolved.adapter["model"] == str(top / "models/tiny")
    assert resolved.rewards["liked"]["model"] == str(top / "models/liked")
    assert resolved.rewards["same"]["column"] == "answer" and resolved.data["image"] == "image"  # columns, not folders
    assert (resolved.base, resolved.data["path"]) == (str(project), "rows.jsonl")
    assert resolved.evaluation.prompts == str(top / "asked.jsonl")
    (top / "elsewhere").mkdir()
    (top / "elsewhere" / "run.yaml").write_text(dump(resolved))
    monkeypatch.chdir(top / "elsewhere")
    again = build(load(Path("run.yaml")))
    assert len(examine(again.file)[1]) == 4 and again.resolved().to_dict() == resolved.to_dict()


def test_prompts_of_another_file_keep_their_pictures(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # its models are named, not there
    parts = build(load(project / "run.yaml"))
    assert held_out(parts)[0].media["image"].shape == (3, 4, 4)
    (project / "blind.txt").write_text("what is this?\n")
    with pytest.raises(DataError, match=r"blind\.txt: no column 'image' with the picture that each prompt is about"):
        evaluate(project / "run.yaml", prompts=project / "blind.txt")


def test_pictures_that_are_not_there_are_told_before_anything_loads(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for number in (1, 3):
        (project / "image" / f"{number}.png").unlink()
    with pytest.raises(DataError) as caught:
        train(load(project / "run.yaml"), out=tmp_path / "run")
    assert [line.partition(": ")[0] for line in str(caught.value).split("\n")] == [
        f"{project}/{file}.jsonl:{line}" for file in ("rows", "asked") for line in (2, 4)
    ]
    assert "1.png cannot be read (No such file or directory)" in str(caught.value)
    assert not (tmp_path / "run").exists()
    (project / "rows.jsonl").write_text((project / "rows.jsonl").read_text().partition("\n")[0] + "\n")
    with pytest.raises(DataError, match=r"asked\.jsonl:2: .*1\.png cannot be read"):
        evaluate(load(project / "run.yaml"))
