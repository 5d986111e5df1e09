"""Bradley-Terry and its relatives: closed forms, float64, finite differences, and TRL's own loss."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.protocols import Inputs
from mmalign.core.types import Audio, Preference, Prompt
from mmalign.objectives._preferences import Ties, centring, comparison_loss, log_tie, log_win
from mmalign.objectives._rollouts import batch_outputs
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.policies.scorer import Scorer
from tests.objectives.driving import alone, stream
from tests.objectives.scorers import Valued, rows
from tests.toys import ToyAdapter

LEAD = torch.linspace(-3, 3, 13, dtype=torch.float64)


# the models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_outcomes_of_the_tie_models_are_all_there_is(share: float) -> None:
    for ties in ("rao_kupper", "davidson"):
        won, lost = log_win(LEAD, ties, share).exp(), log_win(-LEAD, ties, share).exp()
        torch.testing.assert_close(won + lost + log_tie(LEAD, ties, share).exp(), torch.ones_like(LEAD))
        equal = log_tie(torch.zeros(1, dtype=torch.float64), ties, share).exp()
        assert float(equal) == pytest.approx(share)  # what `tie_share` promises


def test_the_models_are_those_of_the_papers() -> None:
    share, strength = 0.3, LEAD.exp()  # p_r = 1
    theta, nu = (1 + share) / (1 - share), 2 * share / (1 - share)
    torch.testing.assert_close(log_win(LEAD, "rao_kupper", share).exp(), strength / (strength + theta))
    both = (theta**2 - 1) * strength / ((strength + theta) * (theta * strength + 1))
    torch.testing.assert_close(log_tie(LEAD, "rao_kupper", share).exp(), both)
    norm = strength + 1 + nu * strength.sqrt()
    torch.testing.assert_close(log_win(LEAD, "davidson", share).exp(), strength / norm)
    torch.testing.assert_close(log_tie(LEAD, "davidson", share).exp(), nu * strength.sqrt() / norm)
    torch.testing.assert_close(log_win(LEAD, "half", share), torch.special.expit(LEAD).log())


def test_golden_values() -> None:
    def loss(chosen: float, rejected: float, margin: float = 0.0, centre: float = 0.0) -> float:
        one, other = torch.tensor([float(chosen)]), torch.tensor([float(rejected)])
        value = comparison_loss(one - other, torch.tensor([margin]), torch.ones(1), torch.tensor([False]))
        return float(value + centre * centring(one, other))

    assert loss(0, 0) == pytest.approx(0.693147, abs=1e-6)
    assert loss(1, 0) == pytest.approx(0.313262, abs=1e-6)
    assert loss(1, 0, margin=0.5) == pytest.approx(0.474077, abs=1e-6)
    assert loss(2, 1, centre=0.01) == pytest.approx(0.403262, abs=1e-6)


@pytest.mark.parametrize("ties", ["half", "rao_kupper", "davidson"])
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_finite_differences_and_finite_far_out(ties: Ties, tied: bool) -> None:
    def loss(lead: Tensor) -> Tensor:
        margin, label = torch.full_like(lead, 0.3), torch.full_like(lead, 0.8)
        return comparison_loss(lead, margin, label, torch.full(lead.shape, tied), ties, 0.25)

    assert torch.autograd.gradcheck(loss, (LEAD.clone().requires_grad_(),))
    far = torch.tensor([-300.0, 300.0], requires_grad=True)
    loss(far).sum().backward()
    assert loss(far).isfinite().all() and far.grad is not None and far.grad.isfinite().all()


def test_the_best_lead_says_how_often_the_first_side_won() -> None:
    label = torch.tensor([0.8], dtype=torch.float64)
    lead = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        value = comparison_loss(lead, torch.zeros_like(label), label, torch.tensor([False]))
        lead = (lead - torch.autograd.grad(value.sum(), lead)[0]).detach().requires_grad_()
    assert float(lead.detach()) == pytest.approx(math.log(0.8 / 0.2), abs=1e-6)


# the objective ---------------------------------------------------------------------------------------------------


def loss_of(objective: BradleyTerry, batch: list[Preference], policy: Scorer | None = None) -> tuple[Any, Any, Scorer]:
    policy = policy or Scorer(Valued())
    found = objective.collect(policy, batch, stream(0))
    found = replace(found, weight=objective.weigh(found.mask, alone))
    return *objective.loss(policy, found, stream(0)), policy


def test_margins_ties_and_labels_come_from_columns() -> None:
    objective = BradleyTerry(ties="davidson", tie_share=0.5, centre=0.1, margin_scale=2.0)
    found = objective.collect(Scorer(Valued()), rows({"margin": 0.5}, {"tie": True}, {"label": 0.25}, {}), stream(0))
    assert found.margin.tolist() == [1.0, 0, 0, 0] and found.tie.tolist() == [False, True, False, False]
    assert found.label.tolist() == [1, 1, 0.25, 1]
    loss, metrics, _ = loss_of(objective, rows({"margin": 0.5}, {"tie": True}, {"label": 0.25}, {}))
    good = torch.tensor([2 + 1.3, 1 + 0.1, 1 + 1.2, 4 + 0.4]) / 2
    bad = torch.tensor([1.1, 3.3, 2.2, 0.0]) / 2
    lead, nu = good - bad, 2.0

    def win(d: Tensor) -> Tensor:
        return (d.exp() / (d.exp() + 1 + nu * (d / 2).exp())).log()

    tie = (nu * (lead / 2).exp() / (lead.exp() + 1 + nu * (lead / 2).exp())).log()
    likely = torch.stack([win(lead - 1)[0], tie[1], (0.25 * win(lead) + 0.75 * win(-lead))[2], win(lead)[3]])
    want = (-likely + 0.1 * (good + bad) ** 2).mean()
    assert float(loss.detach()) == pytest.approx(float(want), abs=1e-6)
    # Equal scores count half, ties do not; the third row says that the rejected side is the better one.
    assert float(metrics["margin/accuracy"]) == pytest.approx((1 + 0.5 + 1) / 3)
    led = rows({}, {"label": 0.25})[1:]
    assert float(loss_of(BradleyTerry(), [replace(led[0], chosen="bbb", rejected="a")])[1]["margin/accuracy"]) == 0


def test_columns_of_text_are_read_as_csv_files_have_them() -> None:
    batch = rows({"tie": "False", "margin": "0.5"}, {"tie": "true", "margin": ""}, {"tie": "0"}, {"tie": ""})
    found = BradleyTerry().collect(Scorer(Valued()), batch, stream(0))
    assert found.tie.tolist() == [False, True, False, False] and found.margin.tolist() == [0.5, 0, 0, 0]
    with pytest.raises(DataError, match=r"row 0 of the batch: 'tie' is 'perhaps'; expected true or false"):
        BradleyTerry().collect(Scorer(Valued()), rows({"tie": "perhaps"}), stream(0))
    with pytest.raises(DataError, match=r"row 0 of the batch: 'margin' is 'nan'; expected the lead"):
        BradleyTerry().collect(Scorer(Valued()), rows({"margin": "nan"}), stream(0))


def test_the_gradient_does_not_depend_on_the_split() -> None:
    objective = BradleyTerry(centre=0.05, label_smoothing=0.1)
    batch = rows({}, {"margin": 1.0}, {}, {"tie": True})
    loss, _, policy = loss_of(objective, batch)
    whole = torch.autograd.grad(loss, policy.module.get_parameter("weight"))[0]
    found = objective.collect(policy, batch, stream(0))
    found = replace(found, weight=objective.weigh(found.mask, alone))
    parts = [objective.loss(policy, chunk, stream(0))[0] for chunk, _ in found.chunks(3, 1)]
    assert len(parts) == 2
    split = torch.autograd.grad(torch.stack(parts).sum(), policy.module.get_parameter("weight"))[0]
    torch.testing.assert_close(split, whole, rtol=1e-6, atol=0)


def test_the_loss_is_trls() -> None:
    pytest.importorskip("trl")
    from trl import RewardTrainer

    from tests.objectives.trl_peer import accelerator

    policy, batch = Scorer(Valued()), rows({"margin": 0.5}, {"margin": 0.0}, {"margin": 2.0}, {"margin": 0.1})
    loss, _, _ = loss_of(BradleyTerry(centre=0.01), batch, policy)
    inputs = policy.adapter.read(None, [row.chosen for row in batch] + [row.rejected for row in batch])
    margins = torch.tensor([row.prompt.meta["margin"] for row in batch], dtype=torch.float64)

    def model(**_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=policy.adapter.score(inputs)[:, None])

    peer: Any = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(center_rewards_coefficient=0.01),
        accelerator=accelerator(),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    given = {"margin": margins, "attention_mask": torch.ones(8, 3)}
    theirs = RewardTrainer.compute_loss(peer, model, given)
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), abs=1e-7)
    mine, other = (torch.autograd.grad(value, policy.module.get_parameter("weight"))[0] for value in (loss, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)


def test_faults_are_said() -> None:
    with pytest.raises(ConfigError) as caught:
        BradleyTerry(tie_share=1.0, centre=-1, label_smoothing=0.5, margin_scale=-1)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "tie_share", "margin_scale", "centre", "label_smoothing",
    ]  # fmt: skip
    policy = Scorer(Valued())
    with pytest.raises(DataError, match="row 1 of the batch: 'margin' is -1; expected the lead of the chosen output"):
        BradleyTerry().collect(policy, rows({}, {"margin": -1}), stream(0))
    with pytest.raises(DataError, match="bradley_terry reads preferences, got Prompt; set data"):
        BradleyTerry().collect(policy, [Prompt("a")], stream(0))
    with pytest.raises(DataError, match="2 prompts but 1 outputs"):
        policy.observe([Prompt("a"), Prompt("b")], ["x"])
    linear: Any = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"needs an adapter that makes scores, and this one \(Linear\) makes latents"):
        Scorer(linear)


def test_sides_of_two_sizes_are_scored_apart() -> None:
    class Bright(ToyAdapter):
        def read(self, prompts: Any, outputs: Any) -> list[Inputs]:
            return [{"value": picture.mean()[None]} for picture in outputs]

        def score(self, inputs: Sequence[Inputs]) -> Tensor:
            return self.module(torch.stack([row["value"] for row in inputs]))[:, 0]

    policy = Scorer(Bright(nn.Linear(1, 1)))
    even = [Preference(Prompt("a"), torch.full((3, 8, 8), 0.1 * i), torch.full((3, 8, 8), 0.5)) for i in range(3)]
    uneven = [replace(row, rejected=torch.full((3, 6, 5), 0.5)) for row in even]
    (one, _, _), (other, _, _) = (loss_of(BradleyTerry(), rows, policy) for rows in (even, uneven))
    torch.testing.assert_close(one, other)


def test_mono_and_stereo_in_one_batch_are_named() -> None:
    sounds = [Audio(torch.zeros(1, channels, 10), 16_000) for channels in (1, 2)]
    with pytest.raises(DataError, match=r"'chosen' holds sound of \[1, 2\] channels; mix it to one number"):
        batch_outputs(sounds, "chosen")
