"""Parsers read what they promise, refuse the rest with `Unreadable` alone, and take time in proportion to the text."""

import contextlib
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmalign.rewards import parsing as P
from mmalign.rewards.parsing.boxes import Writing
from mmalign.rewards.parsing.calls import calls_of
from mmalign.rewards.parsing.formulas import formula

BIG = 1_000_000
NASTY = [
    "",
    " \n\t",
    "\x00",
    "\ud800",
    "9" * 5_000,
    "9,999," * 1_600,
    "111," * 2_400 + "111",
    "111 " * 2_400 + "111",
    r"\frac{" * 1_500,
    "½" * 9_000,
    "^{2}" * 2_400,
    "**" * 5_000,
    "$" * 9_999,
    "⟮1/" * 3_000,
    "(A" * 5_000,
    "\\boxed{" * 300_000 + "}" * 300_000,
    "[" * BIG,
    "[]" * BIG,
    "{" * 5_000 + "}" * 5_000,
    '["' + '\\"' * BIG,
    "<box>" * BIG,
    "<box>1,2,3,4</box>" * 50_000,
    "<loc0001>" * 100_000,
    "<think>" * BIG,
    "</think>" * BIG,
    "<answer>" * BIG,
    "\\boxed{" * BIG,
    "\\boxed{" + "{" * BIG,
    "1" * BIG,
    "1," * BIG,
    "1,111," * 1_500,
    "-" * BIG,
    "A or B " * BIG,
    "̖́" * 5_000_000,  # combining marks in the wrong order, 10 MB
    "a" * 10_000_000,
    " " * 10_000_000 + "7",
    "select " + "(" * BIG,
    "--\n" * 33_000 + "select 1",
    "/**/" * 25_000,
    "select 1 -- " + "[" * 90_000,
    "```sql\n" * BIG,
    "[NaN, 0, 1, 1]",
    "[Infinity, -Infinity, 1e999, 1]",
    "[1e400, 2, 3, 4]",
    "[true, false, 1, 1]",
    '[{"bbox_2d": null}]',
    '{"bbox": {"bbox": {"bbox": [1,2,3]}}}',
    "٣,١٤",
    "１２３",
    "½",
    "<tool_call>\n" + "[" * 100_000 + "\n</tool_call>",
    '<tool_call>\n{"name": ' + "9" * 10_000 + "}\n</tool_call>",
]
PARSERS = {
    "answer_of": P.answer_of,
    "answer": lambda text: P.answer_of(text, "answer"),
    "boxed": lambda text: P.answer_of(text, "boxed"),
    "normalized": P.normalized,
    "number": P.number,
    "last_number": P.last_number,
    "unwrapped": P.unwrapped,
    "formula": formula,
    "calls_of": calls_of,
    "solution_of": P.solution_of,
    "choice": lambda text: P.choice(text, 4, ["a cat", "a dog"]),
    "json_values": P.json_values,
    "boxes": P.boxes_in,
    "boxes json": lambda text: P.boxes_in(text, "json"),
    "boxes tags": lambda text: P.boxes_in(text, "tags"),
    "boxes loc": lambda text: P.boxes_in(text, "loc"),
    "boxes brackets": lambda text: P.boxes_in(text, "brackets"),
    "tool_calls": P.tool_calls,
    "query": P.query,
    "framed": lambda text: P.framed(text, ("think", "answer")),
    "inner": lambda text: P.inner(text, "answer"),
    "is_ordered": lambda text: P.is_ordered(text[:100_000]),
}
each = pytest.mark.parametrize("name", PARSERS)


@each
def test_nothing_breaks_a_parser_or_slows_it(name):
    for text in NASTY:
        start = time.process_time()
        try:
            PARSERS[name](text)
        except P.Unreadable as why:
            assert 0 < len(str(why)) < 400
        assert time.process_time() - start < 1.5, text[:20]


@each
@settings(max_examples=60)
@given(st.text() | st.text('[]{}()<>/\\",.:;-+0123456789eEnaifbox thkwrlcsq`\n', max_size=200))
@example("<answer>1</answer>")
@example("</answer><answer>")
@example("<think></think></think>x")
def test_any_text_is_read_or_refused(name, text):
    with contextlib.suppress(P.Unreadable):
        PARSERS[name](text)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=12,
    )
)
def test_json_comes_back_from_prose(value):
    value = [value]
    assert P.json_values(f"I'd say \"so\": ```json\n{json.dumps(value)}\n``` that's it") == [value]


@settings(max_examples=40)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_written_number_comes_back(value):
    assert P.number(repr(value)) == value
    assert P.last_number(f"it was 3, now {value!r} ") == value


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.integers(-9999, 9999)] * 4), min_size=1, max_size=5))
def test_boxes_come_back_from_every_writing(boxes):
    expected = [tuple(map(float, box)) for box in boxes]
    writings: dict[Writing, str] = {
        "json": json.dumps([{"bbox_2d": box, "label": "cat"} for box in boxes]),
        "tags": " ".join(f"<ref>cat</ref><box>[[{','.join(map(str, box))}]]</box>" for box in boxes),
        "brackets": "they're at " + " and ".join(f"({a}, {b}, {c}, {d})" for a, b, c, d in boxes),
    }
    for writing, text in writings.items():
        ways: tuple[Writing, Writing] = ("auto", writing)
        for how in ways:
            read = P.boxes_in(text, how)
            assert [box.values for box in read] == expected, (writing, how)
            assert {box.label for box in read} == ({None} if writing == "brackets" else {"cat"})


@settings(max_examples=50)
@given(st.lists(st.integers(0, 1023), min_size=4, max_size=4))
def test_loc_tokens_are_y_first_in_1024ths(steps):
    text = "".join(f"<loc{step:04d}>" for step in steps) + " cat ; " + "<loc0000><loc0000><loc1023><loc1023> a dog"
    first, second = P.boxes_in(text)
    assert first.values == tuple(steps[i] / 1024 for i in (1, 0, 3, 2)) and first.unit and first.label == "cat"
    assert second.label == "a dog"


def test_qwen_pairs_single_quotes_and_nested_objects():
    assert P.boxes_in("<|object_ref_start|>dog<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>")[0].label == "dog"
    assert P.boxes_in("[{'Position': [1, 2, 3, 4], 'Confidence': 0.9}]")[0].values == (1, 2, 3, 4)
    nested = '{"objects": [{"box": [1, 2, 3, 4], "name": "x"}, {"box": [[5, 6, 7, 8]]}]}'
    assert [box.values[0] for box in P.boxes_in(nested)] == [1, 5]
    assert P.boxes_in("```json\n[]\n```") == [] == P.boxes_in('{"boxes": []}')


@pytest.mark.parametrize(
    "text, why",
    [
        ("no box here", "no box"),
        ("<box>1,2,3</box>", "holds no box"),
        ("<box>1,2,3,4", "never closed"),
        ("<loc0001><loc0002>", "four <loc…> tokens, found 2"),
        ("[1, 2, 3]", "no box"),
    ],
)
def test_what_is_no_box(text, why):
    with pytest.raises(P.Unreadable, match=why):
        P.boxes_in(text)


@pytest.mark.parametrize(
    "text, where, expected",
    [
        ("<think>A? B!</think> C", "auto", "C"),
        ("so far</think>C", "auto", "C"),
        ("<think>x</think><answer> C </answer>", "auto", "C"),
        (r"it is \boxed{\frac{1}{2}}.", "auto", r"\frac{1}{2}"),
        (r"\boxed{1} no, \boxed{2}", "boxed", "2"),
        ("<answer>C</answer>", "whole", "<answer>C</answer>"),
        ("C", "auto", "C"),
        (r"<think>x</think><answer> \boxed{5} </answer>", "auto", "5"),
        (r"<answer>so \boxed{5}.</answer>", "answer", "5"),
        (r"<answer>5</answer> or \boxed{6}", "auto", "5"),
        (r"it is \fbox{5}", "auto", "5"),
        (r"\boxed {5}", "boxed", "5"),
        (r"\boxed{\boxed{ \fbox{5} }}", "auto", "5"),
        (r"\boxed{1 + \fbox{2}}", "auto", r"1 + \fbox{2}"),
        (r"\boxed{\{1,2\}}", "auto", r"\{1,2\}"),
        (r"{ \boxed{\frac{1}{2}} }", "auto", r"\frac{1}{2}"),
        ("12*6=72\n#### 72 ", "hashes", "72"),
        ("#### Step\n5", "auto", "#### Step\n5"),
    ],
)
def test_where_the_answer_stands(text, where, expected):
    assert P.answer_of(text, where) == expected


@pytest.mark.parametrize(
    "text, where, why",
    [
        ("<think>on and on", "auto", "thinking never ends"),
        ("<answer>A</answer><answer>B</answer>", "auto", "once, found 2 and 2"),
        ("</answer>A<answer>", "auto", "stands before"),
        ("A", "answer", "once, found 0 and 0"),
        ("A", "boxed", "no .boxed"),
        (r"\boxed{A", "boxed", "never closed"),
        (r"\boxed{A} then \boxed{B", "auto", "never closed"),
        (r"\boxed{\frac{1}{2}", "auto", "never closed"),
        (r"\boxed 5", "auto", "no .boxed"),
        (r"\boxed{ }", "auto", "empty"),
        ("72", "hashes", "does not begin with ####"),
        ("<answer> </answer>", "auto", "empty"),
        ("x" * (BIG + 1), "auto", "1,000,001 characters"),
    ],
)
def test_where_it_does_not(text, where, why):
    with pytest.raises(P.Unreadable, match=why):
        P.answer_of(text, where)


@pytest.mark.parametrize(
    "column, answer",
    [
        ("12*6=72\n#### 72", "72"),
        (r"We get $\boxed{5}$.", "5"),
        (r"\boxed{1}, then \boxed{2}", "2"),
        ("Paris", "Paris"),
    ],
)
def test_the_answer_that_a_worked_solution_gives(column, answer):
    assert P.solution_of(column) == answer


@pytest.mark.parametrize(
    "text, bare",
    [
        ("**Paris**", "Paris"), ("**Paris**.", "Paris"), ('"Paris"', "Paris"), (r"$\text{Paris}$",
        "Paris"), ("`x`", "x"),
        ("$5", "$5"), ("`a` and `b`", "`a` and `b`"), (r"\text{a} \text{b}", r"\text{a} \text{b}"),
        ('"', '"'), ("", ""),
    ],
)  # fmt: skip
def test_what_is_set_around_an_answer(text, bare):
    assert P.unwrapped(text) == bare


def test_words_and_normal_form():
    assert P.words("a red  cat's\n玩具 x") == ["a", "red", "cat's", "玩", "具", "x"]
    assert P.normalized("  The\u200b Ｃat,\n SAT. ") == "the cat, sat" and P.normalized("Straße!") == "strasse"
    assert P.normalized(" .5.") == ".5" != P.normalized("5.") and P.normalized("... yes.") == "yes"
    with pytest.raises(P.Unreadable, match="10,001 characters; at most 10,000"):
        P.normalized("x" * 10_001)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1,234.5", 1234.5),
        ("$1,000", 1000),
        ("5 %", 0.05),
        ("−3", -3),
        ("１２", 12),
        ("12.", 12),
        ("1e3", 1000),
        (".5", 0.5),
    ],
)
def test_numbers_as_people_write_them(text, value):
    assert P.number(text) == value == P.last_number(f"well, {text}")


@pytest.mark.parametrize(
    "text", ["", "five", "1,23", "1 2", "nan", "inf", "1e999", "0x10", "1_000", "5 km", "--1", "12345,678"]
)
def test_what_is_no_number(text):
    with pytest.raises(P.Unreadable):
        P.number(text)


@pytest.mark.parametrize(
    "text, letter",
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), ("**B**", "B"), ("Option B: a dog", "B"),
        ("The answer is B", "B"), ("A dog", "B"), ("a dog.", "B"), ("B, surely B", "B"), ("The answer is (b)", "B"),
        ("选B", "B"), ("答案是B。", "B"), ("答案是Ｂ", "B"), ("正解はBです", "B"), ("정답은 B입니다", "B"),
        (r"\boxed{B}",
        "B"),
        (r"$\mathbf{B}$", "B"), ("b) a dog", "B"), ("(B) A dog.", "B"), ("A dog is there, so B", "B"), ("[b]", "B"),
        ("A is right", "A"), ("B. I think it's a dog", "B"),
    ],
)  # fmt: skip
def test_one_option(text, letter):
    assert P.choice(text, 4, ["a cat", "A dog", "a bird", "a fish"]) == letter


@pytest.mark.parametrize(
    "text", ["A or B", "ABCD", "E", "maybe", "А", "I'd say b", "", "1", "A dog.", "BA", "B's", "A. two"]
)
def test_no_option_or_several(text):
    """One А is Cyrillic; the A of "A dog." is an article; "A. two" names one by letter and another by its words."""
    with pytest.raises(P.Unreadable):
        P.choice(text, 4, ["one", "two"])


def test_queries_and_their_order():
    assert P.query("<think>hm</think>Here:\n```sql\nSELECT 1;\n```\nDone.") == "SELECT 1"
    assert P.query("-- a comment\n/* and */ with x as (select 1) select * from x;").startswith("-- a comment")
    for text in ("DROP TABLE t", "I think SELECT", "```\nx\n``` ```\ny\n```", "```python\n1\n```", "selecting"):
        with pytest.raises(P.Unreadable):
            P.query(text)
    assert P.is_ordered("select a from t ORDER  BY a") and P.is_ordered("select a from (select 1) order/**/by 1")
    for sql in ("select 'order by' from t", "select * from (select a from t order by a)", "select a -- order by a"):
        assert not P.is_ordered(sql)
