"""From a run file to a finished run directory on a real, tiny pipeline: resume, evaluation, what diffusers loads."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign.core.config import load
from mmalign.core.errors import CapabilityError, ConfigError, DataError, ScoreError
from mmalign.run.build import build
from mmalign.run.directory import RunDirectory
from mmalign.run.evaluate import evaluate
from mmalign.run.train import train

RunFile = Callable[..., Path]
ABSENT = ("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor")  # the tiny checkpoint lacks them


def trained_weights(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(directory / "checkpoints" / "step_000004" / "state" / "weights.safetensors")


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_run_leaves_everything_it_promises(run_file: RunFile, tmp_path: Path, kind: str) -> None:
    finished = train(load(run_file(kind)), out=tmp_path / "run")
    root = finished.directory.path
    for name in ("run.yaml", "environment.json", "metrics.jsonl", "summary.json", "report.html", "README.md"):
        assert (root / name).stat().st_size > 50, name
    assert (root / "samples" / "step_000002" / "contact_sheet.png").exists()
    assert (root / "samples" / "step_000002" / "rows.parquet").exists()
    lines = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "grad/norm" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "eval/small" in line] == [2, 4]
    summary = json.loads((root / "summary.json").read_text())
    assert {(row["name"], row["role"]) for row in summary["rows"]} == {("crisp", "trained"), ("small", "judge")}
    assert set(summary["rows"][0]) == {"name", "role", "before", "after", "delta", "ci", "n", "win_rate"}
    assert load(root / "run.yaml").evaluation.judges["small"]["role"] == "judge"
    assert summary["report"].endswith("report.html") and summary["seconds"] > 0


def test_its_own_resolved_file_gives_the_same_run(run_file: RunFile, tmp_path: Path) -> None:
    first = train(load(run_file()), out=tmp_path / "one")
    second = train(
        load(first.directory.path / "run.yaml", [f"data.path={tmp_path / 'prompts.txt'}"]), out=tmp_path / "two"
    )
    one, two = trained_weights(first.directory.path), trained_weights(second.directory.path)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_resume_is_the_uninterrupted_run_bit_for_bit(run_file: RunFile, tmp_path: Path) -> None:
    train(load(run_file()), out=tmp_path / "whole")
    half = tmp_path / "half"
    train(load(run_file(), ["trainer.steps=2"]), out=half)
    train(load(half / "run.yaml", ["trainer.steps=4"]), resume=half)
    one, two = trained_weights(tmp_path / "whole"), trained_weights(half)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(ConfigError, match=r"half: already at step 4 of 4; raise trainer.steps"):
        train(load(half / "run.yaml"), resume=half)
    with pytest.raises(
        ConfigError, match=r"half: already holds a run; choose another --out, or continue it with --resume"
    ):
        train(load(run_file()), out=half)


def test_evaluating_a_directory_compares_with_its_start(run_file: RunFile, tmp_path: Path) -> None:
    finished = train(load(run_file("full")), out=tmp_path / "run")
    seconds = json.loads((finished.directory.path / "summary.json").read_text())["seconds"]
    done = evaluate(finished.directory.path)
    assert [row.name for row in done.rows] == [row.name for row in finished.rows]
    for again, row in zip(done.rows, finished.rows, strict=True):
        assert again.before == pytest.approx(row.before, abs=1e-6)
        assert again.after == pytest.approx(row.after, abs=1e-5)
    record = {name: (tmp_path / "run" / name).read_text() for name in ("run.yaml", "summary.json", "report.html")}
    assert json.loads(record["summary.json"])["seconds"] == seconds
    for number in (1, 2):
        asked = evaluate(finished.directory.path, changes=["evaluation.seed=5"])
        assert asked.directory is not None
        assert asked.directory.path == finished.directory.path / "evaluated" / f"{number}-changed"
        assert load(asked.directory.path / "run.yaml").evaluation.seed == 5
        assert (asked.directory.path / "report.html").is_file()
    assert record == {name: (tmp_path / "run" / name).read_text() for name in record}
    alone = evaluate(load(run_file()))
    assert alone.rows == [] and set(alone.evaluation.names()) == {"crisp", "small"}


def test_a_lora_run_is_loaded_by_plain_diffusers(run_file: RunFile, tmp_path: Path, tiny_model: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    finished = train(load(run_file()), out=tmp_path / "run")
    pipe = StableDiffusion3Pipeline.from_pretrained(tiny_model, **dict.fromkeys(ABSENT))
    pipe.set_progress_bar_config(disable=True)

    def picture() -> torch.Tensor:
        made = pipe("a picture", num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="pt")
        return made.images

    before = picture()
    pipe.load_lora_weights(finished.directory.path / "checkpoints" / "step_000004" / "adapter")
    assert (picture() - before).abs().max() > 1e-4


def test_what_cannot_work_together_is_said_before_anything_loads(run_file: RunFile) -> None:
    path = run_file()
    with pytest.raises(
        CapabilityError, match=r"objective 'r0' drives a DiffPolicy; policy 'flow' lacks draw, rsample.*few_step"
    ):
        build(load(path, ["objective={name: r0}"]))
    with pytest.raises(
        CapabilityError,
        match=r"objective 'grpo' drives a StepPolicy; policy 'few_step' lacks .*Policies that fit: ddpm, flow",
    ):
        build(load(path, ["policy={name: few_step}"]))
    with pytest.raises((CapabilityError, ConfigError), match=r"compressibility|small|gradient"):
        changes = ["objective={name: r0}", "policy={name: few_step}", "rewards.small={name: compressibility}"]
        build(load(path, changes))
    with pytest.raises(ConfigError, match=r"combine: objective 'r0' takes each reward by its weight, so 'minimum'"):
        build(load(path, ["objective={name: r0}", "policy={name: few_step}", "combine={name: minimum}"]))
    absolute = ["objective={name: grpo, baseline: none, std: none}", "rewards.more={name: sharpness}"]
    with pytest.raises(ConfigError, match=r"combine: 'weighted_sum' puts rewards .* within each group.*baseline: none"):
        build(load(path, absolute))
    build(load(path, [*absolute, "combine={name: weighted_sum, scale: running}"]))
    grouped = ["rewards={set: {name: vendi, encoder: {name: spectral}, over: group}}", "objective={name: dragon}"]
    with pytest.raises(ConfigError, match=r"rewards.set.over: group has no effect with builder 'greedy_swap'"):
        build(load(path, grouped))


def test_faults_of_all_components_come_at_once(run_file: RunFile) -> None:
    changes = [
        "adapter.trian=full",
        "policy.sde=sdee",
        "rewards.crisp.name=sharpnes",
        "rewards.other={name: clip, wieght: 2}",
        "objective.group_size=1",
        "data.colum=x",
        "evaluation.judges.small.role=truth",
    ]
    with pytest.raises(ConfigError) as caught:
        build(load(run_file(), changes))
    message = str(caught.value)
    for part in (
        "adapter.trian: unknown option. Did you mean 'train'?",
        "sdee",
        "no reward is called 'sharpnes'. Did you mean 'sharpness'?",
        "rewards.other.wieght: unknown option.",
        "Of every reward: call_rows, map, monitor, over, timeout, weight. Did you mean 'weight'?",
        "evaluation.judges.small.role: 'truth'; there is judge, verifier.",
        "group_size",
        "data.colum: unknown option. Did you mean 'column'?",
    ):
        assert part in message, f"{part}\n--- in ---\n{message}"


def test_an_objective_without_its_reward_says_so(run_file: RunFile) -> None:
    with pytest.raises(ConfigError, match=r"rewards: objective 'grpo' needs at least one reward"):
        build(load(run_file(), ["rewards={}"]))


def test_a_reward_that_judges_another_modality_is_refused(run_file: RunFile) -> None:
    named = "{name: 'tests.run.outside:WordCount'}"
    with pytest.raises(ConfigError, match=r"rewards.crisp.name: .* only with --allow tests.run.outside"):
        build(load(run_file(), [f"rewards.crisp={named}"]))
    with pytest.raises(CapabilityError, match=r"rewards.crisp: judges text, but the policy makes image"):
        build(load(run_file(), [f"rewards.crisp={named}"]), allow=["tests.run.outside"])
    with pytest.raises(CapabilityError, match=r"evaluation.judges.small: judges text, but the policy makes image"):
        build(load(run_file(), [f"evaluation.judges.small={named}"]), allow=["tests.run.outside"])


def test_an_empty_prompt_file_and_a_missing_column_are_named(run_file: RunFile, tmp_path: Path) -> None:
    path = run_file()
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(DataError, match=r"empty\.txt"):
        train(load(path, ["data.path=empty.txt"]), out=tmp_path / "run")
    (tmp_path / "rows.jsonl").write_text('{"promt": "a cat"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl.*prompt"):
        train(load(path, ["data.path=rows.jsonl", "data.held_out=0"]), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_preferences_that_nobody_reads_are_refused(run_file: RunFile, tmp_path: Path) -> None:
    path = run_file()
    rows = [{"prompt": f"{n} cats", "chosen": "three cats", "rejected": "a dog"} for n in range(4)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = ["data={name: preferences, path: pairs.jsonl}"]
    with pytest.raises(DataError, match=r"data: holds preferences, but objective 'grpo' reads prompts"):
        train(load(path, texts), out=tmp_path / "run")
    with pytest.raises(DataError, match=r"chosen and rejected hold text, but the policy is of image"):
        train(load(path, [*texts, "objective={name: dpo}"]), out=tmp_path / "run")
    unread = r"data: holds prompts, but objective 'dpo' reads preferences; use .*, or set objective.online \(now off\)"
    with pytest.raises(DataError, match=unread):
        train(load(path, ["objective={name: dpo}"]), out=tmp_path / "run")


def test_where_a_run_cannot_be_written_is_said_before_anything_loads(
    run_file: RunFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign.run.build.Parts.load", lambda *_, **__: pytest.fail("weights are loaded"))
    run = load(run_file())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"file/run: a run cannot be written here, .*file is not a folder; choose"):
        train(run, out=tmp_path / "file" / "run")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "summary.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"used: already holds a run; choose another --out\.$"):
        train(run, out=tmp_path / "used")
    with pytest.raises(ConfigError, match=r"/proc/mmalign: .*cannot be written.*; choose another --out"):
        RunDirectory(Path("/proc/mmalign")).start(run, fresh=True)


def test_two_runs_never_write_to_one_directory(run_file: RunFile, tmp_path: Path) -> None:
    run, out = load(run_file()), tmp_path / "run"
    with RunDirectory(out).held(fresh=True):
        with pytest.raises(ConfigError, match=r"run: this process is already writing here, since .*; wait"):
            train(run, out=out)
        assert out.is_dir()
    assert not out.exists()  # nothing was written
    with pytest.raises(ConfigError, match="nowhere: no such folder"):
        train(load(run_file(), ["adapter.model=/nowhere"]), out=out)
    assert not out.exists()


def test_a_start_measured_by_another_run_is_never_taken_over(run_file: RunFile, tmp_path: Path) -> None:
    path, out = run_file(), tmp_path / "run"
    (tmp_path / "other.txt").write_text("".join(f"a drawing of {n} things\n" for n in range(10)))
    changes = ["trainer={steps: 1, prompts_per_step: 2, lr: 1.0e-3}"]
    train(load(path, changes), out=out)
    shutil.rmtree(out / "checkpoints")  # as if it had been killed before its first step ended
    for name in ("metrics.jsonl", "summary.json"):
        (out / name).unlink()
    train(load(path, [*changes, "data.path=other.txt"]), out=out)
    asked = [json.loads(row)["prompt"] for row in (out / "evaluation/before/rows.jsonl").read_text().splitlines()]
    assert all("drawing" in prompt for prompt in asked)
    with pytest.raises(ConfigError, match=r"measured on 4 prompts, which are not the 2 that evaluation and data name"):
        train(load(out / "run.yaml", ["trainer.steps=2", "evaluation.count=2"]), resume=out)


def test_resuming_removes_what_a_killed_run_had_half_written(run_file: RunFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(load(run_file(), ["trainer={steps: 1, prompts_per_step: 2, lr: 1.0e-3}", "data.held_out=0"]), out=out)
    half = out / "checkpoints" / ".step_000002.0123abcd.part"
    (half / "adapter").mkdir(parents=True)
    train(load(out / "run.yaml", ["trainer.steps=2"]), resume=out)
    assert not half.exists() and (out / "checkpoints" / "step_000002" / "done").exists()


def test_curves_also_go_to_the_tracker(run_file: RunFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from mmalign.core.errors import MissingExtra

    changes = ["trainer.tracker=tensorboard", "trainer.steps=2", "trainer.evaluate_every=1"]
    finished = train(load(run_file(), changes), out=tmp_path / "run")
    written = next(finished.directory.path.rglob("events.out.tfevents.*"))
    events = EventAccumulator(str(written.parent))
    events.Reload()
    assert [event.step for event in events.Scalars("grad/norm")] == [1, 2]
    assert Path(written).parent.name == "run"  # its name is what curves are shown under
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("eval/small", "eval/crisp", "grad/norm", "time/save", "time/evaluate"):
        points = [(line["step"], line[name]) for line in lines if name in line]
        assert [event.step for event in events.Scalars(name)] == [step for step, _ in points]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([value for _, value in points])
    assert [event.step for event in events.Scalars("eval/crisp")] == [1, 2]  # along the way, and of the result
    shown = events.Images("samples/images")
    assert [picture.step for picture in shown] == [2]
    assert "a picture of" in events.Tensors("samples/prompts/text_summary")[0].tensor_proto.string_val[0].decode()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r"trainer.tracker: wandb needs the 'track' extra: pip install 'mmalign\[track\]'"
    ):
        train(load(run_file(), ["trainer.tracker=wandb"]), out=tmp_path / "other")


def test_half_precision_trains_with_a_scaled_loss_and_resumes_exactly(run_file: RunFile, tmp_path: Path) -> None:
    path = run_file("lora")
    whole = train(load(path, ["adapter.dtype=fp16"]), out=tmp_path / "whole")
    state = json.loads((tmp_path / "whole/checkpoints/step_000004/state/state.json").read_text())
    assert state["scale"]["scale"] >= 1024 and state["updates"] >= 2  # it may be halved at the start
    train(load(path, ["adapter.dtype=fp16", "trainer.steps=2"]), out=tmp_path / "half")
    again = train(load(tmp_path / "half/run.yaml", ["trainer.steps=4"]), resume=tmp_path / "half")
    one, two = trained_weights(whole.directory.path), trained_weights(again.directory.path)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_what_a_judge_needs_is_loaded_before_the_generator(
    run_file: RunFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A model that is not there is told at once, of rewards and of judges, and leaves no run behind."""
    from mmalign.adapters.image.sd3 import SD3

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(SD3, "load", lambda self: pytest.fail("the generator was loaded"))
    nowhere = "{name: clip, checkpoint: acme/no-such-clip}"
    changes = [f"rewards.near={nowhere}", f"evaluation.judges.far={nowhere}"]
    with pytest.raises(ConfigError) as caught:
        train(load(run_file(), changes), out=tmp_path / "out") if kind == "train" else evaluate(
            run_file(), None, changes
        )
    assert len(caught.value.faults) == 2
    for place, fault in zip(["rewards.near", "evaluation.judges.far"], caught.value.faults, strict=True):
        assert f"{place}: checkpoint acme/no-such-clip is not on this machine" in fault
    assert not (tmp_path / "out").exists()


def test_a_run_that_learned_nothing_is_no_success(run_file: RunFile, tmp_path: Path) -> None:
    """It ended with a table of no change."""
    changes = [
        "rewards={undecided: {name: 'tests.run.outside:undecided'}}",
        "evaluation.judges={}",
        "evaluation.count=1",
    ]
    with pytest.raises(ScoreError, match=r"3 steps: no output could be scored.* its last 24 rows: 24 not_applicable"):
        train(load(run_file(), changes), out=tmp_path / "out", allow=["tests.run.outside"])
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_slow_hook_is_no_part_of_the_step_it_follows(run_file: RunFile, tmp_path: Path) -> None:
    """So are evaluations, samples and checkpoints."""
    asleep = 1.5
    file = load(run_file(), ["trainer.steps=3", "trainer.evaluate_every=2", "trainer.preview_every=2"])
    train(file, out=tmp_path / "run", hooks=[lambda *_: time.sleep(asleep)])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "lr" in line]
    assert [line["step"] for line in steps] == [1, 2, 3]
    beside = [{name for name in line if name.startswith("time/")} for line in lines if "time/hooks" in line]
    assert beside == [
        {"time/hooks"},
        {"time/hooks", "time/preview", "time/evaluate", "time/save"},
        {"time/hooks", "time/save"},
    ]
    for line in steps:
        assert {name for name in line if name.startswith("time/")} <= {"time/collect", "time/check", "time/update"}
    assert all(asleep <= line["time/hooks"] for line in lines if "time/hooks" in line)
    assert min(sum(v for k, v in line.items() if k.startswith("time/")) for line in steps) < asleep
    assert [line["step"] for line in lines if "eval/small" in line] == [2, 3]  # along the way, and of the result
