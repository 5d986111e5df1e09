"""Run files with a fault: every mutation must be accepted, or refused by a sentence.

    python -m tests.fuzz.run_files --cases 2000 --seed 0

Every case is a ready run file with one to three mutations of its keys, values, structure or text, checked as
`mmalign train FILE --dry-run` checks it, in one process. Prints how many were accepted (exit code 0) and refused (2),
and every case that ended otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmalign.cli.listing import configs

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 20_000  # characters of a message
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**70, 10**400, 1.5, -0.0, 1e-320, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        " ",
        "x",
        "null",
        "1",
        "-1",
        "1e400",
        "a/b",
        "[/bold]",
        "a:b",
        ":",
        "__main__:x",
        "os:system",
        "a b",
        "naïve",
        "🦊",
    ),
    *(
        "\u202e",
        "\u0000",
        "../..",
        "/",
        "~",
        "hub:",
        "hub:a/b",
        "assets/scenes_clip",
        "/dev/null",
        "a" * 5000,
        "%s",
        "{x}",
        "$HOME",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        {"name": None},
        {"name": "x"},
        {"name": 5},
        {"a": {"b": {"c": 1}}},
        list(range(3000)),
        [1, "a"],
    ),
    *(["x"] * 3, {"": 1}, {1: 2}, {None: 3}, {"x": float("nan")}, [0.5, 0.5], [1, 2, 3, 4]),
)
RAW = (
    *(
        "2024-13-01",
        "2024-01-01",
        "!!int x",
        '"\\UFFFFFFFF"',
        "!!binary x",
        "!!python/name:os.system",
        "&a [*a]",
        "*nowhere",
    ),
    *(
        "!!timestamp 5",
        "!!set {a}",
        "[" * 1500,
        "{a: " * 300,
        "'",
        '"',
        "|",
        "- -",
        "?",
        "%",
        "@x",
        "`",
        "\t",
        "\x00",
        "0x",
        "0o9",
    ),
    *(
        "1_000",
        "12:30:45",
        "1" * 5000,
        "! x",
        "!<x> y",
        "<<: 3",
        "a: b: c",
        "{[1]: 2}",
        "{{a: 1}: 2}",
        "=",
        "~",
        "\ud800",
    ),
)


def places(held: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every entry of mappings and lists."""
    pairs = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for key, value in pairs:
        yield (*above, key)
        yield from places(value, (*above, key))


def at(held: Any, path: tuple[Any, ...]) -> Any:
    """The entry at a path."""
    for key in path:
        held = held[key]
    return held


def mutated(run: Any, others: list[Any], rng: random.Random) -> Any:
    """The run file with one change of a key, a value, or its structure."""
    run = copy.deepcopy(run)
    path = rng.choice(list(places(run)))
    *above, key = path
    parent = at(run, tuple(above))
    kind = rng.choice(("value", "value", "value", "drop", "rename", "swap", "foreign", "add", "wrap", "number"))
    if kind == "value":
        parent[key] = rng.choice(ODD)
    elif kind == "drop":
        del parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        new = rng.choice(ODD)
        parent[new if new.__hash__ else "odd"] = parent.pop(key)
    elif kind == "swap":
        other = rng.choice(list(places(run)))
        parent[key] = copy.deepcopy(at(run, other))
    elif kind == "foreign":
        other = rng.choice(others)
        parent[key] = copy.deepcopy(at(other, rng.choice(list(places(other)))))
    elif kind == "add":
        section = parent if isinstance(parent, dict) else run
        section[rng.choice(("name", "weight", "role", "path", "lora", "x", "base", "combine", "[b]"))] = rng.choice(ODD)
    elif kind == "wrap":
        parent[key] = rng.choice(([parent[key]], {"name": parent[key]}, {key if key.__hash__ else 0: parent[key]}))
    elif isinstance(parent[key], int | float):
        parent[key] = rng.choice(
            (-parent[key], parent[key] * 1e30, parent[key] / 3, float("nan"), 10**30, str(parent[key]))
        )
    return run


def garbled(text: str, rng: random.Random) -> str:
    """The text with one change that knows nothing of YAML, or one written value replaced."""
    where = rng.randrange(len(text))
    kind = rng.choice(("cut", "insert", "delete", "value", "line", "repeat"))
    lines = text.splitlines(keepends=True)
    line = rng.randrange(len(lines))
    if kind == "cut":
        return text[:where]
    if kind == "insert":
        return text[:where] + rng.choice(RAW) + text[where:]
    if kind == "delete":
        return text[:where] + text[where + rng.randint(1, 20) :]
    if kind == "value" and ":" in lines[line]:
        lines[line] = lines[line].partition(":")[0] + ": " + rng.choice(RAW) + "\n"
    elif kind == "repeat":
        lines.insert(line, lines[line])
    else:
        lines[line] = rng.choice(("", "  " + lines[line], lines[line].strip() + "\n"))
    return "".join(lines)


def ready() -> list[Any]:
    """What the ready run files hold."""
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in configs().values()]


def case(number: int, seed: int, runs: list[Any]) -> str:
    """The text of one of `runs`, mutated; they stay as they are."""
    rng = random.Random(f"{seed}-{number}")
    run = rng.choice(runs)
    if rng.random() < 0.3:
        return garbled(yaml.safe_dump(run, sort_keys=False, allow_unicode=True), rng)
    for _ in range(rng.randint(1, 3)):
        with contextlib.suppress(LookupError, TypeError, AttributeError):
            run = mutated(run, runs, rng)
    return yaml.safe_dump(run, sort_keys=False, allow_unicode=True)


@dataclass
class Outcome:
    """How the check of one file ended; `wrong` says what is not as promised, "" if nothing is."""

    code: int
    said: str
    wrong: str


def outcome(text: str, folder: Path) -> Outcome:
    """What `mmalign train FILE --dry-run` does with the text."""
    from mmalign.cli.train import train_command
    from mmalign.core.sentences import errors_as_sentences

    path = folder / "run.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    out, err = io.StringIO(), io.StringIO()
    code, wrong = 0, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with errors_as_sentences():
                train_command([str(path)], dry_run=True)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except Exception as error:
            frames = [each for each in traceback.extract_tb(error.__traceback__) if "mmalign/" in each.filename]
            last = frames[-1] if frames else None
            place = f"{Path(last.filename).name}:{last.lineno} in {last.name}" if last else "elsewhere"
            code, wrong = 1, f"{type(error).__name__}: {str(error)[:300]} ({place})"
    said = err.getvalue()
    if not wrong and code not in (0, 2):
        wrong = f"exit code {code}"
    if not wrong and (len(said) > LONGEST or "Traceback" in said):
        wrong = f"a message of {len(said)} characters" if len(said) > LONGEST else "a traceback in the message"
    if not wrong and code == 2 and not said.strip():
        wrong = "refused without a word"
    return Outcome(code, said, wrong)


@contextlib.contextmanager
def beside() -> Iterator[Path]:
    """A folder with the files that ready run files name beside them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "prompts.txt").write_text("".join(f"a picture of {n} things\n" for n in range(40)))
        yield folder


def main() -> int:
    """Run so many cases; exit code 1 if any ended otherwise than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="print this case and what is said of it")
    asked = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    counts: Counter[int] = Counter()
    bad = 0
    runs = ready()
    with beside() as folder:
        for number in [asked.only] if asked.only is not None else range(asked.cases):
            text = case(number, asked.seed, runs)
            ended = outcome(text, folder)
            counts[ended.code] += 1
            if asked.only is not None:
                print(text, ended.said, sep="\n---\n")
            if ended.wrong:
                bad += 1
                print(f"case {number} (--seed {asked.seed} --only {number}): {ended.wrong}\n")
    print(f"{sum(counts.values())} cases: {counts[0]} accepted, {counts[2]} refused by a sentence, {bad} otherwise.")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
