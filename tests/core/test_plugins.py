"""Components of other distributions: their groups, their clashes, and what `mmalign list` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmalign.core.errors import ConfigError
from mmalign.core.registry import Registry
from mmalign.data import data_sources
from mmalign.policies import policies
from mmalign.rewards import rewards
from mmalign.run.registries import REGISTRIES

CODE = '''"""Scores that somebody else wrote.

More of it.
"""
from dataclasses import dataclass


@dataclass
class Theirs:
    modalities = frozenset({"text"})
'''


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`distribution(name, group, entries)` installs one on the path."""

    def install(name: str, entries: dict[str, list[str]]) -> None:
        place = tmp_path / name
        info = place / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        text = "".join(f"[{group}]\n" + "\n".join(lines) + "\n" for group, lines in entries.items())
        (info / "entry_points.txt").write_text(text)
        (place / f"{name}_code.py").write_text(CODE)
        monkeypatch.syspath_prepend(str(place))

    return install


def test_groups_are_called_as_list_names_the_kinds() -> None:
    assert {plural: registry.group for plural, registry in REGISTRIES.items()} == {
        plural: f"mmalign.{plural}" for plural in REGISTRIES
    }


def test_a_plugin_is_found_under_its_group(distribution: Any) -> None:
    distribution(
        "theirs", {"mmalign.rewards": ["kind = theirs_code:Theirs"], "mmalign.data": ["d = theirs_code:Theirs"]}
    )
    assert rewards.get("kind").__name__ == "Theirs" and "kind" in rewards.names()
    assert data_sources.get("d").__name__ == "Theirs"


def test_the_old_group_is_read_with_a_warning(distribution: Any, caplog: pytest.LogCaptureFixture) -> None:
    distribution("older", {"mmalign.policys": ["walk = older_code:Theirs"]})
    assert policies.get("walk").__name__ == "Theirs"
    assert (
        "older 1.2: its entry points stand under 'mmalign.policys'; the group is called 'mmalign.policies'"
        in caplog.text
    )


def test_two_of_one_name_are_a_fault_that_names_both(distribution: Any) -> None:
    distribution("one", {"mmalign.rewards": ["clip = one_code:Theirs", "same = one_code:Theirs"]})
    distribution("two", {"mmalign.rewards": ["same = two_code:Theirs"]})
    with pytest.raises(
        ConfigError, match=r"2 rewards are called 'clip': of mmalign itself and of one 1\.2\. Uninstall"
    ):
        rewards.get("clip")
    with pytest.raises(ConfigError, match=r"called 'same': of (one|two) 1\.2 and of (one|two) 1\.2\."):
        rewards.get("same")
    assert rewards.get("sharpness") and "same" in rewards.names()  # nothing else is touched


def test_one_that_does_not_load_is_a_sentence(distribution: Any) -> None:
    distribution("broken", {"mmalign.rewards": ["b = broken_code:Absent", "c = no_such_module_here:X"]})
    with pytest.raises(ConfigError, match=r"'b': broken_code:Absent of broken 1\.2 does not load \(AttributeError"):
        rewards.get("b")
    with pytest.raises(ConfigError, match=r"'c': .* does not load \(ModuleNotFoundError"):
        rewards.get("c")


def test_list_says_what_it_is_and_whose(distribution: Any) -> None:
    from mmalign.cli.listing import _first_line

    distribution("theirs2", {"mmalign.rewards": ["kind2 = theirs2_code:Theirs", "clip = theirs2_code:Theirs"]})
    assert _first_line(rewards, "kind2") == "Scores that somebody else wrote. [theirs2 1.2]"
    assert "taken twice" in _first_line(rewards, "clip")


def test_a_permitted_package_covers_its_modules() -> None:
    registry = Registry("objective", "mmalign.objectives")
    assert registry.get("mmalign.objectives.grpo:GRPO", allow=["mmalign.objectives"]).__name__ == "GRPO"
    with pytest.raises(ConfigError, match="only with --allow mmalign_x"):
        registry.get("mmalign_x:GRPO", allow=["mmalign"])
    with pytest.raises(ConfigError, match=r"allow: got 'mmalign' where a list is meant; write e\.g\. \[\"mine\"\]"):
        registry.get("mmalign_x:GRPO", allow="mmalign")


def test_a_component_without_a_name_of_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare_parts").mkdir()
    (tmp_path / "bare_parts" / "__init__.py").write_text("")
    (tmp_path / "bare_parts" / "one.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"'one': .*one\.py has no __all__; name the component's class first in it"):
        Registry("part", "bare_parts").get("one")
