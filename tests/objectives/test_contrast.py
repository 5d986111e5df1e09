"""Contrastive losses against loops in float64, and the gradient of tied rows however they are split."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.protocols import one_alone
from mmalign.core.setting import Setting
from mmalign.core.types import Prompt
from mmalign.objectives._contrast import contrastive, cosine, hardest_share, ranks_first, triplet
from mmalign.objectives._goals import Goals
from mmalign.objectives._twins import Twins, masks
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.objectives.contrast import Contrast
from mmalign.policies.scorer import Scorer
from tests.objectives.driving import stream
from tests.objectives.featured import Featured, scorer, slope, triples, weighted
from tests.objectives.scorers import Valued


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=stream(seed), dtype=torch.float64)


# the formulas ------------------------------------------------------------------------------------------------------


def test_info_nce_is_cross_entropy_and_its_weights_are_the_softmax() -> None:
    similarity = normal(6, 6).requires_grad_()
    itself, every = torch.eye(6, dtype=torch.bool), torch.ones(6, 6, dtype=torch.bool)
    value = contrastive(similarity, itself, every, 0.2)
    torch.testing.assert_close(
        value, torch.nn.functional.cross_entropy(similarity / 0.2, torch.arange(6), reduction="none")
    )
    (slope,) = torch.autograd.grad(value.sum(), similarity)
    torch.testing.assert_close(slope, ((similarity / 0.2).softmax(1) - itself.double()) / 0.2)  # (p - y) / τ
    sigmoid = contrastive(similarity, itself, every, 0.2, "sigmoid")
    (slope,) = torch.autograd.grad(sigmoid.sum(), similarity)
    torch.testing.assert_close(slope, ((similarity / 0.2).sigmoid() - itself.double()) / 0.2)  # (σ(s) - y) / τ


def test_several_positives_and_left_out_candidates_by_a_loop() -> None:
    similarity, rng = normal(4, 7), stream(3)
    positive = torch.rand(4, 7, generator=rng) < 0.3
    positive[2] = False
    candidate = positive | (torch.rand(4, 7, generator=rng) < 0.6)
    value = contrastive(similarity, positive, candidate, 0.5)
    for i in range(4):
        right = [k for k in range(7) if positive[i, k]]
        total = sum(math.exp(similarity[i, k] / 0.5) for k in range(7) if candidate[i, k])
        want = sum(-math.log(math.exp(similarity[i, p] / 0.5) / total) for p in right) / max(len(right), 1)
        assert float(value[i]) == pytest.approx(want)
    assert float(value[2]) == 0


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.3, 1.0])
def test_a_low_temperature_weighs_the_hardest(temperature: float) -> None:
    negatives = torch.ones(1, 16, dtype=torch.bool)
    similarity = torch.linspace(-0.5, 0.5, 16, dtype=torch.float64)[None]
    scaled = (similarity / temperature).softmax(1)
    found = float(hardest_share(similarity, negatives, temperature))
    assert found == pytest.approx(float(scaled.max())) and 0 < found <= 1
    colder = float(hardest_share(similarity, negatives, temperature / 2))
    assert colder > found
    assert float(hardest_share(similarity, ~negatives, temperature)) == 0


def test_gated_cosines_are_those_of_the_gated_vectors() -> None:
    rows, others, gate = normal(3, 5), normal(4, 5, seed=1), torch.rand(3, 5, generator=stream(2), dtype=torch.float64)
    found = cosine(rows, others, gate)
    for i in range(3):
        want = torch.cosine_similarity((gate[i] * rows[i])[None], gate[i] * others)
        torch.testing.assert_close(found[i], want)
    torch.testing.assert_close(cosine(rows, others), cosine(rows, others, torch.ones(3, 5, dtype=torch.float64)))


def test_triplets_by_a_loop() -> None:
    anchor, positive, far = normal(3, 4), normal(3, 4, seed=1), normal(3, 2, 4, seed=2)
    there = torch.tensor([[True, True], [True, False], [False, False]])
    found = triplet(anchor, positive, far, there, 2.0)
    for i in range(3):
        terms = []
        for k in range(2):
            for one in (anchor[i], positive[i]) if there[i, k] else ():
                near, away = ((anchor[i] - positive[i]) ** 2).sum(), ((one - far[i, k]) ** 2).sum()
                terms.append(max(0.0, float(near - away + 2.0)))
        assert float(found[i]) == pytest.approx(sum(terms) / max(len(terms), 1))


def test_a_tie_is_not_found() -> None:
    similarity = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    first = torch.tensor([[True, False, False]] * 2)
    assert ranks_first(similarity, first, torch.ones(2, 3, dtype=torch.bool)).tolist() == [0, 1]


# the objective -----------------------------------------------------------------------------------------------------


OBJECTIVES: dict[str, Any] = {
    "in the batch": Contrast(temperature=0.3),
    "sigmoid": Contrast(temperature=0.3, loss_type="sigmoid"),
    "own candidates": Contrast(temperature=0.3, in_batch=False),
    "triplets": Contrast(loss_type="triplet", margin=4.0),
    "twins": BradleyTerry(twins=Twins(weight=2.0, dropout=0.4)),
}


def direct(features: Tensor) -> Tensor:
    """The mean InfoNCE of rows (anchor, positive, negative) whose candidates are all positives and negatives."""
    unit = torch.nn.functional.normalize(features, dim=2)
    logits = torch.cat([unit[:, 0] @ unit[:, 1].T, unit[:, 0] @ unit[:, 2].T], 1) / 0.3
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(features)))


def test_the_loss_of_a_batch_and_its_gradient_are_autograds() -> None:
    policy, objective = scorer(), Contrast(temperature=0.3)
    experience = weighted(objective, policy, triples())
    value, found = slope(objective, policy, experience)
    features = torch.stack([policy.features(side) for side in experience.sides.values()], 1)
    want = direct(features)
    assert value == pytest.approx(float(want.detach()))
    wanted = torch.autograd.grad(want, list(policy.module.parameters()))
    torch.testing.assert_close(found, torch.cat([each.flatten() for each in wanted]))
    tied = objective.tie_rows(policy, experience, 2, one_alone, 0)
    metrics = {name: float(v) for name, v in objective.loss(policy, tied, stream(0))[1].items()}
    assert metrics["contrast/loss"] == pytest.approx(value)
    assert 0 <= metrics["contrast/found"] <= 1 and metrics["contrast/hardest"] > 1 / 9


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_does_not_depend_on_the_split(name: str) -> None:
    objective, policy = OBJECTIVES[name], scorer()
    experience = weighted(objective, policy, triples())
    value, whole = slope(objective, policy, experience)
    assert whole.norm() > 0
    for rows in (1, 2, 3):
        again, split = slope(objective, policy, experience, rows)
        assert again == pytest.approx(value)
        torch.testing.assert_close(split, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nor_on_the_number_of_processes(name: str) -> None:
    """Two shares of 2 and 3 rows, each tied by what both hold; the average of their gradients is the whole's."""
    objective, policy = OBJECTIVES[name], scorer()
    held: list[Any] = []

    def hold(mine: Any) -> list[Any]:
        held.append(mine)
        return [mine]

    whole = weighted(objective, policy, triples())
    _, want = slope(objective, policy, whole)
    shares = [replace(part, weight=part.weight * 2) for part in (whole[:2], whole[2:])]  # count / mean count of a rank
    for share in shares:
        objective.tie_rows(policy, share, 1, hold, 0)
    found = [slope(objective, policy, share, 2, lambda _: held, rank)[1] for rank, share in enumerate(shares)]
    torch.testing.assert_close(torch.stack(found).mean(0), want, rtol=1e-9, atol=1e-12)


def test_a_row_of_no_weight_is_nobodys_candidate() -> None:
    objective, policy = Contrast(temperature=0.3), scorer()
    four, five = (weighted(objective, policy, triples(count)) for count in (4, 5))
    five = replace(five, weight=torch.cat([four.weight, torch.zeros(1, dtype=torch.float64)]))
    torch.testing.assert_close(slope(objective, policy, five)[1], slope(objective, policy, four)[1])


def test_rows_that_were_not_tied_are_refused() -> None:
    objective, policy = Contrast(), scorer()
    with pytest.raises(ValueError, match="call `tie_rows` on the whole weighted minibatch before splits"):
        objective.loss(policy, weighted(objective, policy, triples()), stream(0))


def test_alike_rows_are_positives_and_never_negatives() -> None:
    policy = scorer()
    prompts = [Prompt(text, meta={"kind": kind}) for text, kind in zip(["a", "b", "c", "ab"], "xyxy", strict=True)]
    objective = Contrast(positives="partners", alike="kind", temperature=0.5)
    value, _ = slope(objective, policy, weighted(objective, policy, prompts))
    features = policy.features(policy.observe([Prompt("")] * 4, [p.text for p in prompts]))
    cosines = cosine(features, features).detach() / 0.5
    want = [
        -float(cosines[i, j] - cosines[i, [k for k in range(4) if k != i]].logsumexp(0))
        for i, j in enumerate([2, 3, 0, 1])
    ]
    assert value == pytest.approx(sum(want) / 4)
    # With the same anchor twice, the other's positive counts as right too: no row is pushed from what it asks for.
    twice = [replace(row, prompt=Prompt("aab")) for row in triples(2)]
    metrics = Contrast(temperature=0.3)
    tied = metrics.tie_rows(policy, weighted(metrics, policy, twice), 9, one_alone, 0)
    both = policy.features(policy.observe([Prompt("")] * 2, [row.chosen for row in twice])).detach()
    anchor = policy.features(policy.observe([Prompt("")], ["aab"])).detach()
    assert float(tied.tied.seen["contrast/positive"][0]) == pytest.approx(float(cosine(anchor, both).mean()))


def test_lists_of_scores_are_judged_under_their_own_prompt() -> None:
    policy = scorer()
    rows = [
        Prompt("q", meta={"positive": "ab", "wrong": ["cc", "dd"]}),
        Prompt("r", meta={"positive": "b", "wrong": "a"}),
    ]
    objective = Contrast(of="scores", positives="column", negatives="wrong", hard=3, temperature=1.0)
    found = weighted(objective, policy, rows)
    assert (
        found.there.tolist() == [[True, True, False], [True, False, False]] and found.sides["positive"].prompts == rows
    )
    value, gradient = slope(objective, policy, found)
    with torch.no_grad():
        one, two = (
            policy.score(policy.observe([rows[0]] * 3, texts)) for texts in (["ab", "cc", "dd"], ["b", "a", "a"])
        )
    want = -(one.log_softmax(0)[0] + two[:2].log_softmax(0)[0]) / 2
    assert value == pytest.approx(float(want))
    torch.testing.assert_close(slope(objective, policy, found, 1)[1], gradient)


def test_what_is_drawn_of_several_texts() -> None:
    row = Prompt("a", meta={"positive": '["ab", "ba"]', "wrong": ["c", "d", "cd"]})
    objective = Contrast(positives="column", negatives="wrong", hard=2)
    drawn = [objective.collect(scorer(), [row], stream(seed)).sides for seed in range(8)]
    assert {sides["positive"].output[0] for sides in drawn} == {"ab", "ba"}
    assert all(len({sides[f"negative {at}"].output[0] for at in (0, 1)}) == 2 for sides in drawn)


def test_faults_are_said() -> None:
    with pytest.raises(ConfigError) as caught:
        Contrast(temperature=0, margin=-1, positives="partners", loss_type="triplet", gated=True)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["temperature", "margin", "alike", "gated"]
    with pytest.raises(ConfigError, match="negatives: without in_batch, or of scores, a row's candidates are its own"):
        Contrast(positives="column", in_batch=False)
    with pytest.raises(ConfigError, match="loss_type: triplet is of distances between features"):
        Contrast(of="scores", loss_type="triplet")
    with pytest.raises(DataError, match=r"'a': 'positive' holds no text; the row has no positive"):
        Contrast(positives="column").check_data(Prompt("a"))
    with pytest.raises(DataError, match=r"'a': 'wrong' holds '3'; expected a text or a list of texts"):
        Contrast(negatives="wrong").check_data(Prompt("a", meta={"wrong": [3]}))
    with pytest.raises(DataError, match=r"has no 'kind', which its partners share"):
        Contrast(positives="partners", alike="kind").check_data(Prompt("a"))
    with pytest.raises(DataError, match="contrast with positives: chosen reads Preferences, got Prompt"):
        Contrast().collect(scorer(), [Prompt("a")], stream(0))
    setting = Setting("contrast", "weighted_sum", None, Scorer, Valued)
    assert [*Contrast().check(setting)] == [
        "objective.of: features: adapter Valued scores outputs and tells no features (`scored_features`)."
    ]
    assert [*BradleyTerry(twins=Twins()).check(setting)] and not [*BradleyTerry().check(setting)]
    assert not [*Contrast().check(replace(setting, adapter=Featured))]
    assert [*Contrast(gated=True).check(replace(setting, adapter=Featured))]


# terms beside Bradley-Terry ----------------------------------------------------------------------------------------


def test_twins_are_info_nce_under_two_masks_by_a_loop() -> None:
    policy = scorer()
    objective, plain = BradleyTerry(twins=Twins(weight=1.5, dropout=0.3)), BradleyTerry()
    found = weighted(objective, policy, triples())
    value, _ = slope(objective, policy, found)
    base = float(plain.loss(policy, weighted(plain, policy, triples()), stream(0))[0].detach())
    with torch.no_grad():
        sides = torch.stack([policy.features(side) for side in (found.chosen, found.rejected)], 1)
    one, two = ((sides * masks(found.seeds, sides.shape[1:], 0.3, which)).flatten(0, 1) for which in (0, 1))
    logits = cosine(one, two) / 0.05
    want = torch.nn.functional.cross_entropy(logits, torch.arange(len(one)))
    assert value == pytest.approx(base + 1.5 * float(want))
    drawn = masks(torch.arange(400), (6,), 0.3, 0)
    assert float((drawn == 0).float().mean()) == pytest.approx(0.3, abs=0.03) and float(drawn.max()) == pytest.approx(
        1 / 0.7
    )


def test_goals_by_a_loop_and_split() -> None:
    policy: Any = scorer()
    objective = BradleyTerry(goals=Goals(weight=0.5, draws=7))
    found = weighted(objective, policy, triples())
    value, whole = slope(objective, policy, found)
    base = BradleyTerry()
    plain = float(base.loss(policy, weighted(base, policy, triples()), stream(0))[0].detach())
    terms = []
    for row, pair in enumerate(triples()):
        states = []
        for text in (pair.chosen, pair.rejected):
            with torch.no_grad():
                states.append(policy.adapter.scored_states(policy.adapter.read([pair.prompt], [text]))[1][0])
        good, bad = states
        each = []
        for u in found.places[row].tolist() if min(len(good), len(bad)) > 1 else []:
            i = int(u[0] * (len(good) - 1))
            j = i + 1 + int(u[1] * (len(good) - 1 - i))
            k = int(u[2] * (len(bad) - 1))
            k = k + 1 + int(u[3] * (len(bad) - 1 - k))
            near, far = (float(torch.cosine_similarity(good[i], other, dim=0)) for other in (good[j], bad[k]))
            each.append(-math.log(1 / (1 + math.exp(-near))) - math.log(1 - 1 / (1 + math.exp(-far))))
        terms.append(sum(each) / len(each) if each else 0.0)
    assert value == pytest.approx(plain + 0.5 * sum(terms) / 5, abs=1e-6)
    torch.testing.assert_close(slope(objective, policy, found, 2)[1], whole, rtol=1e-6, atol=1e-9)
