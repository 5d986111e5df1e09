"""Mixes: slots, monitors, sets as credit, members, state and books; and how each fault is said."""

import math
import warnings

import pytest
import torch

from mmalign.core.errors import CapabilityError, ConfigError, ScoreError
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.objectives._advantages import group_relative, whiten
from mmalign.rewards import Credit, Mix, Slot
from mmalign.rewards.combine import combinations
from tests.rewards.doubles import Brightness, Given, Numbers, answers, pictures, scores
from tests.toys import NearGaussian, NearPoint

RAW = {"name": "weighted_sum", "scale": "raw"}


def mix(slots, combine=RAW, **more):
    return Mix(slots, combinations.build(combine, "combine"), **more)


class Counting(NearGaussian):
    """Remembers how many rows it embedded at a time."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def embed(self, rollout):
        self.sizes.append(len(rollout))
        return super().embed(rollout)


def points(count=12, group=4):
    rng = torch.Generator().manual_seed(0)
    output = torch.randn(count, 1, 1, 2, generator=rng)
    return Rollout([Prompt(f"p{i // group}") for i in range(count)], output, torch.arange(count) // group)


def test_value_parts_and_monitors():
    rollout = pictures()
    dark = Given(scores([-0.1, -0.2, -0.3, -0.4], parts={"inner": torch.arange(4.0)}))
    mixed = mix({"bright": Slot(Brightness(), 2.0), "dark": Slot(dark), "watch": Slot(Brightness(), 7.0, monitor=True)})
    result = mixed(rollout)
    mean = rollout.output.mean((1, 2, 3))
    assert torch.allclose(result.value, 2 * mean + dark.scores.value)
    assert set(result.parts) == {"bright", "dark", "watch", "dark/inner"}
    assert torch.allclose(result.parts["watch"], mean) and result.parts["dark/inner"].tolist() == [0, 1, 2, 3]
    assert mixed.range == (-1.0, 3.0) and mixed.modalities == {"image"}
    assert set(mixed.members) == {"bright", "dark"} and mixed.members["bright"][1] == 2.0


def test_a_mix_is_what_its_slots_say_by_default():
    rollout = pictures(per_prompt=3)
    one = Mix({"bright": Brightness()})
    assert torch.allclose(one(rollout).value, Brightness()(rollout).value)  # alone: raw
    two = Mix({"bright": Brightness(), "again": Slot(Brightness(), 3.0)})
    value = two(rollout).value.reshape(2, 3)
    assert torch.allclose(value.mean(1), torch.zeros(2), atol=1e-5)
    assert torch.allclose(value.std(1), torch.full((2,), 4.0), atol=1e-4)
    assert two.range == (-math.inf, math.inf)


def test_missing_parts_reach_the_value_and_the_reasons_their_slot():
    mixed = mix({"numbers": Slot(Numbers()), "given": Slot(Given(scores([1, None, 1])))}, failed_share=1.0)
    result = mixed(answers("1", "2", "x"))
    assert result.status.tolist() == [Status.OK, Status.ERROR, Status.ERROR]
    assert result.value[0] == 2 and result.value[1:].isnan().all()
    assert result.info[2].startswith("numbers: ValueError")


def test_a_failing_monitor_never_alters_or_stops_training():
    rollout = answers(*["1"] * 16)
    mixed = mix(
        {"numbers": Slot(Numbers()), "broken": Slot(Given(scores([None] * 16)), monitor=True)}, failed_share=0.1
    )
    for _ in range(30):
        result = mixed(rollout)
    assert result.status.tolist() == [0] * 16 and result.parts["broken"].isnan().all()
    trained = mix({"broken": Slot(Given(scores([None] * 16)))}, failed_share=0.1)
    with pytest.raises(ScoreError, match="reward 'broken' failed on 16 of the last 16 rows"):
        trained(rollout)


def test_a_set_reward_enters_as_credit_and_stays_a_set():
    rollout = points()
    whole = mix({"near": Slot(NearGaussian(), 2.0)})
    result = whole(rollout)
    judge = NearGaussian()
    credit = judge.credit(judge.embed(rollout))
    assert torch.allclose(result.value, 2 * credit)
    assert torch.allclose(result.parts["near/set"], judge.score(judge.embed(rollout)).expand(12))
    member, weight = whole.members["near"]
    assert weight == 2.0 and torch.allclose(member.score(member.embed(rollout)), judge.score(rollout.output.flatten(1)))
    row_member = mix({"point": Slot(NearPoint())}).members["point"][0]
    assert not hasattr(row_member, "embed") and not hasattr(row_member, "score")
    each = mix({"near": Slot(NearGaussian(), over="group")})(rollout)
    apart = torch.cat([judge.credit(rollout.output[i : i + 4].flatten(1)) for i in (0, 4, 8)])
    assert torch.allclose(each.value, apart, atol=1e-6)


def test_sets_are_embedded_in_pieces_but_never_cut():
    result = mix({"near": Slot(counting := Counting(), call_rows=5)})(points())
    assert counting.sizes == [5, 5, 2]
    assert torch.allclose(result.value, mix({"near": Slot(NearGaussian())})(points()).value)


def test_small_sets_and_broken_embeddings_have_no_credit():
    result = Credit(NearGaussian(), "group")(points(5, 3))  # groups of 3 and 2
    assert result.status.tolist() == [0, 0, 0, *[Status.NOT_APPLICABLE] * 2]
    rollout = points()
    rollout.output[5] = math.nan
    result = Credit(NearGaussian())(rollout)
    others = torch.tensor([i for i in range(12) if i != 5])
    assert result.status[5] == Status.ERROR and result.info[5] == "the embedding is not finite"
    assert torch.allclose(result.value[others], Credit(NearGaussian())(rollout[others]).value)


def test_the_mean_of_a_sets_rows_has_the_gradient_of_the_set():
    rollout = points()
    rollout.output.requires_grad_()
    (mixed,) = torch.autograd.grad(mix({"near": Slot(NearGaussian())})(rollout).value.mean(), rollout.output)
    judge = NearGaussian()
    (direct,) = torch.autograd.grad(judge.score(judge.embed(rollout)), rollout.output)
    assert torch.allclose(mixed, direct, atol=1e-6)


def test_differentiable_needs_every_trained_slot_and_the_combination():
    assert mix({"a": Slot(Brightness())}).differentiable
    assert mix({"a": Slot(Brightness()), "b": Slot(Given(scores([1])), monitor=True)}).differentiable
    assert not mix({"a": Slot(Brightness()), "b": Slot(Given(scores([1])))}).differentiable
    assert not mix({"a": Slot(Brightness())}, {"name": "rank"}).differentiable


def test_one_trained_slot_passes_its_step_credit_and_confidence():
    own = scores([0.5, 0.1], confidence=torch.tensor([0.3, 0.4]))
    own.per_step = torch.arange(6.0).reshape(2, 3)
    result = Mix({"steps": Given(own)})(answers("a", "b"))
    assert torch.equal(result.per_step, own.per_step) and torch.equal(result.confidence, own.confidence)


def advantages(mixed, rollout):
    """GRPO's, of every step."""
    result = mixed(rollout)
    return group_relative(result.per_step, rollout.group, result.valid[:, None].expand_as(result.per_step))[0]


STEPS = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None].expand(4, 3) / 3


@pytest.mark.parametrize(
    ("combine", "weight", "factor"),
    [
        (RAW, 2.0, 2.0),
        (RAW, -1.0, -1.0),
        ({"name": "weighted_sum"}, -0.5, -0.5),
        ({"name": "weighted_sum", "scale": "running"}, -1.0, -1 / 1.25**0.5),
        ({"name": "weighted_sum", "scale": "raw", "missing": "renormalize"}, 3.0, 3.0),
        ({"name": "minimum", "scale": "raw"}, -2.0, -2.0),
        ({"name": "ensemble", "scale": "raw"}, 5.0, 1.0),
        ({"name": "lagrangian", "thresholds": {"steps": 0.5}, "scale": "raw"}, 4.0, 2.0),
    ],
)
def test_step_credit_is_on_the_scale_of_the_value(combine, weight, factor):
    """d value / d part, found by moving the part, is what its credit of steps is multiplied by."""
    own = Given(scores([1, 2, 3, 4], per_step=STEPS), (-10.0, 10.0))
    mixed = mix({"steps": Slot(own, weight)}, combine)
    result = mixed(answers(*"abcd", per_prompt=4))
    assert torch.allclose(result.per_step, factor * STEPS)
    slope = (result.value[1:] - result.value[:-1]) / (own.scores.value[1:] - own.scores.value[:-1])
    assert torch.allclose(slope, torch.full((3,), factor))


def test_a_negative_weight_turns_the_advantage_of_steps_round():
    own = Given(scores([1, 2, 3, 4], per_step=STEPS), (-10.0, 10.0))
    up = advantages(mix({"steps": Slot(own)}), answers(*"abcd", per_prompt=4))
    down = advantages(mix({"steps": Slot(own, -1.0)}), answers(*"abcd", per_prompt=4))
    assert up[3, 0] > 1 and torch.allclose(down, -up)


def test_step_credits_of_several_rewards_add_up_by_weight():
    a = Given(scores([1, 2, 3, 4], per_step=STEPS), (-10.0, 10.0))
    b = Given(scores([4, 2, 3, 1], per_step=STEPS.flip(0)), (-10.0, 10.0))
    result = mix({"a": Slot(a, 2.0), "b": Slot(b, -1.0)})(answers(*"abcd", per_prompt=4))
    assert torch.allclose(result.per_step, 2 * STEPS - STEPS.flip(0))


@pytest.mark.parametrize(
    "combine", [{"name": "weighted_sum"}, RAW, {"name": "rank"}, {"name": "minimum", "scale": "raw"}]
)
def test_step_credit_that_cannot_be_shared_out_is_dropped_aloud_once(combine):
    slots = {"steps": Slot(Given(scores([0.1, 0.2], per_step=STEPS[:2]))), "rows": Slot(Given(scores([0.3, 0.1])))}
    mixed = mix(slots, combine)
    with pytest.warns(UserWarning, match=r"rewards\.steps credits single steps, which combine: \w+ of 2 rewards"):
        assert mixed(answers("a", "b", per_prompt=2)).per_step is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixed(answers("a", "b", per_prompt=2))


def test_a_malformed_output_never_has_the_best_steps():
    """Its steps were left as the reward gave them (0), above those of every well-formed row."""
    per_step = torch.tensor([[-1.0], [-2.0], [0.0], [-3.0]]).expand(4, 3)
    states = [Status.OK, Status.OK, Status.PARSE_FAIL, Status.OK]
    own = Given(scores([-3, -6, -10, -9], states, per_step=per_step), (-10.0, 0.0))
    mixed = mix({"steps": Slot(own)})
    assert mixed(answers(*"abcd", per_prompt=4)).value.tolist() == [-3, -6, -10, -9]
    advantage = advantages(mixed, answers(*"abcd", per_prompt=4))
    assert (advantage[2] < advantage[[0, 1, 3]].amin(0)).all() and (advantage[2] < 0).all()


@pytest.mark.parametrize(("bounds", "low"), [((-10.0, 0.0), -10.0), ((1.0, 10.0), 1 / 3), ((0.0, 1.0), 0.0)])
def test_the_steps_of_a_malformed_output_are_at_the_floor_however_steps_make_a_value(bounds, low):
    states = [Status.PARSE_FAIL, Status.OK]
    own = scores([0, bounds[1]], states, per_step=torch.full((2, 3), bounds[1]))
    assert Mix({"steps": Given(own, bounds)})(answers("a", "b")).per_step[0].tolist() == pytest.approx([low] * 3)


@pytest.mark.parametrize(
    ("combine", "weights", "message"),
    [
        (RAW, (0.0, 0.0), r"every weight is 0 \(a, b\)"),
        ({"name": "rank"}, (0.0, 0.0), "every weight is 0"),
        ({"name": "lagrangian", "thresholds": {"a": 0.5}}, (0.0, 0.0), "every weight is 0"),
        ({"name": "minimum"}, (1.0, 0.0), r"rewards\.b\.weight: 0; combine: minimum"),
        ({"name": "ensemble"}, (-1.0, 0.5), r"rewards\.a\.weight: -1; combine: ensemble takes positive"),
        ({"name": "product"}, (1.0, -1.0), r"rewards\.b\.weight: -1; combine: product takes positive"),
        ({"name": "product"}, (0.0, 1.0), r"rewards\.a\.weight: 0; combine: product takes positive"),
        ({"name": "log_sigmoid"}, (1.0, -1.0), r"rewards\.b\.weight: -1; combine: log_sigmoid takes positive"),
        (RAW, (math.nan, 1.0), "weight must be finite, not nan"),
        (RAW, (math.inf, 1.0), "weight must be finite, not inf"),
    ],
)
def test_weights_that_make_no_sense_are_refused(combine, weights, message):
    with pytest.raises(ValueError, match=message):
        mix({"a": Slot(Brightness(), weights[0]), "b": Slot(Brightness(), weights[1])}, combine)


def test_gdpo_is_group_z_that_is_whitened_and_not_divided_by_the_group_again():
    """Against the numbers of TRL's normalize_then_sum, which this task's second group tells apart."""
    a, b = [0, 1, 2, 3] * 2, [0, 1, 2, 3, 3.1, 2, 1, 0]
    slots = {"a": Slot(Given(scores(a), (0.0, 4.0))), "b": Slot(Given(scores(b), (0.0, 4.0)))}
    rollout, valid = answers(*"abcdefgh", per_prompt=4), torch.ones(8, 1, dtype=torch.bool)
    value = mix(slots, {"name": "weighted_sum"})(rollout).value[:, None]
    whitened = whiten(group_relative(value, rollout.group, valid, std="none", limit=None)[0], valid)[4:, 0]
    sample = (7 / 8) ** 0.5  # TRL's deviations divide by n - 1
    assert (sample * whitened).tolist() == pytest.approx([0.017, -0.023, -0.006, 0.012], abs=6e-4)
    twice = group_relative(value, rollout.group, valid)[0][4:, 0]
    assert twice.tolist() == pytest.approx([1.07, -1.46, -0.36, 0.74], abs=1e-2)


class Between:
    """Values of a list, of a declared range."""

    modalities, differentiable = frozenset({"text"}), False

    def __init__(self, low, high, values=(), confidence=None):
        self.range, self.values, self.confidence = (low, high), list(values), confidence

    def __call__(self, rollout):
        return Scores.of(torch.tensor(self.values), confidence=self.confidence)


@pytest.mark.parametrize(
    ("combine", "ranges", "message"),
    [
        ({"name": "product"}, [(0, 1), (-1, 0)], r"rewards\.b: .* below 0 \(-1, 0\).*; set rewards\.b\.map: \[-1, 0\]"),
        ({"name": "product"}, [(-1, 1), (0, 1)], r"rewards\.a: .* below 0 \(-1, 1\).* set rewards\.a\.map: \[-1, 1\]"),
        ({"name": "product"}, [(0, 1), (-math.inf, 0.0)], r"rewards\.b\.map: \[…, 0\]"),
        ({"name": "gate", "by": "a", "floor": -1}, [(-1, 0), (0, 1)], r"combine\.at: 0\.5 .* no row passes"),
        ({"name": "gate", "by": "a", "floor": -1}, [(1, 5), (0, 1)], r"combine\.at: 0\.5 .* every row passes"),
        ({"name": "gate", "by": "a", "floor": 0}, [(0, 1), (-1, 1)], r"combine\.floor: 0 is above -1"),
        ({"name": "confidence", "rule": "a", "model": "b"}, [(0, 1), (-1, 1)], r"set rewards\.b\.map: \[-1, 1\], the"),
        (
            {"name": "confidence", "rule": "a", "model": "b"},
            [(0, 2), (-1, 1)],
            r"b\.map: \[-1, 1\].*, and so the other",
        ),
    ],
)
def test_ranges_that_a_combination_cannot_use_are_refused(combine, ranges, message):
    slots = {name: Slot(Between(*span)) for name, span in zip("ab", ranges, strict=True)}
    with pytest.raises(ConfigError, match=message):
        mix(slots, combine)


def test_a_map_puts_a_penalty_among_factors():
    """Quality × no repetition: the flawless row keeps its quality, the worst has none."""
    slots = {
        "quality": Slot(Between(0.0, 1.0, [0.8, 0.8, 0.8])),
        "repetition": Slot(Between(-1.0, 0.0, [0.0, -0.5, -1.0]), map=(-1.0, 0.0)),
    }
    mixed = mix(slots, {"name": "product"})
    result = mixed(answers("a", "b", "c", per_prompt=3))
    assert result.value.tolist() == pytest.approx([0.8, 0.4, 0.0])
    assert result.parts["repetition"].tolist() == [1.0, 0.5, 0.0]
    assert mixed.range == (0.0, 1.0) and mixed.metrics()["reward/repetition"] == 0.5


def test_a_map_cuts_what_is_outside_and_keeps_statuses():
    given = scores([-3, 0.3, 5, None])
    slot = mix({"a": Slot(Given(given, (-4.0, 6.0)), map=(0.2, 0.4))}).guarded("a")
    values = slot(answers("a", "b", "c", "d", per_prompt=4)).value
    assert values[:3].tolist() == pytest.approx([0.0, 0.5, 1.0]) and values[3].isnan()
    assert slot.range == (0.0, 1.0)
    for wrong in ((1.0, 1.0), (1.0, 0.0), (0.0, math.inf)):
        with pytest.raises(ValueError, match=r"map must be \[low, high\] with low below high"):
            Slot(Brightness(), map=wrong)
    with pytest.raises(ConfigError, match=r"rewards\.near\.map: a set's rows"):
        mix({"near": Slot(NearGaussian(), map=(0.0, 1.0))})


def test_state_of_the_combination_is_the_mixs():
    spec = {"name": "lagrangian", "thresholds": {"bright": 0.1}, "scale": "raw", "lr": 1.0}
    trained = mix({"bright": Slot(Brightness())}, spec)
    with trained.frozen():
        trained(pictures())
    assert trained.combination.multipliers["bright"] == 0.5
    trained(pictures())
    assert trained.combination.multipliers["bright"] < 0.5
    again = mix({"bright": Slot(Brightness())}, spec)
    again.load_state_dict(trained.state_dict())
    assert again.combination.multipliers == trained.combination.multipliers
    assert float(trained.metrics()["multiplier/bright"]) == pytest.approx(trained.combination.multipliers["bright"])
    stateless = mix({"bright": Slot(Brightness())}, {"name": "rank"})
    assert stateless.state_dict() == {}
    with pytest.raises(ValueError, match=r"saved state holds \['bright'\], but this combination keeps none"):
        stateless.load_state_dict(trained.state_dict())


def test_books_name_slots_flat_groups_and_correlations():
    a, b = Given(scores([0, 1, 0.5, 0.5])), Given(scores([0, -1, -0.5, 0.5]))
    mixed = mix({"a": Slot(a), "b": Slot(b, monitor=True)})
    mixed(pictures())
    metrics = {name: float(value) for name, value in mixed.metrics().items()}
    assert metrics["reward/a"] == 0.5 and metrics["reward/b/min"] == -1 and metrics["reward/a/ok"] == 1
    assert metrics["reward/a/flat_groups"] == 0.5 and metrics["reward/b/flat_groups"] == 0
    assert metrics["correlation/a/b"] == pytest.approx(
        float(torch.corrcoef(torch.stack([a.scores.value, b.scores.value]))[0, 1])
    )
    assert mixed.metrics() == {}


def test_faults_are_said_together_with_their_place():
    with pytest.raises(ConfigError) as caught:
        Mix(
            {
                "bright": Slot(Brightness(), timeout=3.0),
                "dark": Slot(Brightness(), over="group"),
                "w": Slot(1, monitor=True),
            },
            combinations.build({"name": "gate", "by": "brihgt", "floor": 0.0}, "combine"),
        )
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "combine",
        "rewards.bright.timeout",
        "rewards.dark.over",
    ]
    assert "Did you mean 'bright'? Known: bright, dark." in caught.value.faults[0]
    with pytest.raises(ConfigError, match=r"rewards\.a\.weight: must be a number \(got 'big'\)"):
        slot = Slot(Brightness())
        slot.weight = "big"  # type: ignore[assignment]  # as a run file may say
        Mix({"a": slot})
    with pytest.raises(ConfigError, match="no reward is trained on"):
        Mix({"a": Slot(Brightness(), monitor=True)})
    with pytest.raises(CapabilityError, match=r"share no modality \(a: image; b: text\)"):
        Mix({"a": Brightness(), "b": Numbers()})


def test_scores_of_a_mix_are_scores():
    assert isinstance(Mix({"a": Brightness()})(pictures()), Scores)


def test_only_combinations_within_groups_are_relative():
    one, two = {"a": Slot(NearPoint())}, {"a": Slot(NearPoint()), "b": Slot(NearPoint())}
    watched = {**one, "b": Slot(NearPoint(), monitor=True)}
    scaled = {"name": "weighted_sum"}
    assert not mix(one, scaled).relative and mix(two, scaled).relative and not mix(watched, scaled).relative
    for name, relative in {"rank": True, "minimum": True, "log_sigmoid": False}.items():
        assert mix(two, {"name": name}).relative is relative, name
    assert not mix({"a": Slot(Brightness()), "b": Slot(Brightness())}, {"name": "product"}).relative
    assert mix(two, {"name": "ensemble", "how": "vote", "scale": "raw"}).relative
    assert not mix(two, {"name": "ensemble", "scale": "raw"}).relative


def test_a_slot_embeds_sets_in_its_pieces_for_others_too():
    member = mix({"near": Slot(counting := Counting(), call_rows=5)}).members["near"][0]
    assert torch.equal(member.embed(points()), NearGaussian().embed(points())) and counting.sizes == [5, 5, 2]
