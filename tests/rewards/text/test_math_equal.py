"""Answers that are mathematically equal: TRL's own cases, columns as data sets have them, formulas that never end."""

import threading
import time

import pytest

from mmalign.core.errors import DataError, MissingExtra
from mmalign.core.types import Status
from mmalign.rewards import Guarded, load_reward
from mmalign.rewards.engine.traits import require_columns
from tests.rewards.asking import rollout_of

OK, FAIL, ERROR, LATE = Status.OK, Status.PARSE_FAIL, Status.ERROR, Status.TIMEOUT


@pytest.fixture(scope="module")
def reward():
    """One process for all tests, whose start takes seconds."""
    made = load_reward("math_equal")
    yield made
    made.process.close()


def judged(reward, output, answer):
    scores = Guarded("math", reward, failed_share=1.0)(rollout_of((output, {"answer": answer})))
    return scores.value.item(), Status(int(scores.status[0]))


# The cases of TRL's `tests/test_rewards.py` for `accuracy_reward` and `reasoning_accuracy_reward`.
@pytest.mark.parametrize(
    "output, answer, expected",
    [
        (r"\boxed{\frac{63}{400}}", r"\frac{63}{400}", (1, OK)),
        (r"\boxed{\frac{63}{400}}", "63/400", (1, OK)),
        (r"\boxed{\frac{64}{400}}", r"\frac{63}{400}", (0, OK)),
        (r"\boxed{3}", "6", (0, OK)),
        (r"<think> Reasoning content </think> \boxed{\frac{63}{400}}", r"\frac{63}{400}", (1, OK)),
        (r"Reasoning content </think> \boxed{\frac{63}{400}}", r"\frac{63}{400}", (1, OK)),
        (r"<think> My answer is \boxed{42} </think> Some other text.", r"\boxed{42}", (0, FAIL)),
        (r"<think> The answer is \boxed{42} </think> Here's a wrong answer: \boxed{43}.", r"\boxed{42}", (0, OK)),
        (r"<think> Incomplete reasoning without closing tag", r"\frac{63}{400}", (0, FAIL)),
        (r"Correct answer \frac{63}{400} but completely missing reasoning content", r"\frac{63}{400}", (1, OK)),
    ],
)
def test_cases_of_trl(reward, output, answer, expected):
    """The last is 0 to TRL's reasoning reward, which asks for thinking (here: `format`), and 1 to its plain one."""
    assert judged(reward, output, answer) == expected


@pytest.mark.parametrize(
    "answer", ["Answer is forty two.", "forty two", "no solution", "Paris", True, r"\text{yes}", "5}", "("]
)
def test_a_right_answer_that_is_no_mathematics_is_told_before_training(reward, answer):
    with pytest.raises(DataError, match=r"row 1 .*rewards.a: Prompt.meta\['answer'\].*Mend the row or leave it out"):
        require_columns({"rewards.a": reward}, rollout_of(("", {"answer": "1/2"}), ("", {"answer": answer})).prompts)
    value, status = judged(reward, r"\boxed{42}", answer)
    assert value != value and status is ERROR


@pytest.mark.parametrize(
    "output, answer",
    [
        ("72", "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72"), ("72.0", 72), ("72", 72.0), ("0.5", 0.5),
        ("1,000", "1000"), ("1 234", "1,234"), ("½", "0.5"), ("3½", "7/2"), (r"\dfrac12", "1/2"), ("10²", "100"),
        ("2^10", "1024"), ("1e3", "1000"), ("−5", "-5"), ("50%", "1/2"), ("0.333333", "1/3"), ("x+1", "1+x"),
        (r"$\sqrt{8}$", r"2\sqrt{2}"), (r"\{1,2\}", "{2, 1}"), ("x=5", "5"), ("5", "x=5"), (r"\frac{\pi}{2}", r"\pi/2"),
        ("[0,1)", r"\left[0,1\right)"), (r"5 \text{ km}", "5"), (r"<answer> \boxed{5} </answer>", "5"),
        ("5", ["7", "5"]),
        ("The answer is $5$.", "5"), (r"it is \fbox{5}", r"we get $\boxed{5}$."), ("(x+1)^2", "x^2+2x+1"),
    ],
)  # fmt: skip
def test_equal(reward, output, answer):
    assert judged(reward, output, answer) == (1, OK)


@pytest.mark.parametrize(
    "output, answer, expected",
    [
        ("2⁵", "25", (0, OK)), ("0.33", "1/3", (0, OK)), ("(1,2)", "(2,1)", (0, OK)), ("x",
        "y", (0, OK)), ("1/0", "1", (0, OK)),
        ("I think 5", "5", (0, FAIL)), ("cat", "5", (0, FAIL)), ("", "5", (0, FAIL)), (r"\boxed{}", "5", (0, FAIL)),
        ("9" * 5000, "1", (0, FAIL)), ("{" * 5000, "1", (0, FAIL)), ("\ud800", "1", (0, FAIL)),
    ],
)  # fmt: skip
def test_unequal_or_no_mathematics(reward, output, answer, expected):
    assert judged(reward, output, answer) == expected


def test_a_formula_that_never_ends_is_ended_and_the_next_row_is_judged():
    made = load_reward("math_equal", seconds=1.0)
    assert judged(made, "1", "1") == (1, OK)
    start = time.monotonic()
    value, status = judged(made, "9^{9^{9^{9}}}", "1")
    assert value != value and status is LATE and time.monotonic() - start < 90
    assert judged(made, r"\frac{1}{2}", "0.5") == (1, OK)
    made.process.close()


def test_threads_are_answered_each_with_its_own(reward):
    verdicts = {}

    def ask(number):
        verdicts[number] = [judged(reward, str(n), number)[0] for n in range(6)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: [float(n == number) for n in range(6)] for number in range(6)}


def test_without_the_library_it_says_what_to_install(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(
        MissingExtra, match=r"reward 'math_equal' needs the 'math' extra: pip install 'mmalign\[math\]'"
    ):
        load_reward("math_equal")
