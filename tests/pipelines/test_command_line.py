"""Run files and changes may come in any order; `--help` is help; faults are told before anything trains."""

import runpy
import time
from pathlib import Path

import pytest

from mmalign import errors_as_sentences
from mmalign.cli.main import main as mmalign_main
from mmalign.core.config import parse_yaml
from mmalign.core.errors import ConfigError
from pipelines._command_line import Given, change, given

ROOT = Path(__file__).parents[2]
PIPELINES = sorted(path.stem for path in (ROOT / "pipelines").glob("[!_]*.py"))
ONE, TWO, OUT = Path("one.yaml"), Path("two.yaml"), Path("runs/x")


def test_files_and_changes_in_any_order() -> None:
    assert given(None, [ONE], OUT, []) == Given([ONE], (), OUT, None)
    told = given(None, [ONE], OUT, ["a.b=1", "--out", "there", "mine.yaml", "c={d: 2}"])
    assert told == Given([Path("mine.yaml")], ("a.b=1", "c={d: 2}"), Path("there"), None)
    assert given(None, [ONE, TWO], OUT, ["x", "y"]).files == [Path("x"), Path("y")]
    assert given(None, [ONE], OUT, ["--resume", "r"]) == Given([ONE], (), Path("r"), Path("r"))


def test_a_resumed_run_stays_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        given(None, [ONE], OUT, ["--resume", "r", "--out", "o"])
    assert "--out o: a resumed run goes on in its own folder" in capsys.readouterr().err


def test_other_numbers_of_files_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["x"], ["x", "y", "z"]):
        with pytest.raises(SystemExit):
            given(None, [ONE, TWO], OUT, words)
        assert (
            f"name 2 run file(s), in place of one.yaml two.yaml, or none; found {len(words)}" in capsys.readouterr().err
        )


def run(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `python -m pipelines.NAME WORDS`."""
    path = ROOT / "pipelines" / f"{name}.py"
    monkeypatch.setattr("sys.argv", [str(path), *words.split()])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name="__main__")
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("name", PIPELINES)
def test_help_prints_help_and_does_nothing_else(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = {path: path.stat().st_mtime_ns for path in (ROOT / "assets").rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    assert run(name, "--help", monkeypatch) == 0 and time.process_time() - start < 10
    told = (ROOT / "pipelines" / f"{name}.py").read_text(encoding="utf-8").split('"""')[1].strip()
    assert told in capsys.readouterr().out and not list(tmp_path.iterdir())
    assert committed == {path: path.stat().st_mtime_ns for path in (ROOT / "assets").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_word_that_is_no_option_starts_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(name, "--stpes 5", monkeypatch) == 2
    assert "usage: " in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("prompt_rewriter", "align.objective.group_sise=4", "Did you mean 'group_size'"),
        ("prompt_rewriter", "align.data.path=no.txt imitate.trainer.lr=fast", "imitate: "),
        ("text_to_image", "objective.group_sise=4", "Did you mean 'group_size'"),
        ("captioning", "rewards.clip_s.checkpoin=x", "Did you mean 'checkpoint'"),
        ("grounding", "trainer.stpes=1", "Did you mean 'steps'"),
        ("music", "assets/exemplars/jig objective.bata=1 --config configs/quickstart/audio.yaml", "'beta'"),
        ("results", "configs/quickstart/image.yaml trainer.stpes=1", "Did you mean 'steps'"),
    ],
)
def test_a_typo_is_told_before_anything_is_trained(
    name: str,
    words: str,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that is meant for a later stage."""
    for method in ("load", "prepare"):
        monkeypatch.setattr(f"mmalign.run.build.Parts.{method}", lambda *_, **__: pytest.fail("weights are loaded"))
    where = "--runs" if name == "results" else "--out"
    assert run(name, f"{words} {where} {tmp_path}/run", monkeypatch) == 2
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["text_to_image", "captioning", "grounding", "prompt_rewriter", "music"])
def test_a_run_that_is_there_stays(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "imitate" if name == "prompt_rewriter" else tmp_path
    place.mkdir(exist_ok=True)
    (place / "summary.json").write_text("{}")
    words = "assets/exemplars/jig --config configs/quickstart/audio.yaml" if name == "music" else ""
    assert run(name, f"{words} --out {tmp_path}", monkeypatch) == 2
    assert f"{place}: already holds a run; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["text_to_image", "captioning", "grounding", "prompt_rewriter", "music"])
def test_where_no_run_is_none_goes_on(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(name, f"--resume {tmp_path}", monkeypatch) == 2
    assert f"--resume {tmp_path}: " in capsys.readouterr().err


def test_a_head_that_is_there_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "head.safetensors").touch()
    assert run("grammar_head", f"c.txt --checkpoint assets/scenes_clip --out {tmp_path}", monkeypatch) == 2
    assert "already holds a head; name another folder" in capsys.readouterr().err


def test_a_file_is_a_run_file_whatever_its_name(tmp_path: Path) -> None:
    (file := tmp_path / "lr=2.yaml").touch()
    long = f"data.path={'x' * 5000}"
    assert given(None, [ONE], OUT, ["a.b=1", str(file), long]) == Given([file], ("a.b=1", long), OUT, None)


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("text_to_image", "no.yaml", "no.yaml: no such run file."),
        ("captioning", "no.yaml", "no.yaml: no such run file."),
        ("grounding", "no.yaml", "no.yaml: no such run file."),
        ("results", "no.yaml", "no.yaml: no such run file."),
        ("music", "no/folder", "no/folder: no such file or folder; looked at "),
        ("grammar_head", "no.txt --out heads", "name either checkpoint (a folder or Hub id) or model"),
        ("grammar_head", "no.txt --out heads --checkpoint assets/scenes_clip", "no.txt: no such file or folder; "),
    ],
)
def test_a_pipeline_tells_its_faults(
    name: str, words: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(name, words, monkeypatch) == 2 and capsys.readouterr().err.startswith(f"error: {told}")


@pytest.mark.parametrize("fault", [ConfigError("one"), ConfigError(["one", "two"]), FileNotFoundError(2, "gone", "x")])
def test_a_fault_is_told_as_by_mmalign_itself(
    fault: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise fault

    with pytest.raises(SystemExit) as here, errors_as_sentences():
        stop()
    told = capsys.readouterr().err
    monkeypatch.setattr("mmalign.cli.main.application", lambda: stop)
    with pytest.raises(SystemExit) as there:
        mmalign_main()
    assert (here.value.code, told) == (there.value.code, capsys.readouterr().err) and here.value.code == 2 and told


def test_a_pipeline_that_is_stopped_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, errors_as_sentences():
        raise KeyboardInterrupt
    assert stopped.value.code == 130 and capsys.readouterr().err == "stopped.\n"


@pytest.mark.parametrize(
    "name", ["plain", "set #1", "rock, jazz", "a: b", "it's", '"x"', "{c}", "é\u2028☺😀", "1", "no"]
)
def test_a_change_is_read_as_what_was_written(name: str) -> None:
    for value in (name, {"name": "x", "path": f"/tmp/{name}/p.jsonl", "held_out": 1e-5, "none": None}):
        at, _, text = change("a.b", value).partition("=")
        assert at == "a.b" and parse_yaml(text) == value
    assert parse_yaml(change("a", Path("/tmp") / name).removeprefix("a=")) == f"/tmp/{name}"
