"""Run files and changes may come in any order; too few or too many files are told, and so is every fault."""

import runpy
from pathlib import Path

import pytest

from mmalign.cli._faults import faults_told
from mmalign.cli.main import main as mmalign_main
from mmalign.core.config import parse_yaml
from mmalign.core.errors import ConfigError
from pipelines._command_line import change, files_and_changes

ONE, TWO = Path("one.yaml"), Path("two.yaml")


def test_files_and_changes_in_any_order() -> None:
    assert files_and_changes(None, [ONE], []) == ([ONE], ())
    assert files_and_changes(None, [ONE], ["a.b=1", "mine.yaml", "c={d: 2}"]) == (
        [Path("mine.yaml")],
        ("a.b=1", "c={d: 2}"),
    )
    assert files_and_changes(None, [ONE, TWO], ["x", "y"])[0] == [Path("x"), Path("y")]


def test_other_numbers_of_files_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["x"], ["x", "y", "z"]):
        with pytest.raises(SystemExit):
            files_and_changes(None, [ONE, TWO], words)
        assert (
            f"name 2 run file(s), in place of one.yaml two.yaml, or none; found {len(words)}" in capsys.readouterr().err
        )


def test_help_is_the_pipeline_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        files_and_changes("What it does.", [ONE], ["--help"])
    assert stop.value.code == 0 and "What it does." in capsys.readouterr().out


def test_a_file_is_a_run_file_whatever_its_name(tmp_path: Path) -> None:
    (file := tmp_path / "lr=2.yaml").touch()
    long = f"data.path={'x' * 5000}"
    assert files_and_changes(None, [ONE], ["a.b=1", str(file), long]) == ([file], ("a.b=1", long))


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("text_to_image", "no.yaml", "no.yaml: no such run file."),
        ("captioning", "no.yaml", "no.yaml: no such run file."),
        ("grounding", "no.yaml", "no.yaml: no such run file."),
        ("prompt_rewriter", "no.yaml no.yaml", "no.yaml: no such run file."),
        ("results", "no.yaml", "no.yaml: no such run file."),
        ("music", "no/folder", "no/folder: no such file or folder; looked at "),
        ("grammar_head", "no.txt --out heads", "name either checkpoint (a folder or Hub id) or model"),
        ("grammar_head", "no.txt --out heads --checkpoint assets/scenes_clip", "no.txt: no such file or folder; "),
    ],
)
def test_a_pipeline_tells_its_faults(
    name: str, words: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(__file__).parents[2] / "pipelines" / f"{name}.py"
    monkeypatch.setattr("sys.argv", [str(path), *words.split()])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(path), run_name="__main__")
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith(f"error: {told}")


@pytest.mark.parametrize("fault", [ConfigError("one"), ConfigError(["one", "two"]), FileNotFoundError(2, "gone", "x")])
def test_a_fault_is_told_as_by_mmalign_itself(
    fault: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        raise fault

    with pytest.raises(SystemExit) as here, faults_told():
        stop()
    told = capsys.readouterr().err
    monkeypatch.setattr("mmalign.cli.main.application", lambda: stop)
    with pytest.raises(SystemExit) as there:
        mmalign_main()
    assert (here.value.code, told) == (there.value.code, capsys.readouterr().err) and here.value.code == 2 and told


def test_a_pipeline_that_is_stopped_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, faults_told():
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
