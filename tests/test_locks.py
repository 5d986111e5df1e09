"""The locks hold what pyproject.toml asks for, with hashes and without the address of any index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def wanted(extra: str) -> list[Requirement]:
    """The requirements of the project with `extra`, extras within extras followed."""
    found, open_extras, seen = [Requirement(text) for text in PROJECT["dependencies"]], [extra], set()
    while open_extras:
        name = open_extras.pop()
        if name in seen:
            continue
        seen.add(name)
        for requirement in map(Requirement, PROJECT["optional-dependencies"][name]):
            if requirement.name == "mmalign":
                open_extras += requirement.extras
            else:
                found.append(requirement)
    return found


def locked(extra: str) -> list[Requirement]:
    lines = (ROOT / f"requirements-{extra}.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line.removesuffix("\\").strip()) for line in lines if re.match(r"[a-z0-9]", line)]


@pytest.mark.parametrize("extra", ["dev", "all", "real"])
def test_every_requirement_is_locked_within_its_range(extra: str) -> None:
    versions: dict[str, list[Requirement]] = {}
    for requirement in locked(extra):
        versions.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    for requirement in wanted(extra):
        here = versions.get(canonicalize_name(requirement.name), [])
        assert here, f"{requirement} is not in requirements-{extra}.txt; run make lock"
        for python in ("3.11", "3.12", "3.13", "3.14"):
            environment = {"python_version": python, "python_full_version": f"{python}.0"}
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            fits = [lock for lock in here if lock.marker is None or lock.marker.evaluate(environment)]
            assert len(fits) == 1, (str(requirement), python, list(map(str, fits)))
            version = next(iter(fits[0].specifier)).version
            assert requirement.specifier.contains(version), f"{requirement}: {version} is locked; run make lock"


@pytest.mark.parametrize("extra", ["dev", "all", "real"])
def test_a_lock_has_hashes_and_no_address(extra: str) -> None:
    text = (ROOT / f"requirements-{extra}.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?://|--index|--find-links|file:|@ ", text)
    for block in re.split(r"\n(?=[a-z0-9])", text):
        assert "--hash=sha256:" in block, block.splitlines()[0]
