"""Citations and abstention in tables, by hand."""

import pytest

from mmalign.core.types import Status
from tests.rewards.asking import one


@pytest.mark.parametrize(
    ("output", "supporting", "value"),
    [
        ("yes [1]", [1], 1.0),
        ("yes [1][2]", [1], 2 / 3),
        ("yes [2; 3]", [1, 2], 0.5),
        ("yes", [1], 0.0),
        ("yes", [], 1.0),
        ("yes [1]", [], 0.0),
        ("<think>[4] might do</think> yes [1]", "[1]", 1.0),
        ("yes (1) [note] [1, 2]", [1, 2], 1.0),
    ],
)
def test_citations(output: str, supporting: object, value: float) -> None:
    assert one("citations", output, {"supporting": supporting}) == (pytest.approx(value), Status.OK)


@pytest.mark.parametrize(
    ("output", "answerable", "value"),
    [
        ("I don’t know.", False, 1.0),
        ("I do not know.", True, 0.0),
        ("<answer>unknown</answer>", "false", 1.0),
        ("two stars", True, 1.0),
        ("<think>not mentioned?</think>two stars", 0, 0.0),
    ],
)
def test_abstention(output: str, answerable: object, value: float) -> None:
    assert one("abstains", output, {"answerable": answerable}) == (value, Status.OK)


def test_rows_that_cannot_be_read() -> None:
    assert one("abstains", "nothing to say", {"answerable": False}, phrases=["Nothing"]) == (1.0, Status.OK)
    for name, column in (("citations", "supporting"), ("abstains", "answerable")):
        assert one(name, "yes", {})[1] == Status.NOT_APPLICABLE
        assert one(name, "yes", {column: "some"})[1] == Status.ERROR
        assert one(name, "<think>never ends", {column: 1})[1] == Status.PARSE_FAIL
