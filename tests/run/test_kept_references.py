"""A run that goes on compares with the reference it began with, whatever has become of the files it was made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.core.config import load
from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Audio, Prompt, Rollout
from mmalign.rewards import load_reward
from mmalign.rewards.reference_sets.kept import KeptReferences
from mmalign.rewards.reference_sets.source import stored_in
from mmalign.run.evaluate import evaluate
from mmalign.run.load import load_run
from mmalign.run.train import train
from tests.adapters.sound.tiny_stable_audio import write_stable_audio
from tests.rewards.sounds import write_tones

RUN = """
adapter: {{name: stable_audio, model: {model}, seconds: 0.1, lora: {{rank: 2, alpha: 4}}, device: cpu}}
policy: {{name: ddpm, eta: 1, num_inference_steps: 3, guidance_scale: 2}}
rewards:
  style: {{name: fad, reference: {exemplars}, encoder: {{name: spectral, rate: 4000, bands: 8}}, least_rows: 5}}
  song: {{name: song_fad, reference: {exemplars}, encoder: {{name: spectral, rate: 4000, bands: 8}}}}
objective: {{name: grpo, group_size: 4}}
data: {{name: prompts, path: prompts.txt, held_out: 0.4}}
trainer: {{steps: 2, prompts_per_step: 3, lr: 1.0e-2, save_every: 1}}
evaluation:
  judges:
    kernel: {{name: kad, reference: {exemplars}, encoder: {{name: spectral, rate: 4000, bands: 8}}}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, its exemplars and run file beside it."""
    folder = tmp_path_factory.mktemp("kept")
    with torch.random.fork_rng():
        model = write_stable_audio(folder / "tiny")
    exemplars = write_tones(folder / "exemplars")
    (folder / "prompts.txt").write_text("".join(f"a tune of {i} notes\n" for i in range(10)))
    (folder / "run.yaml").write_text(RUN.format(model=model, exemplars=exemplars))
    train(load(folder / "run.yaml"), out=folder / "run")
    return folder


def numbers(run: Path) -> list[dict[str, Any]]:
    """What was logged of the second step, and the table at the end, without what is measured in seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = json.loads((run / "summary.json").read_text())["rows"]
    timed = ("time/", "/seconds", "_p95")
    return [
        {k: v for k, v in line.items() if not any(t in k for t in timed)} for line in lines if line["step"] == 2
    ] + rows


def change(exemplars: Path) -> None:
    """One sound is another, and has another name."""
    first, second, *_ = sorted(exemplars.iterdir())
    shutil.copy(first, exemplars / "new.wav")
    second.unlink()


def test_a_changed_reference_changes_no_number_of_a_run_that_goes_on(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exemplars, half = tmp_path / "exemplars", tmp_path / "run"
    shutil.copytree(whole / "exemplars", exemplars)
    file = load(whole / "run.yaml", [f"rewards.{n}.reference={exemplars}" for n in ("style", "song")])
    file.evaluation.judges["kernel"]["reference"] = str(exemplars)
    file.trainer.steps = 1
    train(file, out=half)
    kept = sorted(half.glob("references/exemplars-*.safetensors"))
    assert len(kept) == 3 and sum(path.stat().st_size for path in kept) < 50_000  # no rows but the kernel's
    before = {path: path.read_bytes() for path in kept}

    change(exemplars)
    train(load(half / "run.yaml", ["trainer.steps=2"]), resume=half)
    said = [record.getMessage() for record in caplog.records if "has changed since this run began" in record.message]
    assert len(said) == 1 and said[0].startswith(f"{exemplars}: has changed")  # of all that compare with it
    assert numbers(half) == numbers(whole / "run")
    assert {path: path.read_bytes() for path in half.glob("references/*")} == before

    caplog.clear()
    table = (half / "summary.json").read_text()
    evaluate(half)
    assert json.loads((half / "summary.json").read_text())["rows"] == json.loads(table)["rows"]
    sounds = Rollout([Prompt("a")] * 4, Audio(torch.rand(4, 1, 800), 8000), torch.zeros(4, dtype=torch.long))
    now, then = (load_run(run).score(sounds) for run in (half, whole / "run"))
    assert {name: scores.value.tolist() for name, scores in now.items()} == {
        name: scores.value.tolist() for name, scores in then.items()
    }

    train(load(whole / "run.yaml", [f"rewards.style.reference={exemplars}", "trainer.steps=1"]), out=tmp_path / "new")
    first = [json.loads((run / "metrics.jsonl").read_text().splitlines()[0]) for run in (tmp_path / "new", half)]
    assert first[0]["reward/style/parts/set"] != first[1]["reward/style/parts/set"]  # a new run compares with the new


def test_an_unchanged_reference_is_not_mentioned(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(whole / "run", tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    train(load(tmp_path / "run" / "run.yaml"), resume=tmp_path / "run")
    assert "has changed" not in caplog.text


def test_a_damaged_one_is_told_with_the_way_out(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole / "run", run)
    for path in (run / "references").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigError, match=r"Remove .*references/exemplars-.*, and it is made anew of .*exemplars\."):
        train(load(run / "run.yaml", ["trainer.steps=3"]), resume=run)


def test_of_two_rewards_with_one_reference_it_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    place = "mmalign.rewards.reference_sets.statistics.embedded_files"
    from mmalign.rewards.reference_sets.exemplars import embedded_files

    def noted(*given: Any) -> Any:
        made.append(given)
        return embedded_files(*given)

    monkeypatch.setattr(place, noted)
    exemplars = str(write_tones(tmp_path / "exemplars"))
    options: dict[str, Any] = {
        "reference": exemplars,
        "encoder": {"name": "spectral", "rate": 4000, "bands": 8},
        "least_rows": 5,
    }
    one, two, alone = (load_reward("fad", **options).reward for _ in range(3))
    store = KeptReferences(tmp_path / "references", read=False)
    with stored_in(store):
        assert torch.equal(one.target.gaussian.root, two.target.gaussian.root)
    assert len(made) == 1 and not store.folder.exists()
    assert torch.equal(one.target.gaussian.root, alone.target.gaussian.root)
    store.save()
    again = load_reward("fad", **options).reward
    with stored_in(KeptReferences(store.folder)):
        assert torch.equal(again.target.gaussian.root, alone.target.gaussian.root)
        assert torch.equal(again.target.gaussian.cov, alone.target.gaussian.cov)
    assert len(made) == 2
    with pytest.raises(DataError, match="made with encoder"):
        other = load_reward("fad", **{**options, "encoder": {"name": "spectral", "rate": 4000, "bands": 9}}).reward
        file = next(store.folder.iterdir())
        _ = load_reward("fad", **{**options, "encoder": other.encoder, "reference": str(file)}).reward.target
