"""What is no YAML of a run file is told with its place, and nothing of it grows without end."""

from __future__ import annotations

import time

import pytest

from mmalign.core.yaml_text import MOST_DEEP, NotYAML, parse_yaml

NINE_LEVELS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("a: !!int x", "1:4", "'x' is no value of the kind 'int'"),
        ("a: !!bool x", "1:4", "'x' is no value of the kind 'bool'"),
        ('"\\UFFFFFFFF"', "1:4", "the number in this escape is no character's"),
        ('"\\U00110000"', "1:4", "the number in this escape is no character's"),
        ("[" * 2000, f"1:{MOST_DEEP + 1}", "nested more than 50 deep"),
        ("- " * 2000 + "x", f"1:{2 * MOST_DEEP + 1}", "nested more than 50 deep"),
        ("&a [*a]", "1:5", "an alias stands inside of what it names"),
        (NINE_LEVELS, "5:5", "more than 20,000 values in it, with aliases written in full"),
        ("x\n" * 600_000, None, "longer than 1,048,576 characters"),
        ("1" * 6000, "1:1", "no value of the kind 'int'"),
        ("!!set {a}", "1:1", "has no meaning in a run file"),
        ("!!python/object/apply:os.system ['true']", "1:1", "has no meaning in a run file"),
        ("a\x00", None, r"U\+0000 cannot stand in it"),
        ("[1", "1:3", "expected ',' or ']'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_none_is_told(text: str, place: str | None, why: str) -> None:
    start = time.perf_counter()
    with pytest.raises(NotYAML, match=why) as caught:
        parse_yaml(text)
    assert caught.value.place == place and len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    assert time.perf_counter() - start < 30


def test_dates_stay_texts_and_small_aliases_work() -> None:
    assert parse_yaml("a: 2024-13-01\nb: 2024-01-01") == {"a": "2024-13-01", "b": "2024-01-01"}
    assert parse_yaml("a: &x {r: 1}\nb: *x\nc: {<<: *x, s: 2}") == {"a": {"r": 1}, "b": {"r": 1}, "c": {"r": 1, "s": 2}}
