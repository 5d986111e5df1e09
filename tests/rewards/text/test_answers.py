"""Rewards of short answers: matching, multiple choice, numbers, forms; and what they say of rows they cannot judge."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Status
from mmalign.rewards import functional as F
from mmalign.rewards import load_reward
from mmalign.rewards.engine.traits import require_columns
from tests.rewards.asking import one, rollout_of, scored

OK, FAIL, ERROR, NONE = Status.OK, Status.PARSE_FAIL, Status.ERROR, Status.NOT_APPLICABLE


@pytest.mark.parametrize(
    "output, answer, expected",
    [
        ("<think>red?</think><answer>Blue.</answer>", "blue", (1, OK)),
        ("a Red  Circle", ["red circle", "A red circle"], (1, OK)),
        ("true", "yes", (1, OK)),
        ("wrong", False, (1, OK)),
        ("yes", False, (0, OK)),
        ("right", "yes", (1, OK)),
        ("yes", "right", (0, OK)),  # of left and right
        ("Right", "right", (1, OK)),
        ("blue or red", "blue", (0, OK)),
        ("42", 42, (1, OK)),
        ("<answer>a</answer><answer>b</answer>", "a", (0, FAIL)),
        ("<think>it must be blue", "blue", (0, FAIL)),
        ("", "blue", (0, FAIL)),
        ("blue" * 10_000, "blue", (0, FAIL)),
    ],
)
def test_exact_match(output, answer, expected):
    assert one("exact_match", output, {"answer": answer}) == expected


def test_exact_match_takes_words_literally_without_synonyms():
    assert one("exact_match", "true", {"answer": "yes"}, synonyms=False) == (0, OK)
    assert one("exact_match", "wahr", {"gold": "wahr"}, column="gold") == (1, OK)


@pytest.mark.parametrize(
    "output, meta, expected",
    [
        ("(B)", {"answer": "B"}, (1, OK)),
        ("B", {"answer": "C"}, (0, OK)),
        ("A or B or C", {"answer": "B"}, (0, FAIL)),  # Visual-RFT#79: always paid
        ("a dog", {"answer": "A", "choices": ["a cat", "a dog"]}, (0, OK)),
        ("a dog", {"answer": "a dog", "choices": ["a cat", "a dog"]}, (1, OK)),
        ("C", {"answer": "A", "choices": ["a cat", "a dog"]}, (0, FAIL)),
        ("B", {"answer": "B", "choices": '["a cat", "a dog"]'}, (1, OK)),
        ("B", {"answer": "2", "choices": {"text": ["a cat", "a dog"], "label": ["1", "2"]}}, (1, OK)),
        ("B", {"answer": 3, "choices": ["1", "3"]}, (1, OK)),
        ("**B**", {"answer": "So it is \\boxed{B}."}, (1, OK)),
    ],
)
def test_multiple_choice(output, meta, expected):
    assert one("multiple_choice", output, meta) == expected


@pytest.mark.parametrize(
    "answer, count_from, letter", [(0, 0, "A"), (3, 0, "D"), ("3", 0, "D"), (2.0, 1, "B"), ("4", 1, "D"), ("C", 1, "C")]
)
def test_options_by_number(answer, count_from, letter):
    """MMLU, ScienceQA and C-Eval count from 0, some rows of ARC from 1."""
    meta = {"answer": answer, "choices": ["one", "two", "three", "four"]}
    assert one("multiple_choice", letter, meta, count_from=count_from) == (1, OK)


@pytest.mark.parametrize(
    "meta, options, why",
    [
        ({"answer": 2}, {}, "2, is a whole number, which may count options from 0 or from 1: say count_from"),
        ({"answer": 1, "choices": ["1", "3"]}, {"count_from": 0}, "both an option's number and another option's words"),
        ({"answer": 7, "choices": ["a", "b"]}, {"count_from": 0}, "is 7; 2 options count from 0 to 1"),
        ({"answer": True}, {}, "a letter, words or a number, found 'True'"),
        ({"answer": "A", "choices": "a cat, a dog"}, {}, "a text that is no JSON"),
        ({"answer": "a bird", "choices": ["a cat", "a dog"]}, {}, "it names none"),
    ],
)
def test_a_right_option_that_cannot_be_read_is_told_before_training(meta, options, why):
    reward = load_reward("multiple_choice", **options)
    with pytest.raises(DataError, match=why):
        require_columns({"rewards.a": reward}, rollout_of(("", meta), ("", {"answer": "A"})).prompts)
    assert one("multiple_choice", "A", meta, **options)[1] is ERROR


@pytest.mark.parametrize("value", [[None], float("nan"), {"a": 1}, [], ""])
@pytest.mark.parametrize("name", ["exact_match", "relaxed_accuracy", "cosine_length"])
def test_an_answer_without_text_is_told_before_training(name, value):
    with pytest.raises(DataError, match=r"row 1 .*: rewards.a: Prompt.meta\['answer'\].*Mend the row or leave it out"):
        require_columns(
            {"rewards.a": load_reward(name)}, rollout_of(("", {"answer": "a"}), ("", {"answer": value})).prompts
        )


@pytest.mark.parametrize(
    "answer, truth, value",  # golden values of ChartQA's relaxed accuracy
    [(104, 100, 1), (105, 100, 1), (105.1, 100, 0), (-95, -100, 1), (0, 0, 1), (0.01, 0, 0), (1.05, 1, 1)],
)
def test_relaxed_accuracy_golden_values(answer, truth, value):
    assert F.relaxed_accuracy(answer, truth) == value
    assert one("relaxed_accuracy", f"<answer>{answer}</answer>", {"answer": truth}) == (value, OK)


def test_relaxed_accuracy_reads_amounts_words_and_the_last_number():
    assert one("relaxed_accuracy", "$1,020", {"answer": "1000"}) == (1, OK)
    assert one("relaxed_accuracy", "51%", {"answer": ["17", "50 %"]}) == (1, OK)
    assert one("relaxed_accuracy", "**Brazil**", {"answer": "Brazil"}) == (1, OK)
    assert one("relaxed_accuracy", "Brazil.", {"answer": "brazil"}) == (1, OK)
    assert one("relaxed_accuracy", "3", {"answer": "brazil"}) == (0, OK)
    assert one("relaxed_accuracy", "many", {"answer": "100"}) == (0, FAIL)
    assert one("relaxed_accuracy", "twelve", {"answer": ["12", "twelve"]}) == (1, OK)
    assert one("relaxed_accuracy", "eleven", {"answer": ["12", "twelve"]}) == (0, OK)
    assert one("relaxed_accuracy", "of 7, about 99 km", {"answer": "100"}) == (0, FAIL)
    assert one("relaxed_accuracy", "of 7, about 99 km", {"answer": "100"}, find="last") == (1, OK)
    assert one("relaxed_accuracy", "NaN", {"answer": "100"}, find="last") == (0, FAIL)
    value, status = one("relaxed_accuracy", "102", {"answer": "100"}, graded=True)
    assert (pytest.approx(0.6), OK) == (value, status)


@settings(max_examples=50)
@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-9), st.floats(0.01, 1))
def test_graded_accuracy_agrees_with_all_or_nothing(answer, truth, tolerance):
    graded = F.relaxed_accuracy(answer, truth, tolerance, graded=True)
    strict = F.relaxed_accuracy(answer, truth, tolerance)
    assert 0 <= graded <= 1 and (graded == 0 or strict == 1)
    assert F.relaxed_accuracy(truth, truth, tolerance, graded=True) == 1


# form --------------------------------------------------------------------------------------------------------------

THOUGHT = [  # cases of TRL's tests of its think format
    "<think>This is my reasoning.</think>This is my answer.",
    "<think>\nThis is my reasoning.\n</think>\nThis is my answer.",
    "<think>\nThis is\nmy reasoning.\n</think>\nThis is my answer.",
    "<think>\nThis is <some tag> my reasoning.</think>\nThis is my answer.",
    "<think></think>\nThis is my answer.",
]
UNTHOUGHT = [
    "<think>\nThis is my reasoning.\nThis is my answer.",
    "<think>This is my reasoning.\nThis is my answer.",
    "This is my reasoning. This is my answer.",
    "This is my reasoning.\nThis is my answer.",
    "This is my reasoning.</think>\nThis is my answer.",
    "This is my reasoning.</think>This is my answer.",
    "This<think>is my reasoning.</think>\nThis is my answer.",
    "<think>This is<think>my reasoning.</think></think>This is my answer.",
    "<think>This is</think>\nmy\n<think>reasoning.</think>\nThis is my answer.",
]


def test_think_format_as_trl_judges_it():
    for texts, value in ((THOUGHT, 1), (UNTHOUGHT, 0)):
        for text in texts:
            assert one("format", text, tags=("think",), free_end=True) == (value, OK), text
    prefilled = {"tags": ("think",), "free_end": True, "prefilled": True}
    assert one("format", "reasoning</think>answer", **prefilled) == (1, OK)
    assert one("format", "answer", **prefilled) == (0, OK)


@pytest.mark.parametrize(
    "output, value",
    [
        ("<think>a</think>\n <answer>b</answer>\n", 1),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a</think>so<answer>b</answer>", 0),
        ("<think>a</think><answer>b</answer>!", 0),
        ("<think>a<answer>b</answer></think>", 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0),
        ("", 0),
        ("<think>" * 1_000_000, 0),
    ],
)
def test_tags_stand_alone_once_and_in_order(output, value):
    assert one("format", output) == (value, OK)


def test_credit_per_tag_as_nemo_gives_it():
    options = {"credit": (0.25, 0.75)}
    outputs = ["<think>a</think>", "<answer>a</answer>", "<think>a</think><answer>b</answer>", "a"]
    assert [one("format", text, **options)[0] for text in outputs] == [0.25, 0.75, 1, 0]


def test_json_with_keys():
    options = {"kind": "json", "keys": ("a",)}
    good = ['{"a": 1}', '```json\n{"a": {"b": 2}}\n```', '<think>{</think><answer>{"a": 1}</answer>']
    bad = ['{"b": 1}', '[{"a": 1}]', 'so: {"a": 1}', '{"a": 1} {"a": 2}', '{"a": NaN}', '{"a": 1', "", "{" * 1_000_000]
    assert [one("format", text, **options) for text in good] == [(1, OK)] * 3
    assert [one("format", text, **options) for text in bad] == [(0, OK)] * 8


def test_a_regular_expression_that_never_ends_is_ended():
    assert one("format", "aaa\nb", kind="regex", pattern="a+.b") == (1, OK)
    assert one("format", "aaa\nbc", kind="regex", pattern="a+.b") == (0, OK)
    value, status = one("format", "a" * 40 + "b", kind="regex", pattern="(a|aa)+c?(a|aa)+$")
    assert value != value and status is Status.TIMEOUT


@pytest.mark.parametrize(
    "options, why",
    [
        ({"kind": "regex"}, "pattern and kind: regex go together"),
        ({"kind": "regex", "pattern": "("}, "not a regular expression"),
        ({"credit": (1.0,)}, "one share per tag"),
        ({"kind": "xml"}, "'tags', 'regex' or 'json'"),
    ],
)
def test_options_of_format_are_checked(options, why):
    with pytest.raises(ConfigError, match=why):
        load_reward("format", **options)


# data that does not fit --------------------------------------------------------------------------------------------


def test_a_row_without_its_column_is_not_applicable_and_a_bad_column_is_our_error():
    scores = scored("exact_match", ("a", {"answer": "a"}), ("a", {"id": 7}), ("a", {"answer": []}))
    assert scores.status.tolist() == [OK, NONE, ERROR] and scores.value[1:].isnan().all()
    assert scores.info[1] == "row 1 ('question 1'): Prompt.meta has no 'answer'; it holds id"
    assert "Prompt.meta['answer'] holds no text: '[]'" in scores.info[2]
    scores = scored("multiple_choice", ("A", {"answer": "A or B"}), ("A", {"answer": "x" * 20_000}))
    assert scores.status.tolist() == [ERROR] * 2 and "Prompt.meta['answer']: the answer must name one" in scores.info[0]


def test_a_column_that_no_row_has_is_found_before_training():
    rewards = {
        "rewards.a": load_reward("exact_match"),
        "rewards.b": load_reward("iou"),
        "rewards.c": load_reward("format"),
    }
    prompts = rollout_of(("", {"anwser": "a", "boxes": None}), ("", {"boxes": []})).prompts
    with pytest.raises(DataError) as error:
        require_columns(rewards, prompts)
    assert str(error.value) == (
        "rewards.a: needs the column 'answer', which none of the 2 rows has. Did you mean 'anwser'? "
        "Columns found: anwser, boxes."
    )
    require_columns(rewards, rollout_of(("", {"answer": 1}), ("", {"boxes": []})).prompts)
    require_columns(rewards, [])


@pytest.mark.parametrize(
    "name, meta, why",
    [
        (
            "instruction_adherence",
            {"instructions": {"max_word": 5}},
            "no rule checks 'max_word'. Did you mean 'max_words'",
        ),
        ("instruction_adherence", {"instructions": {"max_words": 5.5}}, "max_words takes a number, found '5.5'"),
        ("instruction_adherence", {"instructions": '{"max_words": 5'}, "begins as JSON and is none"),
        ("instruction_adherence", {"instructions": ["be kind"]}, "is in words; name a judge as checkpoint"),
        ("sql_execution", {"sql": "select 1", "database": "gone.sqlite"}, "no such file: gone.sqlite"),
        ("sql_execution", {"sql": 7, "database": "gone.sqlite"}, "found '7' and 'gone.sqlite'"),
        ("bleu", {"references": [None]}, "holds no text"),
        ("chrf", {"references": ["a", ""]}, "holds no text"),
    ],
)
def test_columns_that_cannot_be_read_stop_the_run(name, meta, why):
    with pytest.raises(DataError) as error:
        require_columns({"rewards.a": load_reward(name)}, rollout_of(("", meta)).prompts)
    assert why in str(error.value) and str(error.value).startswith("row 0 ('question 0'): rewards.a: Prompt.meta['")


def test_instructions_as_a_table_holds_them():
    """JSON text from CSV, and floats where another row has no value."""
    for cell in ('{"max_words": 2}', '[{"max_words": 2}]', {"max_words": 2.0}, {"max_words": 2, "json": None}):
        assert one("instruction_adherence", "two words", {"instructions": cell}) == (1, OK)
        assert one("instruction_adherence", "now three words", {"instructions": cell}) == (0, OK)
