"""A rule and a model on one scale: by hand, with rewards that say exactly what they are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.rewards import Guarded, rewards
from mmalign.rewards.engine.cache import identity
from tests.rewards.doubles import Given, scores

NAN = float("nan")


def hybrid(rule: Any = "exact_match", model: Any = "length", **options: Any) -> Any:
    specs = {"rule": {"name": rule}, "model": {"name": model, **({"low": 4.0} if model == "length" else {})}}
    return mmalign.load_reward("hybrid", **specs, **options)


def hybrid_of(rule: Any, model: Any, **options: Any) -> Any:
    """A hybrid of these two rewards."""
    parts = {"rule": rule, "model": model}
    specs = {name: {"name": name} for name in parts}
    return rewards.get("hybrid")(**specs, make=lambda kind, spec, place: parts[spec["name"]], **options)


def answers(*rows: tuple[str, Any]) -> Rollout:
    prompts = [Prompt("q", meta={} if answer is None else {"answer": answer}) for _, answer in rows]
    return Rollout(prompts, [text for text, _ in rows], torch.arange(len(rows)))


@dataclass
class Noting:
    """The reward `score`, which first adds the outputs that it is called with to `outputs`."""

    score: Callable[[Rollout], Scores]
    outputs: list[list[str]] = field(default_factory=list)
    modalities = frozenset({"text"})
    range = (0.0, 1.0)
    differentiable = False

    def __call__(self, rollout: Rollout) -> Scores:
        self.outputs.append(list(rollout.output))
        return self.score(rollout)


def test_golden_value_of_the_confidence_gate() -> None:
    """c = .7, rule 1, model .2: .76."""
    reward = hybrid_of(Given(scores([1.0]), (0.0, 1.0)), Given(scores([0.2]), (0.0, 1.0)), trust=0.7)
    result = reward(answers(("a", "a")))
    assert result.value.item() == pytest.approx(0.76, abs=1e-6) and result.confidence.item() == pytest.approx(0.7)
    assert {name: round(v.item(), 6) for name, v in result.parts.items()} == {"rule": 1.0, "model": 0.2, "trust": 0.7}


def test_the_model_judges_what_the_rule_cannot_and_is_asked_of_nothing_else() -> None:
    model = Noting(mmalign.load_reward("length", low=4.0))
    made = answers(("yes", "yes"), ("no", "yes"), ("one two", None), ("one two three four", None))
    result = hybrid_of(mmalign.load_reward("exact_match"), model)(made)
    assert result.value.tolist() == [1.0, 0.0, 0.5, 1.0] and result.status.tolist() == [0] * 4
    assert model.outputs == [["one two", "one two three four"]] and result.parts["model"][:2].isnan().all()
    assert result.confidence.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_scales_meet_on_zero_to_one() -> None:
    rule = Given(scores([-3.0, 4.0, 0.5]), (-3.0, 4.0))
    wide = Given(scores([2.0, -2.0, 0.0]), (-float("inf"), float("inf")))
    reward = hybrid_of(rule, wide, trust=0.5, scale="sigmoid", middle=0.0, spread=2.0)
    result = reward(answers(("a", "a"), ("a", "a"), ("a", "a")))
    model = torch.tensor([1.0, -1.0, 0.0]).sigmoid()
    torch.testing.assert_close(result.value, 0.5 * torch.tensor([0.0, 1.0, 0.5]) + 0.5 * model)


def test_statuses_of_the_parts() -> None:
    rule = Given(scores([None, None, None, 1.0], [Status.PARSE_FAIL, Status.ERROR, Status.NOT_APPLICABLE, Status.OK]))
    known = scores([0.5, 0.5, None, None], [Status.OK, Status.OK, Status.ERROR, Status.ERROR])
    model = Noting(lambda rollout: known[torch.tensor([int(text) for text in rollout.output])])
    rule.scores.confidence = torch.tensor([0.5, 0.5, 1.0, 0.5])
    made = answers(("0", "x"), ("1", "x"), ("2", "x"), ("3", "x"))
    result = Guarded("both", hybrid_of(rule, model), failed_share=1.0)(made)
    assert model.outputs == [["2", "3"]]  # the model changes nothing of what the rule could not read or failed on
    assert result.status.tolist() == [Status.PARSE_FAIL, Status.ERROR, Status.ERROR, Status.ERROR]
    assert result.value[0] == 0 and result.value[1:].isnan().all()


def test_what_it_is_made_of_shows() -> None:
    reward = hybrid()
    assert reward.modalities == {"text"} and reward.needs == () and reward.deterministic and not reward.batch_dependent
    assert identity(reward) == identity(hybrid()) != identity(hybrid(trust=0.5))
    assert hybrid("group_length").batch_dependent and hybrid(model="exact_match").needs == ("answer",)


def test_faults_of_the_options() -> None:
    with pytest.raises(ConfigError, match=r"(?s)spread: must be above 0.*trust: 0.0 is not in \(0, 1\]"):
        hybrid(trust=0.0, spread=-1.0)
    with pytest.raises(ConfigError, match=r"hybrid.model.name: no reward is called 'lenght'. Did you mean 'length'"):
        hybrid(model="lenght")
    with pytest.raises(ConfigError, match="model: 'vendi' judges sets, not rows"):
        vendi = {"name": "vendi", "encoder": {"name": "spectral"}}
        mmalign.load_reward("hybrid", rule={"name": "exact_match"}, model=vendi)
    with pytest.raises(ConfigError, match="reward 'hybrid' is built of two rewards"):
        rewards.get("hybrid")(rule={"name": "exact_match"}, model={"name": "length"})
