from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.types import Audio, Prompt, Status
from mmalign.objectives import objectives
from mmalign.objectives._pairs import PreferenceOptions, add_reference_terms
from mmalign.objectives._rollouts import batch_outputs
from mmalign.objectives.dpo import DPO
from tests.objectives.driving import Fixed, accumulate, collect, gradient, learn, moved, outputs, preferences, stream
from tests.objectives.gaussian_policy import GaussianPolicy
from tests.toys import NearPoint, prompts

LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss_type": "sigmoid", "label_smoothing": 0.05},
    "ipo": {"loss_type": "ipo", "draws": 4},
    "hinge": {"loss_type": "hinge"},
    "kto": {"loss_type": "kto"},
    "winner": {"winner_weight": 0.4},
}

MORE: dict[str, dict[str, Any]] = {
    "robust": {"loss_type": "robust", "label_smoothing": 0.1},
    "exo_pair": {"loss_type": "exo_pair", "label_smoothing": 0.01},
    "nca_pair": {"loss_type": "nca_pair"},
    "bco_pair": {"loss_type": "bco_pair"},
    "sppo_hard": {"loss_type": "sppo_hard", "draws": 2},
    "apo_zero": {"loss_type": "apo_zero"},
    "mixture": {"also": {"bco_pair": 0.25}, "winner_weight": 0.1, "winner_per": "batch_token"},
    "without reference": {"reference": False, "margin": 0.5},
    "mismatched": {"loss_type": "kto", "anchor": "mismatched", "desirable": 2.0},
}


@pytest.mark.parametrize("noisy", [False, True], ids=["exact", "noisy"])
@pytest.mark.parametrize("options", LOSSES.values(), ids=LOSSES.keys())
def test_offline_learns(options: dict[str, Any], noisy: bool) -> None:
    policy, batch = GaussianPolicy(noisy=noisy), preferences()
    asked = [p.prompt for p in batch]
    objective = DPO(beta=0.5, **options)
    along = torch.tensor([1.0, -1.0])
    before = outputs(policy, asked) @ along
    learn(policy, objective, batch, steps=20, lr=0.05)
    assert (outputs(policy, asked) @ along).mean() > before.mean() + 0.5
    assert accumulate(policy, objective, collect(policy, objective, batch))["margin/accuracy"] > 0.9


@pytest.mark.parametrize("options", MORE.values(), ids=MORE.keys())
def test_further_losses_learn_and_split(options: dict[str, Any]) -> None:
    batch, objective = preferences(7), DPO(beta=0.7, **options)
    policy = moved(GaussianPolicy(noisy=True, double=True))
    experience = collect(policy, objective, batch)
    whole = gradient(policy, objective, experience)
    assert whole.norm() > 1e-3
    for rows in (1, 3):
        assert (gradient(policy, objective, experience, rows) - whole).norm() <= 1e-10 * whole.norm()
    policy = GaussianPolicy()
    learn(policy, objective, batch, steps=20, lr=0.05)
    assert accumulate(policy, objective, collect(policy, objective, batch))["margin/accuracy"] > 0.9


def test_lengths_are_those_of_tokens() -> None:
    with pytest.raises(CapabilityError, match="length_normalised: divides by tokens, and these outputs have none"):
        collect(GaussianPolicy(noisy=True), DPO(length_normalised=True), preferences())


@pytest.mark.parametrize(
    ("online", "loss"), [("best_worst", "sigmoid"), ("all_pairs", "sigmoid"), ("best_worst", "ipo")]
)
def test_online_learns(loss: str, online: str) -> None:
    policy, batch = GaussianPolicy(noisy=True), prompts(3)
    objective = DPO(NearPoint(), online=online, group_size=4, beta=0.2, **LOSSES[loss])  # type: ignore[arg-type]
    before = (outputs(policy, batch) - torch.tensor([1.0, -1.0])).square().sum(1).mean()
    learn(policy, objective, batch, steps=25, lr=0.1)
    after = (outputs(policy, batch) - torch.tensor([1.0, -1.0])).square().sum(1).mean()
    assert after < 0.6 * before


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("options", LOSSES.values(), ids=LOSSES.keys())
def test_gradient_is_the_same_for_any_split(options: dict[str, Any], double: bool) -> None:
    policy = moved(GaussianPolicy(noisy=True, double=double))  # away from its reference, so KTO's anchor is not 0
    objective = DPO(beta=0.7, **options)
    experience = collect(policy, objective, preferences(7))
    whole = gradient(policy, objective, experience)
    tolerance = 1e-10 if double else 1e-5
    assert whole.norm() > 1e-3
    for rows in (1, 3, 5):
        assert (gradient(policy, objective, experience, rows) - whole).norm() <= tolerance * whole.norm()
    shuffled = experience[torch.randperm(7, generator=stream())]
    assert (gradient(policy, objective, shuffled, 2) - whole).norm() <= tolerance * whole.norm()


def test_loss_is_what_numpy_says() -> None:
    """β·margin from the closed-form Gaussian densities, in numpy; weights 1/B; smoothing 0.1."""
    policy, batch = GaussianPolicy(double=True), preferences(5)
    objective = DPO(beta=0.3, label_smoothing=0.1)
    experience = collect(policy, objective, batch)
    moved(policy)
    experience.weight = objective.weigh(experience.mask, lambda n: n)
    loss, metrics = objective.loss(policy, experience, stream())

    def logp(weights: dict[str, np.ndarray], x: np.ndarray, length: int) -> float:
        steps = 1 + length % 3
        mean = (weights["mean"] + weights["tilt"] * length / 4)[:steps].sum(0)
        variance = (np.linspace(0.6, 0.3, 3) ** 2)[:steps].sum()
        return float(-((x - mean) ** 2).sum() / (2 * variance) - np.log(2 * np.pi * variance))

    now = {k: v.detach().numpy() for k, v in policy.module.named_parameters()}
    then = {k: v.numpy() for k, v in policy.start.items()}
    margins = []
    for row in batch:
        n = len(row.prompt.text)
        good, bad = row.chosen.double().numpy().ravel(), row.rejected.double().numpy().ravel()
        margins.append(logp(now, good, n) - logp(then, good, n) - logp(now, bad, n) + logp(then, bad, n))
    z = 0.3 * np.array(margins)
    want = np.mean(0.9 * np.log1p(np.exp(-z)) + 0.1 * np.log1p(np.exp(z)))
    assert loss.item() == pytest.approx(want, rel=1e-6)
    assert float(metrics["margin/mean"]) == pytest.approx(np.mean(margins), rel=1e-5)
    assert float(metrics["margin/accuracy"]) == pytest.approx(np.mean(np.array(margins) > 0))


def test_mean_unit_divides_by_the_event_size() -> None:
    policy = moved(GaussianPolicy(noisy=True, double=True))
    mean, total = DPO(beta=3.0, beta_unit="mean"), DPO(beta=1.5, beta_unit="sum")
    experience = collect(policy, mean, preferences())
    assert torch.equal(gradient(policy, mean, experience), gradient(policy, total, experience))


@pytest.mark.parametrize("unit", ["sum", "mean"])
def test_the_winner_term_is_the_chosen_outputs_own_log_prob(unit: Any) -> None:
    policy = moved(GaussianPolicy(noisy=True, double=True))
    plain, crpo = DPO(beta_unit=unit), DPO(beta_unit=unit, winner_weight=2.0)
    experience = collect(policy, plain, preferences())
    experience.weight = plain.weigh(experience.mask, lambda n: n)
    added = crpo.loss(policy, experience, stream())[0] - plain.loss(policy, experience, stream())[0]
    chosen = policy.log_prob(experience.chosen, experience.probe).sum(1).mean()
    assert torch.allclose(added, -2 * chosen / (policy.event_size if unit == "mean" else 1))


def test_before_the_first_update_everything_is_zero() -> None:
    policy = GaussianPolicy(noisy=True)
    for options in LOSSES.values():
        objective = DPO(**options)
        experience = collect(policy, objective, preferences())
        metrics = accumulate(policy, objective, experience)
        assert metrics["margin/mean"] == 0 and metrics["margin/accuracy"] == 0.5
        assert metrics["fit/chosen"] == metrics["fit/reference_chosen"]
        assert experience.anchor is None or experience.anchor.abs().max() == 0


def test_the_shared_probe_removes_most_of_the_noise() -> None:
    """Policy and reference on one draw: the log-ratio varies far less than either term."""
    policy = moved(GaussianPolicy(noisy=True), 0.02)
    pairs = collect(policy, DPO(), preferences(64))
    with torch.no_grad():
        term = policy.log_prob(pairs.chosen, pairs.probe).sum(1)
        other = policy.log_prob(pairs.chosen, policy.probe(pairs.chosen, stream(5))).sum(1)
    assert (term - pairs.ref_chosen.sum(1)).std() < 0.3 * (other - pairs.ref_chosen.sum(1)).std()


def test_kto_anchor_by_hand() -> None:
    policy = moved(GaussianPolicy(double=True), 0.3)
    pairs = collect(policy, DPO(loss_type="kto"), preferences(6))
    with torch.no_grad():
        ratios = [policy.log_prob(side, {}) for side in (pairs.chosen, pairs.rejected)]
        with policy.reference():
            ratios = [r - policy.log_prob(s, {}) for r, s in zip(ratios, (pairs.chosen, pairs.rejected), strict=True)]
    assert torch.allclose(pairs.anchor, torch.cat(ratios).mean().clamp(min=0).expand(6))


def test_best_worst_and_ties() -> None:
    ok, bad, nan = Status.OK, Status.ERROR, float("nan")
    values = [1.0, 3.0, 2.0, 5.0, 5.0, 5.0, nan, 4.0, nan, nan, 1.0, 2.0]
    status = [ok] * 6 + [bad, ok, bad, bad, ok, ok]
    objective = DPO(Fixed(values, status), online="best_worst", group_size=3)
    pairs = collect(GaussianPolicy(), objective, prompts(4))
    assert pairs.mask.tolist() == [True, False, False, True]
    assert pairs.chosen.group.tolist()[0] == 0 and pairs.gap.tolist() == [2, 0, 0, 1]
    policy = GaussianPolicy()
    made = collect(policy, objective, prompts(4))
    sampled = policy.sample([p for p in prompts(4) for _ in range(3)], stream())
    assert torch.equal(made.chosen.output[0], sampled.output[1])
    assert torch.equal(made.rejected.output[0], sampled.output[0])
    assert torch.equal(made.chosen.output[3], sampled.output[11])
    assert accumulate(policy, objective, made)["pairs/skipped"] == 0.5


def test_all_pairs_are_every_ordered_pair_with_fixed_count() -> None:
    objective = DPO(Fixed([1.0, 3.0, 3.0, 0.0, 0.0, 0.0]), online="all_pairs", group_size=3)
    pairs = collect(GaussianPolicy(), objective, prompts(2))
    assert len(pairs) == 6 and pairs.mask.tolist() == [True, True, False, False, False, False]
    assert pairs.gap.tolist() == [2, 2, 0, 0, 0, 0]
    assert torch.equal(pairs.chosen.group, pairs.rejected.group)


def test_skipped_pairs_change_nothing() -> None:
    policy = GaussianPolicy(noisy=True, double=True)
    objective = DPO(Fixed([1.0, 0.0, 2.0, 2.0]), online="best_worst", group_size=2, loss_type="kto")
    pairs = collect(policy, objective, prompts(2))
    moved(policy)
    got = gradient(policy, objective, pairs)
    pairs.chosen.trajectory["x0"][1] += 100
    assert torch.equal(gradient(policy, objective, pairs), got)
    assert torch.allclose(gradient(policy, objective, pairs[:1]), got, rtol=1e-12)


def test_soft_labels_come_from_the_data() -> None:
    pairs = collect(GaussianPolicy(), DPO(), preferences(3, label=0.25))
    assert pairs.label.tolist() == [0.25] * 3
    assert collect(GaussianPolicy(), DPO(), preferences(3)).label is None
    with pytest.raises(DataError, match=r"row 0 of the batch: meta.label is 7; expected P\(chosen is better\)"):
        collect(GaussianPolicy(), DPO(), preferences(2, label=7))


def test_columns_of_text_are_numbers_where_they_read_as_ones() -> None:
    """As CSV files have them."""
    asked = [Prompt("x", meta={"label": said}) for said in ("0.25", "")]
    told = [replace(p, prompt=prompt) for p, prompt in zip(preferences(2), asked, strict=True)]
    assert collect(GaussianPolicy(), DPO(), told).label.tolist() == [0.25, 1]
    with pytest.raises(DataError, match=r"row 1 of the batch: meta.label is 'nan'"):
        collect(GaussianPolicy(), DPO(), [told[0], replace(told[1], prompt=Prompt("x", meta={"label": "nan"}))])


def test_accuracy_is_that_of_the_labels() -> None:
    """With label 0 the rejected side is the better one."""
    policy = moved(GaussianPolicy())
    right = accumulate(policy, DPO(), collect(policy, DPO(), preferences()))["margin/accuracy"]
    wrong = accumulate(policy, DPO(), collect(policy, DPO(), preferences(label=0.0)))["margin/accuracy"]
    assert 0 <= float(right) < 0.5 or 0.5 < float(right) <= 1
    assert float(wrong) == pytest.approx(1 - float(right))


def test_mismatched_prompts_may_differ_in_their_pictures_alone() -> None:
    def anchor(pictures: list[torch.Tensor]) -> float:
        asked = [Prompt("What is this?", media={"image": picture}) for picture in pictures]
        batch = [replace(p, prompt=q) for p, q in zip(preferences(len(asked)), asked, strict=True)]
        policy = GaussianPolicy()
        policy.start = {name: value + 10 for name, value in policy.start.items()}  # all outputs are far likelier now
        return float(collect(policy, DPO(loss_type="kto", anchor="mismatched"), batch).anchor[0])

    one, other = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    assert anchor([one, other]) > 0 and anchor([one, one]) == 0


def test_ipo_wants_two_halves() -> None:
    with pytest.raises(ConfigError, match=r"draws: 1 is odd, and loss_type ipo squares a noisy estimate.*draws: 2"):
        collect(GaussianPolicy(noisy=True), DPO(loss_type="ipo"), preferences())
    collect(GaussianPolicy(), DPO(loss_type="ipo"), preferences())  # exact log-probs need no draws


def test_reference_rows_do_not_matter() -> None:
    policy = moved(GaussianPolicy(noisy=True))
    made = [
        add_reference_terms(
            policy,
            collect(policy, DPO(), preferences(7)),
            PreferenceOptions(loss_type="kto", reference_rows=rows),
            stream(),
        )
        for rows in (1, 7)
    ]
    assert torch.allclose(made[0].ref_chosen, made[1].ref_chosen) and torch.allclose(made[0].anchor, made[1].anchor)


def test_outputs_that_do_not_batch_are_named() -> None:
    with pytest.raises(DataError, match=r"'chosen' holds images of 2 sizes \(\[\(3, 4, 4\), \(3, 8, 8\)\]\)"):
        batch_outputs([torch.zeros(3, 8, 8), torch.zeros(3, 4, 4)], "chosen")
    with pytest.raises(DataError, match="'rejected' mixes Tensor and str"):
        batch_outputs([torch.zeros(3, 8, 8), "a"], "rejected")
    with pytest.raises(DataError, match=r"sound at \[8000, 16000\] Hz"):
        batch_outputs([Audio(torch.zeros(1, 1, 4), 16000), Audio(torch.zeros(1, 1, 4), 8000)], "chosen")
    sound = batch_outputs([Audio(torch.ones(1, 1, 2), 8000), Audio(torch.ones(1, 1, 4), 8000)], "chosen")
    assert sound.samples[:, 0].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert sound.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert batch_outputs(["a", "b"], "chosen") == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"online": "best_worst"}, "online: best_worst ranks samples by a reward, and there is none"),
        ({"beta": 0.0, "label_smoothing": 0.7}, r"(?s)beta: 0.0 must be positive.*label_smoothing: 0.7 must lie"),
        ({"winner_weight": -1.0}, r"objective.winner_weight: must be at least 0 \(got -1.0\)"),
        ({"draws": 0}, r"objective.draws: must be at least 1 \(got 0\)"),
        ({"loss_type": "exo_pair"}, "label_smoothing: exo_pair compares with a smoothed label; set it above 0"),
        ({"loss_type": "orpo"}, "orpo is of mean log-probs; set reference: false and length_normalised: true"),
        ({"loss_type": "kto", "reference": False}, "kto judges against the reference; set reference: true"),
        ({"loss_type": "kto", "length_normalised": True}, "kto's reference point is of whole outputs; set it to false"),
        ({"desirable": 2.0, "anchor": "mismatched"}, r"(?s)desirable, undesirable: are.*anchor: mismatched is"),
        ({"loss_type": "kto", "margin": 1.0}, "margin: only sigmoid, robust, hinge, ipo, exo_pair, discopop have one"),
        ({"winner_per": "token"}, "winner_per: token divides a term that winner_weight: 0 leaves out"),
        ({"also": {"sigmoid": 1.0}}, "also: names sigmoid, which is the loss_type already"),
        ({"loss_type": "sigmoyd"}, "objective.loss_type: must be 'sigmoid', 'robust', 'hinge', 'ipo'"),
    ],
)
def test_faulty_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objectives.build({"name": "dpo", **options}, "objective")


def test_prompts_are_not_preferences() -> None:
    with pytest.raises(DataError, match="reads preferences, got Prompt; set online: best_worst"):
        collect(GaussianPolicy(), DPO(), prompts(2))
