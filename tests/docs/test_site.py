"""The site: it builds without a warning, its reference is whole, its commands and quoted messages are real."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmalign.cli.listing import configs
from mmalign.cli.main import application
from mmalign.core.metrics import METRICS
from mmalign.run.component_docs import component_docs
from mmalign.run.registries import REGISTRIES
from tests.cli.conftest import *  # noqa: F403
from tests.docs.tutorials import TUTORIALS, commands, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated pages."""
    pytest.importorskip("mkdocs", reason="skipped: needs the extra docs")
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return dict(hooks.reference_pages())


@pytest.mark.slow
def test_it_builds_offline_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="skipped: needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "Align generators" in page and "fonts.googleapis" not in page


def test_every_component_and_option_is_in_the_reference(reference: dict[str, str]) -> None:
    for kind, registry in REGISTRIES.items():
        page = reference[f"reference/{kind}.md"]
        for name in registry.names():
            section = page.split(f"### {name}\n")[1].split("\n### ")[0]
            missing = [o.name for o in component_docs(registry.get(name)).options if f"| `{o.name}` |" not in section]
            assert missing == [], f"{kind}: {name}"


def test_every_command_and_name_is_in_the_reference(reference: dict[str, str]) -> None:
    import mmalign
    from mmalign.core.config import Evaluation, Trainer

    listed = [
        path.stem for path in (ROOT / "mmalign" / "cli").glob("[a-z]*.py") if path.stem not in ("main", "listing")
    ]
    assert [name for name in listed if f"## mmalign {name}" not in reference["reference/commands.md"]] == []
    assert [name for name in mmalign.__all__ if f"## {name}\n" not in reference["reference/python.md"]] == []
    keys = [field.name for section in (Trainer, Evaluation) for field in dataclasses.fields(section)]
    assert [key for key in keys if f"| `{key}` |" not in reference["reference/run_file.md"]] == []
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in METRICS if name.replace("|", "\\|") not in metrics] == []


def test_the_menu_holds_every_page() -> None:
    text = re.sub(r"!ENV", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = set(re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"])))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert there - named == set()


def test_every_message_that_is_explained_can_be_raised() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mmalign").rglob("*.py"))
    joined = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", source))  # literals that Python joins; values
    quoted = [
        message for row in re.findall(r"^\| (`.*?`)[^|]*\|", page, re.M) for message in re.findall("`(.*?)`", row)
    ]
    assert len(quoted) > 8 and [message for message in quoted if message not in joined] == []


@pytest.mark.parametrize("tutorial", TUTORIALS)
def test_a_tutorial_has_no_fault(tutorial: str, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `train` passes its dry run, and every command and ready file is one that there is."""
    monkeypatch.chdir(ROOT)
    known = {command.name or command.callback.__name__ for command in application().registered_commands}
    known |= {group.name for group in application().registered_groups}
    for words in map(shlex.split, (c.partition("||")[0].partition(" > ")[0] for c in commands(tutorial))):
        if words[0] != "mmalign":
            continue
        assert words[1] in known, words
        if words[1] == "train" and words[2] in configs() and not words[2].startswith("text/"):
            changes = [word for word in words[3:] if "=" in word and "drawn.safetensors" not in word]
            code, _, err = call("train", words[2], "--dry-run", *changes)
            assert code == 0, err


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute of one processor
def test_the_commands_of_the_shortest_tutorial_run(tmp_path: Path) -> None:
    """To the letter but for the size of its training; `python -m tests.docs.tutorials` runs all of them."""
    for name in ("mmalign", "assets", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert run("reward_models", tmp_path, small=True)
    assert (tmp_path / "runs" / "liked" / "report.html").exists()
