"""A head on the embedded CLIP: what it saves comes back, the encoder stays, gates and scores train alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mmalign.adapters import adapters
from mmalign.core.errors import CheckpointError, ConfigError, DataError
from mmalign.core.protocols import Adapter, FeatureAdapter, GatedPolicy, StateAdapter
from mmalign.core.types import Preference, Prompt
from mmalign.objectives.bradley_terry import BradleyTerry
from mmalign.objectives.contrast import Contrast
from mmalign.policies.scorer import Scorer
from tests.objectives.driving import stream
from tests.objectives.featured import slope, weighted

KINDS = ["red circle", "red square", "blue circle"]
GATE = {"columns": ["kind", "other"], "kinds": KINDS}


def embedder(**options: Any) -> Any:
    named = {"name": "embedder", "encoder": "assets/scenes_clip", "judges": "text", "width": 8, "device": "cpu"}
    return adapters.build({**named, **options}, "adapter").load()


def pairs() -> list[Preference]:
    meta = [
        {"kind": one, "other": two} for one, two in [(KINDS[0], KINDS[1]), (KINDS[2], KINDS[0]), (KINDS[0], KINDS[0])]
    ]
    texts = [("a red circle", "a red square", "two stars"), ("a blue circle", "a red circle", "a cross")]
    texts.append(("one red circle", "a red circle", "three blue squares"))
    return [Preference(Prompt(a, meta=m), p, n) for (a, p, n), m in zip(texts, meta, strict=True)]


def test_what_it_saves_comes_back(tmp_path: Path) -> None:
    adapter = embedder(hidden=12, gate=GATE)
    seen = cast(object, adapter)
    assert isinstance(seen, Adapter) and isinstance(seen, FeatureAdapter) and not isinstance(seen, StateAdapter)
    inputs = adapter.read([Prompt("x")] * 2, ["a red circle", "two stars"])
    score, features = adapter.scored_features(inputs)
    torch.testing.assert_close(adapter.network.score(features)[:, 0], score)
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight.add_(0.1)
        moved = adapter.scored_features(inputs)[1]
        with adapter.reference():
            torch.testing.assert_close(adapter.scored_features(inputs)[1], features)
    adapter.save(tmp_path)
    again = embedder(start=str(tmp_path), train="score")
    assert (again.hidden, again.gate.kinds) == (12, KINDS)
    torch.testing.assert_close(again.scored_features(inputs)[1], moved)
    assert set(again.trainable()) == {"score.weight", "score.bias"}
    other = embedder(hidden=12, gate=GATE, seed=3)
    other.restore(tmp_path)
    torch.testing.assert_close(other.scored_features(inputs)[1], moved)
    with pytest.raises(CheckpointError, match="keys this model does not have"):
        embedder().restore(tmp_path)


def test_a_gated_contrast_trains_gates_and_features_in_any_split() -> None:
    policy: Any = Scorer(embedder(gate=GATE))
    objective = Contrast(gated=True, temperature=0.2)
    assert isinstance(cast(object, policy), GatedPolicy)
    gates = policy.gates([row.prompt for row in pairs()])
    assert gates.shape == (3, 8) and bool((gates == 0.5).all())
    torch.nn.init.normal_(policy.adapter.network.opened.weight, generator=stream(0))
    one, two = (
        policy.gates([Prompt("", meta=dict(zip(GATE["columns"], kinds, strict=True)))])
        for kinds in (KINDS[:2], KINDS[1::-1])
    )
    torch.testing.assert_close(one, two)  # a pair has no order
    experience = weighted(objective, policy, pairs())
    value, whole = slope(objective, policy, experience)
    assert policy.adapter.network.opened.weight.grad.norm() > 0
    again, split = slope(objective, policy, experience, 1)
    assert again == pytest.approx(value)
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-6)


def test_few_comparisons_fit_the_score_alone() -> None:
    policy = Scorer(embedder(train="score"))
    objective = BradleyTerry()
    adam = torch.optim.Adam(policy.adapter.trainable().values(), lr=0.1)
    before = policy.features(policy.observe([Prompt("")], ["a red circle"])).detach()
    found = weighted(objective, policy, pairs())
    losses = []
    for _ in range(30):
        adam.zero_grad()
        loss, _ = objective.loss(policy, found, stream(0))
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    torch.testing.assert_close(policy.features(policy.observe([Prompt("")], ["a red circle"])).detach(), before)


def test_faults_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="judges: audio, but this encoder embeds image and text"):
        embedder(judges="audio")
    with pytest.raises(ConfigError, match=r"gate\.kinds: name two kinds at least"):
        embedder(gate={"kinds": ["one"]})
    with pytest.raises(CheckpointError, match="is no run of adapter embedder, and no folder that one saved"):
        embedder(start=str(tmp_path))
    with pytest.raises(DataError, match=r"'kind' is 'green'; gate\.kinds has red circle, red square, blue circle"):
        embedder(gate=GATE).gates([Prompt("", meta={"kind": "green", "other": KINDS[0]})])
