"""What every built-in reward owes, whatever it measures: tried on each one that the registry lists."""

import dataclasses
import importlib
import sqlite3
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch

from mmalign.core.errors import MmalignError
from mmalign.core.protocols import Reward, SetReward
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.rewards import Guarded, functional, load_reward, rewards
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.engine.traits import RewardTraits
from mmalign.testing import check_reward, check_set_reward
from tests.rewards.every_reward import NAMES, SETS, TEXTS, judged, scenes
from tests.rewards.sounds import tones


@pytest.mark.parametrize("name", NAMES)
def test_every_reward_speaks_the_protocol(name, make):
    reward = make(name)
    assert isinstance(reward, SetReward if name in SETS else Reward)
    assert reward.modalities <= {"text", "image", "audio"} and reward.modalities
    module = importlib.import_module(rewards.built_in()[name])
    assert module.__doc__.strip() and getattr(module, module.__all__[0]) is rewards.get(name)
    if name not in SETS:
        assert isinstance(reward, Reward)
        low, high = reward.range
        assert low < high


@pytest.mark.parametrize("name", NAMES)
def test_every_reward_of_pictures_and_sounds_owes_nothing(name, make):
    """What `mmalign.testing` asks of a reward from elsewhere; that every row is scored is asked below."""
    reward = make(name)
    (check_set_reward if name in SETS else check_reward)(reward, judged(reward))


@pytest.mark.parametrize("name", SETS)
def test_sets_ignore_order_and_their_credit_has_mean_zero(name, make):
    reward = make(name)
    rollout = judged(reward)
    embedding = reward.embed(rollout)
    assert torch.allclose(reward.score(embedding), reward.score(embedding.flip(0)), atol=1e-8)
    assert reward.credit(embedding).mean().abs() < 1e-8
    assert torch.allclose(embedding, torch.cat([reward.embed(rollout[:4]), reward.embed(rollout[4:])]), atol=1e-5)


#: Options of no plain type, and another value of them.
ELSE = {"song_fad": {"encoder": {"name": "spectral", "bands": 8}}}


def other_values(hint, value):
    """Values of an option's type that are not its own, likely ones first."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(kind) in (Union, UnionType):
        return [other for each in get_args(kind) for other in other_values(each, value)]
    if get_origin(kind) is Literal:
        return [other for other in get_args(kind) if other != value]
    if kind is bool:
        return [not value]
    if kind in (int, float) and (value is None or isinstance(value, int | float)):
        return [kind(other) for other in (1, 0.5, 2, 0, -1, 4) if kind(other) != value]
    return ["other"] if kind is str else []


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SETS])
def test_built_in_rewards_can_be_cached_and_tell_their_options_apart(name, make):
    """Each option that can be given another value gives another identity, however it was checked."""
    reward = make(name)
    if not RewardTraits.of(reward).deterministic:
        pytest.skip("says itself that equal rows may score differently")
    who = identity(reward)
    assert who is not None and who == identity(make(name))
    hints = get_type_hints(type(reward), include_extras=True)
    options = [f.name for f in dataclasses.fields(reward) if f.init and f.name not in ("make", "checkpoint", "head")]
    candidates = {option: other_values(hints[option], getattr(reward, option)) for option in options}
    tried = {}
    for option in options:
        for value in [ELSE[name][option]] if option in ELSE.get(name, {}) else candidates[option]:
            try:
                other = make(name, **{option: value})
                tried[option] = identity(other) if RewardTraits.of(other).deterministic else f"varies with {value!r}"
                break
            except MmalignError:  # not a value that it takes
                continue
    assert tried or not any(candidates.values()), "none of its options was tried"
    assert who not in tried.values() and None not in tried.values(), tried


@pytest.mark.parametrize("name", NAMES)
def test_guarded_calls_hold_for_all(name, make):
    reward = make(name)
    scores = Guarded(name, reward)(judged(reward))
    assert isinstance(scores, Scores) and scores.valid.all()


# texts -------------------------------------------------------------------------------------------------------------

OUTPUTS = ["<answer>5</answer>", "B", "a red circle", "", "[1, 2, 30, 40]", "two blue squares two blue squares"]
FACTS = {
    "answer": "B",
    "references": ["a red circle", "one red circle"],
    "options": ["a", "b", "c"],
    "boxes": [[1.0, 2.0, 30.0, 40.0]],
    "size": [64, 64],
    "calls": [{"name": "f", "parameters": {"x": 1}}],
    "instructions": [],
    "constraints": [],
    "ground_truth": [{"name": "f", "parameters": {"x": 1}}],
}
#: What some rewards read instead: other facts, another output in the place of the first.
OTHER_FACTS: dict[str, dict[str, Any]] = {
    "align_evaluator": {"key_points": [{"point": "counting", "question": "say two"}]},
    "instruction_adherence": {"instructions": [{"max_words": 3}]},
    "math_equal": {"answer": "5"},
    "rank_agreement": {"gold": {"A": 2, "B": 1}},
    "abstains": {"answerable": True},
    "citations": {"supporting": [1]},
    "router": {"kind": "open"},
    "sql_execution": {"sql": "select 1", "database": "pets.sqlite"},
    "through": {"request": "a red star"},
}
OTHER_OUTPUTS = {
    "rank_agreement": '{"A": 2, "B": 1}',
    "sql_execution": "select 1",
    "tool_call": '<think>so</think>\n<tool_call>\n{"name": "f", "parameters": {"x": 1}}\n</tool_call>',
}
#: Of pictures or sounds alone; every other reward is tried on texts.
WITHOUT_TEXTS = {
    *("aesthetic", "aesthetics", "clip_r_precision", "clipping", "compressibility", "duration", "fad", "flatness"),
    *("kad", "laion_aesthetic", "loudness", "mlp_head", "ocr", "pitch", "sharpness", "silence", "song_fad"),
    *("speech", "speech_quality", "verifier"),
}


@pytest.fixture(scope="module")
def asked_about(tmp_path_factory):
    """Six texts as a policy gives them, with every column and medium that the reward `name` reads."""
    root = tmp_path_factory.mktemp("databases")
    sqlite3.connect(root / "pets.sqlite").executescript("create table pet(name text); insert into pet values ('Tom')")

    def rollout(name, reward):
        facts: dict[str, Any] = {
            **FACTS,
            **{c: FACTS.get(c, FACTS["references"]) for c in getattr(reward, "needs", ())},
        }
        facts |= OTHER_FACTS.get(name, {})
        if "database" in facts:
            facts["database"] = str(root / facts["database"])
        media = {"image": scenes(1).output[0]} if name not in ("reward_model", "density_ratio") else {}
        if "audio" in reward.modalities and "image" not in reward.modalities:
            media = {"audio": tones(1, seconds=0.7).output}
        outputs = [OTHER_OUTPUTS.get(name, OUTPUTS[0]), *OUTPUTS[1:]]
        each = [facts | ({"answer": TEXTS[i // 2]} if name == "contrastive" else {}) for i in range(6)]
        prompts = [Prompt(f"q{i // 2}", media, each[i]) for i in range(6)]
        mask = torch.arange(9) < torch.tensor([3, 1, 4, 0, 9, 6])[:, None]  # of the tokens that were sampled
        kept = {"features": torch.randn(6, 4, generator=torch.Generator().manual_seed(0))}
        trajectory = kept if getattr(reward, "reads_features", False) else {}
        return Rollout(prompts, outputs, torch.arange(6) // 2, trajectory, mask=mask)

    return rollout


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SETS])
def test_every_reward_of_texts_is_tried_on_texts(name, make):
    assert (name in WITHOUT_TEXTS) == ("text" not in make(name).modalities)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {*SETS, *WITHOUT_TEXTS}])
def test_texts_are_scored_with_every_row_accounted_for(name, make, asked_about):
    """A value exactly where a status carries one, within the range; the same alone and in another order."""
    reward = make(name)
    rollout = asked_about(name, reward)
    guarded = Guarded(name, reward, failed_share=1.0)
    try:
        scores = guarded(rollout)
        low, high = reward.range
        carries = scores.valid
        assert (scores.status == Status.OK).any(), f"none was scored: {scores.info}"
        assert torch.equal(scores.value.isfinite(), carries)
        assert (scores.value[carries] >= low - 1e-4).all() and (scores.value[carries] <= high + 1e-4).all()
        assert (scores.value[scores.status == Status.PARSE_FAIL] == low).all()
        for row in (~carries).nonzero().flatten().tolist():
            assert scores.status[row] == Status.NOT_APPLICABLE or scores.info[row], "a failure without its reason"
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        turned = guarded(rollout[order])
        assert torch.equal(turned.status, scores.status[order])
        assert torch.allclose(turned.value, scores.value[order], atol=1e-5, equal_nan=True)
        check_reward(reward, rollout[:4])
    finally:
        guarded.close()


# the small ones ----------------------------------------------------------------------------------------------------


def test_the_verifier_tells_truth_from_falsehood():
    rollout = scenes()
    strict, graded = load_reward("verifier"), load_reward("verifier", graded=True)
    scores = strict(rollout)
    assert scores.value.tolist() == [1.0] * 6 and torch.equal(scores.parts["graded"], graded(rollout).value)
    mismatched = Rollout([Prompt("two blue squares")] * 6, rollout.output, rollout.group)
    assert strict(mismatched).value.tolist() == [0, 0, 1, 1, 0, 0]
    assert 0 <= graded(mismatched).value[0] < 1


def test_the_verifier_declines_what_it_cannot_read_and_keeps_the_original_request():
    from mmalign.core.errors import CapabilityError
    from mmalign.core.types import Status

    rollout = scenes(1)
    prompts = [
        Prompt("an oil painting"),
        Prompt("two azure quads", meta={"request": "two blue squares"}),
        rollout.prompts[2],
    ]
    scores = load_reward("verifier")(Rollout(prompts, rollout.output[[0, 2, 2]], rollout.group))
    assert scores.status[0] == Status.NOT_APPLICABLE and scores.value[0].isnan() and "oil painting" in scores.info[0]
    assert scores.status[1:].tolist() == [0, 0]
    with pytest.raises(CapabilityError, match=r"reads pictures \(3, 64, 64\); these are \(3, 32, 32\)"):
        load_reward("verifier")(Rollout(prompts, rollout.output[:, :, :32, :32], rollout.group))


def test_sharpness_by_hand():
    flat, dot = torch.full((3, 5, 5), 0.3), torch.zeros(3, 5, 5)
    dot[:, 2, 2] = 1.0
    rollout = Rollout([Prompt("a"), Prompt("b")], torch.stack([flat, dot]), torch.arange(2))
    assert load_reward("sharpness")(rollout).value.tolist() == pytest.approx([0, 8 / 9], abs=1e-6)


def test_every_function_of_the_mathematics_is_public():
    import pkgutil

    files = {module.name for module in pkgutil.iter_modules(functional.__path__)}
    made_in = {getattr(functional, name).__module__.rsplit(".", 1)[-1] for name in functional.__all__}
    assert made_in == files


#: Rewards of texts that look at all of an output: at its form, its length, its set, or at what they find themselves.
WHOLE = {"cosine_length", "format", "group_length", "length", "overlong", "repetition", "hybrid", "sql_execution"}
WHOLE |= {
    "tool_call",
    "router",
    "marginal",
    "budgeted",
    "critiqued",
    "citations",
    "embedding_contrast",
    *SETS,
    "song_fad",
    "density_ratio",
    "remote",
    "follow_up",
}


@pytest.mark.parametrize("name", [name for name in rewards.names() if name not in WHOLE])
def test_a_reward_of_texts_can_be_told_where_the_answer_stands(name: str) -> None:
    """Thoughts before an answer are no part of it, wherever a judge reads it."""
    made = rewards.get(name)
    judged = getattr(made, "modalities", None)
    if isinstance(judged, property) or "text" in judged:
        assert "where" in {field.name for field in dataclasses.fields(made)}
