"""The commands as people type them: tables, JSON, exit codes and sentences."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmalign.media.audio import write_audio
from mmalign.media.image import write_image
from mmalign.miniworld.grammar import parse


def test_list_names_every_kind(call: Any) -> None:
    code, out, _ = call("list")
    assert code == 0
    for name in ("sd3", "few_step", "verifier", "weighted_sum", "dragon", "preferences", "scenes/grpo_verifier"):
        assert name in out, name
    code, out, _ = call("list", "objectives")
    assert code == 0 and "grpo" in out and "verifier" not in out
    code, _, err = call("list", "reward")
    assert code == 2 and "nothing is listed under 'reward'. Did you mean 'rewards'?" in err


def test_show_prints_a_full_run_file_that_loads(call: Any, tmp_path: Path) -> None:
    from mmalign.core.config import load
    from mmalign.run.build import build

    code, out, _ = call("show", "scenes/grpo_verifier")
    assert code == 0 and "advantage_clip" in out
    path = tmp_path / "copy.yaml"
    path.write_text(out)
    assert build(load(path)).filled().to_dict() == {**load(path).to_dict(), "base": str(tmp_path)}
    code, _, err = call("show", "scenes/grpo_verifer")
    assert code == 2 and "Did you mean 'scenes/grpo_verifier'?" in err


def test_every_ready_run_file_passes_the_dry_run(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.cli.listing import configs

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"a picture of {n} cats\n" for n in range(40)))
    rows = tmp_path / "preferences.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "chosen": "a.png", "rejected": "b.png"}) + "\n")
    written = tmp_path / "written.jsonl"
    for name in ("a.png", "b.png"):
        write_image(torch.zeros(3, 4, 4), tmp_path / name)
    for n in range(40):
        write_image(torch.full((3, 4, 4), n / 40), tmp_path / f"{n}.png")
        write_audio(torch.zeros(1, 80 + n), 8_000, tmp_path / f"{n}.wav")
    own = {"pictures": tmp_path / "pictures", "sounds": tmp_path / "sounds"}
    for n in range(30):
        write_image(torch.full((3, 4, 4), n / 30), own["pictures"] / f"{n}.png")
        write_audio(torch.zeros(1, 80 + n), 8_000, own["sounds"] / f"{n}.wav")
        for folder in own.values():
            (folder / f"{n}.txt").write_text(f"the {n}. of mine")
    row: dict[str, Any] = {"answer": "3", "references": ["a cat"], "chosen": "good", "rejected": "bad"}
    row |= {"boxes": [[0, 0, 2, 3]], "size": [4, 4], "seen_size": [28, 28]}
    row |= {"kind": "open", "paraphrases": ["how many?"], "gold": {"A": 2, "B": 1}}
    row |= {"prompt_points": ["Counting"], "prompt_points_des": ["three cats"]}
    about = [{"prompt": f"{n} cats?", "image": f"{n}.png", "audio": f"{n}.wav"} for n in range(40)]
    written.write_text("".join(json.dumps(each | row) + "\n" for each in about))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # else what is not in the cache is a fault
    for name in configs():
        change = []
        if name.startswith("text/"):
            change = [f"data.{'of.' if name.endswith('co_reward') else ''}path={written}"]
        if name.startswith("text_to_image/"):
            change = [f"data.path={rows if 'dpo' in name else prompts}"]
        if name.startswith("text_to_audio/"):  # any text will do as the exemplars' folder or file
            change = [f"data.path={prompts}", *([f"rewards.style.reference={prompts}"] if "dragon" in name else [])]
        if name.startswith("own_style/") or (name.endswith("finetune") and name.startswith("text_to_")):
            kind = "pictures" if "pictures" in name or "image" in name else "sounds"
            change = [f"data.path={prompts if name.endswith('grpo') else own[kind]}"]
        code, out, err = call("train", name, *change, "--dry-run")
        assert code == 0, f"{name}: {err}"
        assert "# ok:" in out


LM = """
adapter: {name: causal_lm, model: nowhere/at-all}
policy: {name: tokens, max_new_tokens: 4}
rewards: {right: {name: exact_match, column: answer}}
objective: {name: grpo, group_size: 4}
data: {name: prompts, path: questions.jsonl}
"""


def project(folder: Path) -> Path:
    """A folder with questions that ready run files find by their own name."""
    folder.mkdir()
    rows = [json.dumps({"prompt": f"{n} and {n}?", "answer": str(2 * n)}) + "\n" for n in range(40)]
    (folder / "questions.jsonl").write_text("".join(rows))
    return folder


def test_what_show_prints_means_the_same_from_every_folder(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    proj = project(tmp_path / "proj")
    monkeypatch.chdir(proj)
    code, out, err = call("show", "text/lm_grpo")
    assert code == 0 and "base:" not in out and "path: questions.jsonl" in out, err
    (proj / "mine.yaml").write_text(out)
    monkeypatch.chdir(tmp_path)
    code, out, err = call("train", "proj/mine.yaml", "--dry-run")
    assert code == 0 and f"base: {proj}" in out and "path: questions.jsonl" in out, err
    code, out, err = call("show", "proj/mine.yaml")
    assert code == 0 and f"base: {proj}" in out, err  # its questions lie beside it
    (proj / "questions.jsonl").rename(tmp_path / "questions.jsonl")
    code, out, err = call("train", "proj/mine.yaml", "--dry-run")
    assert code == 0 and f"path: {tmp_path}/questions.jsonl" in out, err
    monkeypatch.chdir(proj)
    code, _, err = call("train", "mine.yaml", "--dry-run")
    assert code == 2 and f"looked at {proj}/questions.jsonl." in err


def test_a_run_file_may_lie_in_a_folder_with_an_equals_sign(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    path = project(tmp_path / "lr=1e-4") / "m.yaml"
    path.write_text(LM)
    code, out, err = call("train", path, "trainer.steps=7", "--dry-run")
    assert code == 0 and "steps: 7" in out, err
    code, _, err = call("train", "trainer.steps=7")
    assert code == 2 and "name a run file" in err


def test_a_change_too_long_for_a_path_may_come_first(call: Any, tmp_path: Path) -> None:
    code, _, err = call("train", f"policy.{'x' * 300}=1", "--resume", tmp_path / "gone")
    assert code == 2 and "gone/run.yaml: no such run file" in err


def test_a_resumed_run_cannot_go_elsewhere(call: Any, tmp_path: Path) -> None:
    code, _, err = call("train", "--resume", tmp_path / "trained", "--out", tmp_path / "other")
    told = f"--out {tmp_path}/other: a resumed run goes on in its own folder, {tmp_path}/trained; leave --out away."
    assert code == 2 and told in err


def test_ctrl_c_ends_with_a_sentence(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.run import build, train
    from mmalign.run.train import Stopped

    def interrupted(*given: Any, **more: Any) -> Any:
        raise Stopped(message="stopped; go on with this.")

    path = project(tmp_path / "proj") / "m.yaml"
    path.write_text(LM)
    monkeypatch.setattr(train, "train", interrupted)
    assert call("train", path) == (130, "", "checking the run …\nstopped; go on with this.\n")
    monkeypatch.setattr(build, "examine", lambda run, allow: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call("train", path, "--dry-run") == (130, "", "checking everything …\nstopped.\n")


def test_faults_of_a_run_file_exit_2_without_a_traceback(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("adaptr: {name: sd3}\ntrainer: {stepz: 1}\n")
    code, _, err = call("train", path)
    assert code == 2 and "Traceback" not in err
    assert "adaptr: unknown section. Did you mean 'adapter'?" in err and "trainer.stepz: unknown option" in err
    code, _, err = call("train")
    assert code == 2 and "name a run file" in err


def scenes(call: Any, folder: Path, count: int = 6) -> Path:
    code, out, err = call("miniworld", "make", "scenes", folder, "--count", count)
    assert code == 0, err
    assert "mmalign score" in out
    return folder / "rows.jsonl"


def test_made_scenes_score_one_with_the_verifier(call: Any, tmp_path: Path) -> None:
    rows = scenes(call, tmp_path / "world")
    out = tmp_path / "scores.jsonl"
    code, _, err = call("score", rows, "--reward", "verifier", "--out", out)
    assert code == 0, err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 6 and all(line["value"] == 1.0 and line["status"] == "ok" for line in lines)
    assert set(lines[0]["parts"]) == {"graded", "strict"}


@pytest.mark.parametrize("choice", [["--split", "heldout"], ["--style", "jig"], ["--style", "chimes", "--clockwork"]])
def test_made_tunes_score_one_with_the_verifier(call: Any, tmp_path: Path, choice: list[str]) -> None:
    code, _, err = call("miniworld", "make", "tunes", tmp_path / "world", "--count", 6, *choice)
    assert code == 0, err
    code, out, err = call("score", tmp_path / "world" / "rows.jsonl", "--reward", "verifier")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 6 and all(line["value"] == 1.0 and line["status"] == "ok" for line in lines)


def test_tunes_of_an_unknown_style_or_split_are_refused(call: Any, tmp_path: Path) -> None:
    code, _, err = call("miniworld", "make", "tunes", tmp_path / "world", "--style", "polka")
    assert code == 2 and "--style polka: there is chimes, jig" in err
    code, _, err = call("miniworld", "make", "tunes", tmp_path / "world", "--style", "jig", "--split", "heldout")
    assert code == 2 and "train split only" in err
    code, _, err = call("miniworld", "make", "tunes", tmp_path / "world", "--split", "test")
    assert code == 2 and "use train, heldout or any" in err and not (tmp_path / "world").exists()


def test_a_row_that_cannot_be_judged_is_null_not_zero(call: Any, tmp_path: Path) -> None:
    rows = scenes(call, tmp_path / "world", 2)
    row = json.loads(rows.read_text().splitlines()[0])
    rows.write_text(json.dumps({**row, "prompt": "a bird sings"}) + "\n")
    code, out, _ = call("score", rows, "--reward", "verifier")
    line = json.loads(out)
    assert code == 0 and line["value"] is None and line["status"] == "not_applicable" and line["info"]


def test_captions_are_scored_against_the_picture_they_name(call: Any, tmp_path: Path) -> None:
    rows = scenes(call, tmp_path / "world", 2)
    said = [json.loads(line) for line in rows.read_text().splitlines()]
    written = [{"prompt": "describe", "output": row["prompt"], "image": row["output"]} for row in said]
    written.append({"prompt": "describe", "output": "a red circle"})
    rows.write_text("".join(json.dumps(row) + "\n" for row in written))
    code, out, _ = call("score", rows, "--reward", "clip", "--set", "checkpoint=assets/scenes_clip")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [line["status"] for line in lines] == ["ok", "ok", "not_applicable"]
    assert min(lines[0]["value"], lines[1]["value"]) > 0 and lines[2]["value"] is None


def test_bad_rows_are_named_all_at_once_and_nothing_is_written(call: Any, tmp_path: Path) -> None:
    rows = scenes(call, tmp_path / "world", 2)
    good = rows.read_text().splitlines()[0]
    rows.write_text("\n".join([good, "{broken", '{"prompt": 3}', '{"prompt": "a", "output": "0000.png", "extra": 1}']))
    out = tmp_path / "scores.jsonl"
    code, _, err = call("score", rows, "--reward", "verifier", "--out", out)
    assert code == 2 and not out.exists() and "Traceback" not in err
    assert "rows.jsonl:2: not valid JSON" in err
    assert "rows.jsonl:3: field 'output' is missing" in err
    assert "rows.jsonl:3: field 'prompt' must be str, found 3" in err
    assert "rows.jsonl:4: unknown field 'extra'; a row has prompt, output, meta, group" in err


def test_rows_of_other_programs_are_read_as_json_means_them(call: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    line = json.dumps({"prompt": "x", "output": "one\u2028two \x85three"}, ensure_ascii=False)
    rows.write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n" + line.encode() + b"\n")
    code, out, err = call("score", rows, "--reward", "length", "--set", "high=5")
    assert code == 0, err
    assert len(out.splitlines()) == 2
    rows.write_bytes(line.encode() + b"\n\xff\n")
    code, _, err = call("score", rows, "--reward", "length", "--set", "high=5")
    assert code == 2 and "rows.jsonl:2: not UTF-8 text" in err


def test_an_out_that_cannot_be_written_is_said_before_rows_are_scored(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "x", "output": "please"}) + "\n")
    monkeypatch.setattr("mmalign.run.score.score_rows", lambda *given: pytest.fail("scored"))
    words = ("score", tmp_path / "rows.jsonl", "--reward", "length", "--set", "high=5", "--out")
    code, _, err = call(*words, tmp_path / "rows.jsonl" / "scores.jsonl")
    assert code == 2 and "error: " in err and "rows.jsonl" in err and "Traceback" not in err
    code, _, err = call(*words, tmp_path)
    assert code == 2 and f"--out {tmp_path}: is a folder; name a file." in err


def test_a_module_in_this_folder_may_be_named(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'import mmalign\n\n\n@mmalign.rule(modalities={"text"}, range=(0.0, 1.0))\n'
    source += 'def polite(prompt, output):\n    return float("please" in output)\n'
    (tmp_path / "mannerly_rules.py").write_text(source)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "x", "output": "please"}) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ("rows.jsonl", "--reward", "mannerly_rules:polite", "--allow", "mannerly_rules")
    code, out, err = call("score", *words)
    assert code == 0 and json.loads(out)["value"] == 1.0, err


def test_a_corrupt_picture_is_named_with_its_line(call: Any, tmp_path: Path) -> None:
    rows = scenes(call, tmp_path / "world", 2)
    picture = tmp_path / "world" / "0001.png"
    picture.write_bytes(picture.read_bytes()[:60])
    out = tmp_path / "scores.jsonl"
    code, _, err = call("score", rows, "--reward", "sharpness", "--out", out)
    assert code == 1 and [json.loads(line)["status"] for line in out.read_text().splitlines()] == ["ok", "error"]
    assert "rows.jsonl:2: field 'output':" in err and "0001.png" in err


def test_score_refuses_unknown_rewards_options_and_files(call: Any, tmp_path: Path) -> None:
    rows = scenes(call, tmp_path / "world", 1)
    code, _, err = call("score", rows, "--reward", "verifer")
    assert code == 2 and "Did you mean 'verifier'?" in err
    code, _, err = call("score", rows, "--reward", "verifier", "--set", "grade=true")
    assert code == 2 and "unknown option. Did you mean 'graded'?" in err
    code, _, err = call("score", tmp_path / "none.jsonl", "--reward", "verifier")
    assert code == 2 and "none.jsonl: no such file" in err
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    code, _, err = call("score", empty, "--reward", "verifier")
    assert code == 2 and "holds no rows" in err


def test_comparisons_of_an_unknown_split_or_too_many_are_refused(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("miniworld", "make", "comparisons", tmp_path / "x.jsonl")
    code, _, err = call(*words, "--split", "heldou")
    assert code == 2 and "--split heldou: use train, heldout or any." in err
    one = lambda rng, split: parse("a red star")  # noqa: E731
    monkeypatch.setattr("mmalign.miniworld.comparisons.sample_request", one)
    monkeypatch.setattr("mmalign.miniworld.colloquial._IN_VAIN", 20)
    code, _, err = call(*words, "--count", 5000)
    assert code == 2 and "Traceback" not in err and not (tmp_path / "x.jsonl").exists()
    assert re.search(r"5000 different requests: (\d+) were found, then \d+ draws .*; ask for at most \1\.", err)
    code, _, err = call(*words, "--seed", -1)
    assert code == 2 and "Traceback" not in err


def test_a_report_is_of_a_run(call: Any, tmp_path: Path) -> None:
    code, _, err = call("report", tmp_path)
    assert code == 2 and f"{tmp_path}: no run.yaml in it; name a directory that `mmalign train` wrote." in err
    assert not list(tmp_path.iterdir())
    (tmp_path / "run.yaml").write_text("{}")
    code, out, err = call("report", tmp_path)
    assert code == 0 and out.strip() == str(tmp_path / "report.html"), err


def test_miniworld_does_not_write_into_a_used_folder(call: Any, tmp_path: Path) -> None:
    scenes(call, tmp_path / "world", 1)
    code, _, err = call("miniworld", "make", "scenes", tmp_path / "world")
    assert code == 2 and "is not an empty folder" in err


def test_quickstart_never_removes_what_is_not_a_run(call: Any, tmp_path: Path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "a.jpg").write_text("x")
    code, _, err = call("quickstart", "image", "--out", precious)
    assert code == 2 and "holds no quickstart; choose another --out" in err and (precious / "a.jpg").exists()
    (precious / "environment.json").write_text('{"command": "mmalign train mine.yaml --out photos"}')
    assert call("quickstart", "image", "--out", precious)[0] == 2 and (precious / "a.jpg").exists()
    kept = tmp_path / "out" / "rewriter"
    shutil.copytree(precious, kept)
    code, _, err = call("quickstart", "text", "--out", tmp_path / "out")
    assert (
        code == 2 and str(kept) in err and not (tmp_path / "out" / "captioner").exists()
    )  # before anything is trained
    code, _, err = call("quickstart", "video")
    assert code == 2 and "there is no quickstart 'video'" in err


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        (["image"], ["runs/quickstart-image"]),
        (["image", "--out", "mine"], ["mine"]),
        (["text"], [f"runs/quickstart-text/{part}" for part in ("captioner", "grounder", "rewriter")]),
        (["text", "--out", "mine"], [f"mine/{part}" for part in ("captioner", "grounder", "rewriter")]),
        (
            ["all", "--out", "mine"],
            ["mine/audio", "mine/image", *(f"mine/text/{part}" for part in ("captioner", "grounder", "rewriter"))],
        ),
    ],
)
def test_where_quickstarts_write(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], folders: list[str]
) -> None:
    from mmalign.run import train

    def trained(config: Path, out: Path) -> Any:
        assert not out.exists()
        out.mkdir(parents=True)
        (out / "environment.json").write_text('{"command": "mmalign quickstart"}')
        return SimpleNamespace(rows=[])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train", trained)
    for _ in range(2):  # an earlier quickstart makes room
        code, said, err = call("quickstart", *words)
        assert code == 0, err
        assert [line.rpartition(" (")[0] for line in said.splitlines() if " of " in line] == folders


def test_every_quickstart_has_its_run_files() -> None:
    from mmalign.cli.quickstart import quickstarts_by_name

    found = quickstarts_by_name()
    assert set(found["image"]) == set(found["audio"]) == {""}
    assert set(found["text"]) == {"captioner", "grounder", "rewriter"}
    assert all(config.is_file() for parts in found.values() for config in parts.values())


def test_doctor_reads_versions_and_tries_them_when_asked(call: Any) -> None:
    code, out, _ = call("doctor", "--json", "--deep")
    found = {item["check"]: item["state"] for item in json.loads(out)}
    assert found["packages match one another"] == found["packages in the tested ranges"] == "ok"
    assert found["compiled operators of torchvision and torchaudio"] == found["transformers"] == "ok"
    assert all(found[f"training step, {modality}"] == "ok" for modality in ("image", "text", "audio"))
    assert code == (1 if "missing" in found.values() else 0)


def test_doctor_names_the_pair_and_the_extra(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.core import packages

    real = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: {"torch": "2.11.0", "gradio": None}.get(name, real(name)))
    code, out, _ = call("doctor", "--json")
    found = {item["check"]: item for item in json.loads(out)}
    assert code == 1 and found["packages match one another"]["state"] == "missing"
    assert "torchaudio 2.11.1 does not load beside torch 2.11.0" in found["packages match one another"]["found"]
    assert "torch 2.11.0 is outside" in found["packages in the tested ranges"]["found"]
    assert found["packages in the tested ranges"]["fix"].startswith("pip install --upgrade mmalign")
    assert all(("fix" in item) == (item["state"] == "missing") for item in found.values())
    assert found["extra 'demo' (optional)"]["found"] == "without gradio: pip install 'mmalign[demo]'"


def test_doctor_says_what_mends_each_red_row(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.cli import doctor

    def broken() -> str:
        raise RuntimeError("the gradient is 0.0: [mmalign train quickstart/image]")

    monkeypatch.setattr(doctor, "QUICK", (("training step, image", broken, True), ("an extra", broken, False)))
    code, out, _ = call("doctor")
    assert code == 1 and "training step, image: the command in this row shows all of it" in " ".join(out.split())
    assert "RuntimeError: the gradient is 0.0" in " ".join(out.split()) and "an extra: " not in out
    named = {name for name, _, needed in (*doctor.QUICK, *doctor.DEEP) if needed}
    assert all(doctor._fix(name) for name in named)


@pytest.mark.parametrize(("words", "unneeded"), [(["list"], ["torch._C"]), (["--help"], ["torch._C", "pydantic"])])
def test_commands_that_only_tell_import_little(words: list[str], unneeded: list[str]) -> None:
    import subprocess

    code = "import sys; from mmalign.cli.main import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\nprint('modules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True).stdout
    assert "train" in done and not set(unneeded) & set(done.rpartition("modules ")[2].split())


def test_importing_the_package_is_quick() -> None:
    import subprocess

    code = "import sys, time; t = time.time(); import mmalign; print(time.time() - t, 'torch' in sys.modules)"
    seconds, torch_too = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert torch_too == "False"
    assert (
        float(seconds) < 5
    )  # the promise is 0.3 s on a quiet machine; this catches a heavy import, not a busy machine


def test_every_ready_run_file_is_shown_without_loading_anything(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.cli.listing import configs
    from mmalign.rewards.models import clip_towers as _clip_towers

    monkeypatch.setattr(_clip_towers, "_loaded", lambda *given: pytest.fail("a model was loaded"))
    for name in configs():
        code, out, err = call("show", name)
        own = "exemplars: no such file or folder" in err  # sounds of one's own, whose distances are read at once
        assert (code == 0 and "objective:" in out) or own, f"{name}: {err}"


def test_show_describes_a_component_and_finds_a_short_name(call: Any) -> None:
    code, out, _ = call("show", "grpo")
    assert (
        code == 0
        and out.startswith("objectives: grpo\n")
        and "  group_size: 8    (whole number ≥ 1)\n      outputs per prompt.\n" in out
    )
    code, out, _ = call("show", "data/prompts")
    assert code == 0 and "  path: required    (text)\n" in out and "relative_to" not in out.partition("options:")[2]
    code, out, _ = call("show", "flux_grpo")
    assert code == 0 and "name: flux" in out
    code, _, err = call("show", "sd3_gpro")
    assert code == 2 and "Did you mean 'text_to_image/sd3_grpo'?" in err
    code, _, err = call("show", "grpo_verifir")
    assert code == 2 and "Traceback" not in err
