"""The 46 papers that the project began with: what of each runs here, and what shows it.

One file for each paper, `NN_name.yaml`, is all that there is to write:

| field | meaning |
|---|---|
| `number`, `title`, `arxiv` | its number, 1 to 46; its title; its number on arXiv, where it is known |
| `idea` | what it does, in a sentence |
| `commands` | what a user types to run it here |
| `places` | what implements it, `mmalign/file.py::Name` |
| `tests` | what exercises it, `tests/file.py` or `tests/file.py::test_name` |
| `results` | committed results, each {`file`: a JSON of `assets/`, `text`: a sentence} |
| `missing` | methods of its abstract that are not here |
| `deviations` | where it is done otherwise than in the paper, and what was left out that is no method |

Nobody writes a state: it follows from the fields (`Paper.state`). A result's text takes its figures from its JSON:
`{mean.truth.after}` is the entry called "truth" (by `name`, `role` or `id`) of the list "mean", and of that "after"; a
format may follow, `{mean.truth.after:.0%}`; without one a fraction has three digits.

`docs/papers.md` is made of these files: `python -m tests.docs.papers_page > docs/papers.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mmalign.core.errors import ConfigError, did_you_mean
from mmalign.core.files import require_local
from mmalign.core.yaml_text import read_yaml

__all__ = ["Paper", "Result", "founding_papers"]

State = Literal["works", "partly", "missing"]
_FIGURE = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Result:
    """A sentence on a committed JSON, whose figures are read from it; `file` begins with `assets/`."""

    file: str
    text: str

    @property
    def sentence(self) -> str:
        """The text with its figures.

        Raises:
            ConfigError: the file is not there, or holds no such entry.
        """
        content = json.loads(require_local(self.file).read_text(encoding="utf-8"))

        def figure(match: re.Match[str]) -> str:
            value = _entry(content, match[1], self.file)
            return format(value, match[2] or (".3f" if isinstance(value, float) else ""))

        return _FIGURE.sub(figure, self.text)


@dataclass(frozen=True)
class Paper:
    """One paper; the module says what the fields mean."""

    number: int
    title: str
    idea: str
    arxiv: str = ""
    commands: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)

    @property
    def state(self) -> State:
        """Does it work?

        *works*: a command runs it, a test exercises it, and no method of its abstract is missing (data sets, scale and
        figures of benchmarks are no methods); *partly*: some of it is here; *missing*: nothing is.
        """
        if not self.places:
            return "missing"
        return "works" if self.commands and self.tests and not self.missing else "partly"

    @property
    def shown_by(self) -> Literal["result", "test", "nothing"]:
        """The strongest evidence that there is: a committed result, or tests alone."""
        return "result" if self.results else "test" if self.tests else "nothing"

    def to_dict(self) -> dict[str, Any]:
        """All fields, the state, and results with their figures: JSON."""
        results = [asdict(result) | {"sentence": result.sentence} for result in self.results]
        return asdict(self) | {"results": results, "state": self.state, "shown_by": self.shown_by}


def founding_papers() -> list[Paper]:
    """Every paper, by number.

    Raises:
        ConfigError: a file with an unknown or a missing field, or two of one number.
    """
    papers = sorted((_read(path) for path in Path(__file__).parent.glob("*.yaml")), key=lambda paper: paper.number)
    numbers = [paper.number for paper in papers]
    if twice := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise ConfigError(f"papers: number {twice[0]} is taken by two files.")
    return papers


def _read(path: Path) -> Paper:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path.name}: must hold fields, as `number: 1`.")
    known = [each.name for each in fields(Paper)]
    faults = [f"{path.name}: unknown field '{key}'.{did_you_mean(str(key), known)}" for key in raw if key not in known]
    faults += [f"{path.name}: field '{key}' is missing." for key in ("number", "title", "idea") if not raw.get(key)]
    results = [one for one in raw.get("results", []) if not isinstance(one, dict) or sorted(one) != ["file", "text"]]
    faults += [f"{path.name}: results: {str(one)[:60]!r} must be {{file: …, text: …}}." for one in results]
    if faults:
        raise ConfigError(faults)
    return Paper(**raw | {"results": [Result(**one) for one in raw.get("results", [])]})


def _entry(content: Any, way: str, file: str) -> Any:
    """The entry of JSON to which the dotted `way` leads; entries of lists go by `name`, `role`, `id` or place."""
    keys = way.split(".")
    while keys:
        if isinstance(content, Mapping):  # a key may have dots of its own
            taken = next((n for n in range(len(keys), 0, -1) if ".".join(keys[:n]) in content), 0)
            if taken:
                content, keys = content[".".join(keys[:taken])], keys[taken:]
                continue
        entries = content if isinstance(content, list) else []
        named = [one for i, one in enumerate(entries) if keys[0] in (str(i), *_names(one))]
        if not named:
            raise ConfigError(f"{file}: holds no '{keys[0]}' (of '{way}').")
        content, keys = named[0], keys[1:]
    return content


def _names(one: object) -> list[object]:
    return [one.get(key) for key in ("name", "role", "id")] if isinstance(one, Mapping) else []
