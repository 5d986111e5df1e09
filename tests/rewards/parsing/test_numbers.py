r"""Numbers in answers: read as they were written, or refused; never a part of one."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.types import Status
from mmalign.rewards import parsing as P
from tests.rewards.asking import one

OK, FAIL = Status.OK, Status.PARSE_FAIL


@pytest.mark.parametrize(
    "text, value",
    [
        (r"\frac{1}{2}", Fraction(1, 2)), (r"\dfrac12", Fraction(1, 2)), (r"-\frac{1}{2}", Fraction(-1, 2)),
        ("3/4", Fraction(3, 4)), ("½", Fraction(1, 2)), ("-½", Fraction(-1, 2)), ("3½", Fraction(7, 2)),
        ("3 1/2", Fraction(7, 2)), (r"3\frac{1}{2}", Fraction(7, 2)), ("1⁄2", None), ("10^2", 100), ("10²", 100),
        ("2⁵", 32), ("10⁻²", Fraction(1, 100)), ("5×10^3", 5000), (r"5 \times 10^{3}", 5000),
        ("2.5e-3", Fraction(1, 400)),
        ("1,234", 1234), ("1{,}234", 1234), (r"1\,234", 1234), ("1 234", 1234), ("1\u202f234\u202f567", 1234567),
        (r"1,\!234.5", Fraction(2469, 2)), (r"12\%", Fraction(12, 100)), ("12 percent", Fraction(12, 100)),
        (r"\$12", 12), ("-$5", -5), ("5 €", 5), ("−5", -5), ("–5", -5), ("+5", 5), ("５", 5), ("𝟓", 5), ("(5)", 5),
        ("**5**", 5), ("$5$", 5), (r"\(5\)", 5), (r"\text{5}", 5), ("5.", 5), (".5", Fraction(1, 2)),
        ("5 million", 5_000_000), ("2.5 thousand", 2500),
    ],
)  # fmt: skip
def test_written_numbers(text, value):
    if value is None:  # a fraction slash between digits: read so, or refused, but not as a 2
        with pytest.raises(P.Unreadable):
            P.quantity(text)
        return
    assert P.quantity(text).value == value == P.last_quantity(f"well, it is {text}").value


@pytest.mark.parametrize(
    "text",
    [
        "1,5", "5,5", "1.234,56", "12345,678", "1.2.3", "10-20", "10–20", "12:30", "3:1", "2023-05-01", "1/2/2023",
        "5k", "5M", "4th", "A5", "x_1", "2x", "2π", r"2\pi", r"\sqrt{2}", r"2\sqrt{3}", "x^{5}",
        "f(5)", "5 + x", "5 - x",
        "5 × 3", "2 x 3", "- 5", "±5", "3分之1", "5万", "5㎡", "5①", "10^2^3", "1/0", "1e999", "9" * 5000, "10^9999",
        "Fig.5", "COVID-19", "v1.2", "5-year", r"\frac{x}{2}", r"\frac{1}{x}",
    ],
)  # fmt: skip
def test_what_is_no_number_by_itself_is_never_read_in_part(text):
    for read, written in ((P.quantity, text), (P.last_quantity, text), (P.last_quantity, f"First 7, then {text}")):
        with pytest.raises(P.Unreadable):
            read(written)


@pytest.mark.parametrize(
    "text, value",
    [
        ("of 7, about 99 km", 99), ("x = 5", 5), ("2 + 3 = 5", 5), ("**Answer:** 5", 5), ("* 5", 5), ("*5*", 5),
        ("it costs $5.", 5), ("US$5", 5), ("所以一共有12个苹果。", 12), ("答案是5", 5), ("정답은 5입니다", 5),
        ("5°C", 5),
        (r"5\text{ cm}", 5), (r"so $x=\frac{1}{2}$.", 0.5), ("in 2023 500 people", 500),
        ("#### 72", 72), ("It is 12.So", 12),
        (r"it is \boxed{\frac{3}{4}}", 0.75), ("is -5", -5), ("3, 4", 4), ("5!", 5),
    ],
)  # fmt: skip
def test_the_last_number_in_prose(text, value):
    assert P.last_number(text) == value


@settings(max_examples=200)
@given(st.text(st.sampled_from("0123456789.,/^-+ x%$\\½²{}()eE×π分"), max_size=12))
def test_a_number_that_is_read_whole_is_the_one_that_is_read_last(text):
    """Whatever both ways understand, they understand alike."""
    try:
        whole, last = P.number(text), P.last_number(text)
    except P.Unreadable:
        return
    assert whole == last or text.strip()[:1] in "([{"


@pytest.mark.parametrize(
    "answer, truth, value",
    # Golden values of `relaxed_correctness` of pix2struct, Qwen-VL and lmms-eval: "12%" is the float 0.12.
    [
        ("12%", "0.12", 1), ("0.12", "12%", 1), ("12", "12%", 0), ("12%", "12", 0), ("12%", "12.5%", 1),
        ("104", "100", 1), ("105.1", "100", 0), ("Yes", "yes", 1), ("-95", "-100", 1),
    ],
)  # fmt: skip
def test_per_cent_as_the_public_graders_of_chartqa_read_it(answer, truth, value):
    assert one("relaxed_accuracy", answer, {"answer": truth}) == (value, OK)


def test_per_cent_may_be_ignored():
    for answer, truth in (("12%", "12"), ("12", "12%")):
        assert one("relaxed_accuracy", answer, {"answer": truth}, percent="ignored") == (1, OK)


def test_guesses_of_a_part_are_not_paid():
    for answer in (r"The probability is \frac{1}{2}", "It is 3/4, so 1/2", "10^2 − 98 is 1½"):
        assert one("relaxed_accuracy", answer, {"answer": 2}, find="last") == (0, OK), answer
    for answer in ("about 1.234,2", "2 to 1-2", r"\sqrt{2}", "H2"):
        assert one("relaxed_accuracy", answer, {"answer": 2}, find="last") == (0, FAIL), answer
    assert one("relaxed_accuracy", "It is 0.5", {"answer": r"… so \boxed{\frac{1}{2}}."}, find="last") == (1, OK)


@pytest.mark.parametrize(
    "answer, right",
    [
        ("−5", "-5"), ("5.0", "5"), ("5", 5.0), ("1,000", "1000"), ("$5$", "5"), (r"\(5\)", "5"),
        ("**Paris**", "Paris"),
        ('"Paris"', "Paris"), ("“Paris.”", "paris"), (r"\dfrac{1}{2}", r"\frac{1}{2}"), (r"\frac12", "1/2"),
        ("1/2", r"\frac{1}{2}"), ("72", "He has 12*6=<<12*6=72>>72.\n#### 72"), (r"\boxed{\text{Paris}}", "Paris"),
        ("½", "1/2"), ("0.5", "50%"), ("5", r"we get $\boxed{5}$."), ("5", "$5"),
    ],
)  # fmt: skip
def test_exact_match_of_what_is_only_written_otherwise(answer, right):
    assert one("exact_match", answer, {"answer": right}) == (1, OK)


@pytest.mark.parametrize(
    "answer, right",
    [
        ("2⁵", "25"), ("10²", "102"), ("log₂5", "log25"), ("3½", "31/2"), ("5①", "51"), ("5㎡", "5m2"), ("$5", "€5"),
        ("007", "7"), ("1/3", "0.333"), ("50", "50%"), ("a b", "ab"),
    ],
)  # fmt: skip
def test_exact_match_of_what_only_looks_alike(answer, right):
    assert one("exact_match", answer, {"answer": right}) == (0, OK)
    assert one("exact_match", right, {"answer": answer}) == (0, OK)


def test_exact_match_word_for_word():
    literal = {"markup": False, "numbers": False}
    for answer, right in (("5.0", "5"), ("**a**", "a"), ("1,000", "1000")):
        assert one("exact_match", answer, {"answer": right}, **literal) == (0, OK)
        assert one("exact_match", answer, {"answer": answer}, **literal) == (1, OK)
    assert one("exact_match", "5", {"answer": 5.0}, **literal) == (1, OK)  # a table's float of a whole number
