"""A name is a file; a wrong one gets a suggestion; options are checked from outside."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mmalign.core.errors import ConfigError, MissingExtra
from mmalign.core.registry import Registry, construct
from mmalign.run.registries import REGISTRIES


@dataclass
class Inner:
    rank: int = 4


@dataclass
class Thing:
    size: int
    scale: float = 1.0
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("size must not be negative")


def test_options_are_coerced_and_nested() -> None:
    thing = construct(Thing, {"size": 2, "scale": "1e-3", "inner": {"rank": 8}}, "here")
    assert (thing.size, thing.scale, thing.inner.rank) == (2, 1e-3, 8)


def test_every_fault_of_a_component_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        construct(Thing, {"scale": "big", "inner": {"rnak": 1}, "sizes": 3}, "here")
    message = str(caught.value)
    assert "here.size: missing." in message
    assert "here.scale: must be a number (got 'big')" in message
    assert "here.inner.rnak: unknown option. Did you mean 'rank'? Known: rank." in message
    assert "here.sizes: unknown option. Did you mean 'size'?" in message
    with pytest.raises(ConfigError, match="here: size must not be negative"):
        construct(Thing, {"size": -1}, "here")


def test_what_the_run_gives_cannot_be_named_in_the_file() -> None:
    with pytest.raises(ConfigError, match=r"here.size: is set by mmalign itself"):
        construct(Thing, {"size": 1}, "here", size=2)
    with pytest.raises(ConfigError, match=r"here.sizes: unknown option. Known: scale, inner\."):
        construct(Thing, {"sizes": 1}, "here", size=2)
    with pytest.raises(ConfigError, match=r"^here: size must not be negative$"):
        construct(Thing, {"scale": 2}, "here", size=-1)


def test_names_come_from_files_and_unknown_ones_get_a_suggestion() -> None:
    objectives = Registry("objective", "mmalign.objectives")
    assert {"grpo", "dpo", "dragon", "r0"} <= set(objectives.names())
    with pytest.raises(ConfigError, match=r"no objective is called 'gpro'. Did you mean 'grpo'\? Known: .*dragon"):
        objectives.get("gpro")
    with pytest.raises(ConfigError, match=r"here.name: missing. Known: "):
        objectives.build({}, "here")


def test_outside_code_needs_permission() -> None:
    objectives = Registry("objective", "mmalign.objectives")
    with pytest.raises(ConfigError, match=r"only with --allow collections"):
        objectives.get("collections:OrderedDict")
    here = __name__
    assert objectives.get(f"{here}:Thing", allow=[here]) is Thing
    with pytest.raises(ConfigError, match=r"'collection:Mine': there is no module 'collection'"):
        objectives.get("collection:Mine", allow=["collection"])
    with pytest.raises(ConfigError, match=r"'collections:Mine': module 'collections' has no 'Mine'"):
        objectives.get("collections:Mine", allow=["collections"])


def polite(prompt: str, output: str) -> float:
    return float("please" in output)


def test_outside_code_must_say_its_options() -> None:
    rewards, here = Registry("reward", "mmalign.rewards"), __name__
    advice = r"polite': is a function, not a dataclass; decorate it with @mmalign\.rule or make it a dataclass\.$"
    with pytest.raises(ConfigError, match=r"here\.name: .*" + advice):
        rewards.build({"name": f"{here}:polite"}, "here", allow=[here])
    with pytest.raises(ConfigError, match=r"'collections:OrderedDict': is a class, not a dataclass; make it a data"):
        rewards.get("collections:OrderedDict", allow=["collections"])


@dataclass
class Needy:
    size: int = 1

    def __post_init__(self) -> None:
        raise MissingExtra("needy", "none")


def test_a_missing_package_does_not_hide_the_options_that_are_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        construct(Needy, {"size": "big"}, "here")
    first, *others = caught.value.faults
    assert first == "here.size: must be a whole number (got 'big')"
    assert any("needy" in each for each in others)


@pytest.mark.parametrize("kind", sorted(REGISTRIES))
def test_a_name_is_one_file_of_one_family(kind: str) -> None:
    registry = REGISTRIES[kind]
    home = Path(*registry.package.split("."))
    folders = [home / family for family in registry.families] or [home]
    files = [path for folder in folders for path in folder.glob("*.py") if not path.name.startswith("_")]
    assert [name for name, times in Counter(path.stem for path in files).items() if times > 1] == []
    assert {path.stem: path for path in files} == {
        name: Path(*module.split(".")).with_suffix(".py") for name, module in registry.built_in().items()
    }
    for name in registry.built_in():
        assert registry.family(name) == (
            Path(registry.built_in()[name].replace(".", "/")).parent.name if registry.families else ""
        )


def test_components_lie_in_families_and_their_helpers_do_not() -> None:
    rewards = REGISTRIES["rewards"]
    assert rewards.family("clip") == "image" and rewards.family("clap") == "sound" and rewards.family("dpo") == ""
    assert rewards.get("clip").__module__ == "mmalign.rewards.image.clip"
    assert {"guarded", "clip_towers", "statistics"}.isdisjoint(rewards.names())


def test_a_file_that_is_added_later_is_listed_wherever_the_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "growing"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "first.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = Registry("thing", "growing")
    assert registry.names() == ["first"]
    monkeypatch.chdir(home)
    (home / "second.py").write_text("")
    assert registry.names() == ["first", "second"]


def test_a_class_that_is_defined_again_has_its_own_options() -> None:
    def defined(default: float) -> type:
        @dataclass
        class Again:
            low: float = default

        return Again

    assert [construct(defined(low), {}, "here").low for low in (0.25, 0.5)] == [0.25, 0.5]
