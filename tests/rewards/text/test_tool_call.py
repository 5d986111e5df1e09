"""ToolRL's reward: golden values of its own function, and its definition tried against brute force."""

import itertools
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import DataError
from mmalign.core.types import Status
from mmalign.rewards import functional as F
from mmalign.rewards import load_reward
from mmalign.rewards.engine.traits import require_columns
from tests.rewards.asking import one, rollout_of, scored

OK, FAIL, ERROR = Status.OK, Status.PARSE_FAIL, Status.ERROR
THINK = "<think>the user wants the weather</think>\n"


def lines(*calls):
    inside = "\n".join(call if isinstance(call, str) else json.dumps(call) for call in calls)
    return f"<tool_call>\n{inside}\n</tool_call>"


def call(name="weather", **parameters):
    return {"name": name, "parameters": parameters}


PARIS = call(city="Paris", unit="C")
TWO = [PARIS, call("time", zone="CET")]


@pytest.mark.parametrize(
    "output, truth, total",  # format + match, as upstream's function gives them
    [
        (THINK + lines(PARIS), [PARIS], 4.0),
        (THINK + lines(call(city="Paris", unit="F")), [PARIS], 2.5),
        (THINK + lines(call(city="Paris")), [PARIS], 1.75),
        (THINK + lines(call(city="Paris", unit="C", days=3)), [PARIS], 3.5),
        (THINK + lines(call("climate", city="Paris", unit="C")), [PARIS], -2.0),
        (THINK + lines(PARIS, call("time", zone="CET")), [PARIS], 3.25),
        (THINK + lines('{"name": "weather", '), [PARIS], -2.0),
        (lines(PARIS), [PARIS], 3.0),
        (THINK + lines(*reversed(TWO)), TWO, 4.0),
    ],
)
def test_golden_values(output, truth, total):
    assert one("tool_call", output, {"ground_truth": THINK + lines(*truth)}) == (pytest.approx(total), OK)


def test_one_of_two_calls():
    """(1/2 + 2 + 1)/(1 + 3 + 2) of the way from -3 to 3, and 1 for the format; with equal parameter counts 1.5."""
    truth = {"ground_truth": lines(PARIS, call("time", zone="CET", form="h"))}
    assert one("tool_call", THINK + lines(PARIS), truth)[0] == pytest.approx(1 - 3 + 6 * 3.5 / 7)
    same = {"ground_truth": lines(call(a=1), call("time", b=2))}
    assert one("tool_call", THINK + lines(call(a=1)), same)[0] == pytest.approx(1 - 3 + 6 * 2.5 / 5)


@pytest.mark.parametrize(
    "output",
    [
        "", "no call", "<tool_call>", lines(""), lines("[]"), lines('{"name": 3, "parameters": {}}'),
        lines('{"name": "weather"}'), lines('{"name": "weather", "parameters": [1]}'), lines("{" * 10_000),
        lines("9" * 10_000),
        "<tool_call>" * 500_000, "x" * 10_000_000,
    ],
)  # fmt: skip
def test_unreadable_calls_without_their_frame_are_the_floor(output):
    assert one("tool_call", output, {"ground_truth": lines(PARIS)}) == (-3, FAIL)
    assert one("tool_call", output, {"ground_truth": lines(PARIS)}, scale=1.0, format_weight=0.0) == (-1, FAIL)


def test_no_call_wanted():
    truth = {"ground_truth": "<think>…</think>\n<response>hello</response>"}
    output = THINK + "<response>hi</response>"
    assert one("tool_call", output, truth) == (1, OK)
    assert one("tool_call", THINK + lines(PARIS), truth) == (0, OK)
    assert one("tool_call", THINK + lines(PARIS), truth, spurious=-1.0) == (-1, OK)
    both = {"ground_truth": lines(PARIS) + "\n<response>x</response>"}
    assert one("tool_call", THINK + lines(PARIS) + "\n<response>y</response>", both) == (4, OK)
    assert one("tool_call", THINK + lines(PARIS), both) == (3, OK)


@pytest.mark.parametrize(
    "truth",
    [
        [PARIS],
        PARIS,
        json.dumps([PARIS]),
        json.dumps(PARIS, indent=2),
        {"name": "weather", "arguments": {"city": "Paris", "unit": "C"}},
        {"name": "weather", "arguments": json.dumps({"unit": "C", "city": "Paris"})},
        [
            {
                "type": "function",
                "id": "call_1",
                "function": {"name": "weather", "arguments": '{"city": "Paris", "unit": "C"}'},
            }
        ],
        [json.dumps(PARIS)],
        lines(json.dumps(PARIS, indent=2)),
        lines({"name": "weather", "arguments": PARIS["parameters"]}),
    ],
)
def test_right_calls_with_and_without_tags(truth):
    meta = {"ground_truth": truth}
    require_columns({"rewards.a": load_reward("tool_call")}, rollout_of(("", meta)).prompts)
    assert one("tool_call", THINK + lines(PARIS), meta) == (4, OK)
    assert one("tool_call", THINK + lines(call(city="Paris", unit="F")), meta) == (2.5, OK)
    assert one("tool_call", "no call", meta) == (-3, FAIL)


@pytest.mark.parametrize(
    "truth, why",
    [
        ("The weather in Paris", "is not JSON"), ("", "is empty"), ("<tool_call>\n{}", "no pair"),
        (7, "expected tool calls"),
        ([{"function": "weather"}], "an object with a 'name'"),
        ([{"name": "f"}], "no object 'parameters' or 'arguments'"),
        ({"name": "f", "arguments": "[1"}, "not JSON"), ({"name": "f", "arguments": [1]}, "no object 'parameters'"),
        ("[" * 100_000, "not JSON"), ([None], "an object with a 'name'"),
    ],
)  # fmt: skip
def test_right_calls_that_cannot_be_read_stop_the_run(truth, why):
    meta = {"ground_truth": truth}
    with pytest.raises(DataError, match=f"rewards.a: Prompt.meta..ground_truth..: .*{why}"):
        require_columns({"rewards.a": load_reward("tool_call")}, rollout_of(("", meta)).prompts)
    assert one("tool_call", THINK + lines(PARIS), meta)[1] is ERROR


def test_no_call_is_right():
    truths: tuple[Any, ...] = ([], "[]")
    for truth in truths:
        for output in (THINK + "hello", THINK, THINK + "<response>hi</response>"):
            assert one("tool_call", output, {"ground_truth": truth}) == (1, OK)
        assert one("tool_call", "", {"ground_truth": truth}) == (0, OK)
        assert one("tool_call", THINK + lines(PARIS), {"ground_truth": truth}, spurious=-3.0) == (-3, OK)
    assert one("tool_call", "", {"ground_truth": "<think>…</think>\n<response>hello</response>"}) == (0, OK)


@pytest.mark.parametrize(
    "output, truth, total",
    [
        ("\n" + THINK + lines(PARIS) + "\n", [PARIS], 4.0),  # ToolRL strips it too
        ("<think>I'd use <tool_call> here</think>\n" + lines(PARIS), [PARIS], 4.0),
        (f"<think>first {lines(call(city='Rome'))}?</think>\n" + lines(PARIS), [PARIS], 4.0),
        (THINK + lines(PARIS) + "\n" + lines(TWO[1]), TWO, 4.0),
        (THINK + lines(json.dumps(PARIS, indent=2), json.dumps(TWO[1], indent=1)), TWO, 4.0),
        (THINK + lines({"name": "weather", "arguments": {"city": "Paris", "unit": "C"}}), [PARIS], 4.0),
        (THINK + lines(call(on=1)), [call(on=True)], 1 - 3 + 6 * 2 / 3),
        (THINK + lines(call(on=[1, {"a": 0}])), [call(on=[1, {"a": False}])], 1 - 3 + 6 * 2 / 3),
        (THINK + lines(call(on=1.0)), [call(on=1)], 4.0),
        (THINK + lines(PARIS) + lines(TWO[1]), TWO, 3.0),  # blocks stand on lines of their own
        (THINK + lines(f"{json.dumps(PARIS)} {json.dumps(TWO[1])}"), TWO, -2.0),
        ("<think>never\n" + lines(PARIS), [PARIS], 3.0),
        (f"<think>{lines(PARIS)}</think>\ndone", [PARIS], -3.0),
    ],
)
def test_where_calls_stand_and_when_they_are_equal(output, truth, total):
    assert one("tool_call", output, {"ground_truth": lines(*truth)})[0] == pytest.approx(total)


@pytest.mark.parametrize(
    "output, truth, value, form",
    # Values of `compute_score` of qiancheng0/ToolRL's rlla.py, one of each kind of row.
    [
        (THINK + lines("5"), lines(PARIS), -3, 1),
        (THINK + lines("[]"), lines(PARIS), -3, 1),
        (THINK + lines(PARIS, '{"name": "climate"}'), lines(PARIS), -3 + 6 * 3.5 / 4, 1),
        (THINK + lines(PARIS, '{"name": "weather"}'), lines(PARIS), -3, 1),
        ("<think>a</think>b</think>\n" + lines(PARIS), lines(PARIS), 3, 1),
        (THINK + lines(PARIS) + "\ntail", lines(PARIS), 3, 0),
        (THINK + "\n" + lines(PARIS), lines(PARIS), 3, 0),
        (THINK + "<response>a</response>\n<response>b</response>", "<response>x</response>", 0, 0),
        (THINK.strip(), "<think>x</think>", 0, 1),
        (THINK + "x", "<think>x</think>", 0, 0),
    ],
)
def test_values_of_toolrl(output, truth, value, form):
    scores = scored("tool_call", (output, {"ground_truth": truth}))
    assert scores.parts["match"].item() == pytest.approx(value, abs=1e-6) and scores.parts["format"].item() == form


def test_parts_and_bad_truth():
    scores = scored(
        "tool_call", (lines(PARIS), {"ground_truth": lines(PARIS)}), ("a", {"ground_truth": lines("nonsense")})
    )
    assert scores.parts["match"][0] == 3 and scores.parts["format"][0] == 0
    assert (
        scores.status.tolist() == [OK, ERROR] and "Prompt.meta['ground_truth']: a line of the calls" in scores.info[1]
    )


def test_variants_of_the_repository():
    predicted = [call(city="Paris", unit="F")]
    assert F.tool_match(predicted, [PARIS], "fine") == 0.75
    assert F.tool_match(predicted, [PARIS], "coarse") == 0 and F.tool_match([PARIS], [PARIS], "coarse") == 1
    assert F.tool_match(predicted, [PARIS], "intermediate") == 0.5  # the name alone, of S_max = 1 + 1
    assert F.tool_match([call(city="Paris", unit="C", days=1)], [PARIS], "refined") == (1 + 2) / 4
    assert F.tool_match([call(city="Paris")], [PARIS], "refined") == (1 + 1) / 4


def test_greedy_matching_can_lose_to_the_best():
    truth = [call(a=1, b=1), call(a=1, b=2)]
    predicted = [call(a=1, b=2), call(a=9, b=1)]
    assert F.tool_match(predicted, truth) <= F.tool_match(predicted, truth, optimal=True)
    swapped = [call(b=2, a=1), call(a=1)]
    assert F.tool_match(swapped, truth, optimal=True) == pytest.approx((1 + (0.5 + 1) + (1 + 2)) / 7)


small = st.lists(st.sampled_from("abc"), max_size=4)


@settings(max_examples=50)
@given(small, small)
def test_multiset_jaccard_by_counting(first, second):
    one, two = Counter(first), Counter(second)
    union = sum((one | two).values())
    assert F.multiset_jaccard(first, second) == (sum((one & two).values()) / union if union else 1)


a_call = st.builds(
    lambda name, p: {"name": name, "parameters": p},
    st.sampled_from("fg"),
    st.dictionaries(st.sampled_from("xyz"), st.integers(0, 2), max_size=3),
)


@settings(max_examples=60)
@given(st.lists(a_call, min_size=1, max_size=3), st.lists(a_call, max_size=3))
def test_the_best_match_equals_trying_every_order(truth, predicted):
    def worth(g, p):
        if p is None or g["name"] != p["name"]:
            return 0
        keys = F.multiset_jaccard(list(g["parameters"]), list(p["parameters"]))
        return keys + sum(p["parameters"].get(k, None) == v for k, v in g["parameters"].items())

    padded = predicted + [None] * len(truth)
    best = max(sum(map(worth, truth, order)) for order in itertools.permutations(padded, len(truth)))
    names = F.multiset_jaccard([g["name"] for g in truth], [p["name"] for p in predicted])
    expected = 1 if truth == predicted else (names + best) / (1 + sum(1 + len(g["parameters"]) for g in truth))
    assert F.tool_match(predicted, truth, optimal=True) == pytest.approx(expected)
    assert 0 <= F.tool_match(predicted, truth) <= F.tool_match(predicted, truth, optimal=True) + 1e-9
