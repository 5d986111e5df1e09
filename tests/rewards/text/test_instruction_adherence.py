"""Instructions as data, rules by hand, and the judge of what is said in words."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mmalign
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import Guarded
from mmalign.rewards.models.asking import Answers
from mmalign.rewards.text._instructions import CHECKS, followed, read_instructions
from tests.adapters.language.tiny_lm import write_tiny_lm

POEM = "- Roses are red.\n- Violets are blue!\n\nIs it so?"


def answered(text: str, instructions: Any, **options: Any) -> tuple[float, Status, str]:
    reward = Guarded("a", mmalign.load_reward("instruction_adherence", **options), failed_share=1.0)
    meta = {} if instructions is None else {"instructions": instructions}
    scores = reward(Rollout([Prompt("q", meta=meta)], [text], torch.arange(1)))
    return round(scores.value.item(), 6), Status(int(scores.status[0])), (scores.info or [""])[0]


@pytest.mark.parametrize(
    ("check", "value", "right"),
    [
        ("max_words", 11, True), ("max_words", 10, False), ("min_words", 11, True), ("min_words", 12, False),
        ("max_characters", len(POEM), True), ("max_characters", 9, False), ("sentences", 3, True),
        ("sentences", 2, False), ("max_sentences", 3, True), ("max_sentences", 2, False), ("paragraphs", 2, True),
        ("paragraphs", 1, False), ("bullets", 2, True), ("bullets", 3, False), ("contains", ["roses", "BLUE"], True),
        ("contains", "green", False), ("excludes", ["green"], True), ("excludes", ["green", "red"], False),
        ("starts_with", "- roses", True), ("starts_with", "roses", False), ("ends_with", "so?", True),
        ("ends_with", "so", False), ("lower_case", True, False), ("lower_case", False, True),
        ("upper_case", True, False), ("json", True, False), ("json", False, True),
    ],
)  # fmt: skip
def test_each_rule_by_hand(check: str, value: Any, right: bool) -> None:
    assert followed(POEM, [(check, value)]) == [right]


def test_rules_of_case_and_json() -> None:
    assert followed('{"a": [1]}', [("json", True), ("lower_case", True)]) == [True, True]
    assert followed("[" * 100_000, [("json", True)]) == [False]
    assert {name for name, *_ in CHECKS.items()} >= {"max_words", "json"}


def test_rules_of_exact_counts_keys_and_answers() -> None:
    assert followed("Three short words.", [("words", 3), ("words", 4)]) == [True, False]
    keys = [("json_keys", ["name", "Size"]), ("json_keys", "name")]
    assert followed('{"size": 1, "Name": "x"}', keys) == [True, False]
    assert followed('["name"]', keys) == followed('{"name": 1', keys) == [False, False]
    assert followed("12.", [("equals", "12"), ("equals", "2")]) == [True, False]


def test_the_value_is_the_share_that_is_followed() -> None:
    instructions = [{"max_words": 5, "contains": "red"}, {"ends_with": "."}]
    assert answered("a red star", instructions) == (round(2 / 3, 6), Status.OK, "")
    assert answered("a red star", instructions, strict=True)[0] == 0
    assert answered("a red star.", {"max_words": 5, "ends_with": ".", "json": None}, strict=True)[0] == 1


def test_instructions_of_one_kind_all_count() -> None:
    assert answered("a red star", [{"contains": "a zebra"}, {"contains": "red"}])[0] == 0.5
    assert answered("a red star", [{"contains": "red"}, {"contains": "a zebra"}], strict=True)[0] == 0


def test_sentences_end_as_their_script_ends_them_and_endless_dots_are_counted_at_once() -> None:
    assert (
        followed("你好。再见！真的？", [("sentences", 3)])
        == followed("Wait... what?! Yes.", [("sentences", 3)])
        == [True]
    )
    began = time.monotonic()
    assert followed("." * 100_000 + "x", [("sentences", 1)]) == [True]
    assert time.monotonic() - began < 5  # a quarter of an hour, if every dot were a beginning


def test_statuses() -> None:
    assert answered(" ", {"max_words": 5})[:2] == (0.0, Status.PARSE_FAIL)
    assert answered("a", None)[1] == answered("a", [])[1] == Status.NOT_APPLICABLE
    assert "'be kind' is in words; name a judge as checkpoint" in answered("a", "be kind")[2]
    assert "no rule checks 'max_word'. Did you mean 'max_words'?" in answered("a", {"max_word": 3})[2]
    assert "max_words takes a number, found '3'" in answered("a", [{"max_words": "3"}])[2]
    assert "an instruction is a text or an object, found '7'" in answered("a", [7])[2]
    assert answered("a", [7])[1] == Status.ERROR


def test_instructions_in_words_are_asked_of_the_judge(tmp_path: Any) -> None:
    folder = write_tiny_lm(tmp_path / "llama", "llama", chat=True)
    judge = {"yes": "good", "no": "bad", "least_mass": 0.0}
    reward = mmalign.load_reward("instruction_adherence", checkpoint=str(folder), judge=judge)
    prompts = [
        Prompt("q", meta={"instructions": ["say red", {"max_words": 1}, "say two"]}),
        Prompt("q", meta={"instructions": "say red"}),
        Prompt("q", meta={"instructions": {"max_words": 1}}),
    ]
    made = Rollout(prompts, ["a b", "cube", "cube"], torch.arange(3))
    scores = reward(made)
    questions = [reward.question.format(instruction=text, output="a b") for text in ("say red", "say two")]
    assert "Instruction: say two" in questions[1] and "Text:\na b" in questions[1]
    yes = reward.ask([Prompt(question) for question in questions]).margin.sigmoid().tolist()
    assert scores.value[0].item() == pytest.approx((sum(yes) + 0) / 3, abs=1e-5)
    assert scores.parts["judged"][0].item() == pytest.approx(sum(yes) / 2, abs=1e-5) and scores.parts["rules"][0] == 0
    assert scores.value[2] == 1 and scores.parts["judged"][2].isnan() and scores.status.tolist() == [0, 0, 0]

    def silent(questions: list[Prompt]) -> Answers:
        n = len(questions)
        why = ["too long", *["mute"] * (n - 1)]
        return Answers(torch.full((n,), float("nan")), torch.zeros(n), why, [True, *[False] * (n - 1)])

    reward.ask = silent
    scores = reward(Rollout([prompts[1], prompts[1], prompts[2]], ["a", "b", "cube"], torch.arange(3)))
    assert scores.status.tolist() == [Status.PARSE_FAIL, Status.ERROR, Status.OK]
    assert scores.value[0] == 0 and scores.value[1].isnan() and scores.info[:2] == ["too long", "mute"]


def test_faults_of_the_options() -> None:
    with pytest.raises(ConfigError, match="question: shows the judge no answer"):
        mmalign.load_reward("instruction_adherence", question="{instruction}?")
    with pytest.raises(ConfigError, match="asks the same of every row; name {instruction} in it".replace("{", r"\{")):
        mmalign.load_reward("instruction_adherence", question="{output}?")


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(CHECKS)), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80)
@given(_ANY, st.text(max_size=30))
def test_any_data_and_any_text_give_verdicts_or_a_value_error(value: Any, text: str) -> None:
    try:
        checks, sentences = read_instructions(value, "c")
    except ValueError as error:
        assert str(error).startswith("c: ")
        return
    assert all(isinstance(v, bool) for v in followed(text, checks)) and all(sentences)
