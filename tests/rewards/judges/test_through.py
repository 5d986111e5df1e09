"""Texts judged by what a frozen generator makes of them: the real embedded generator, the exact verifier."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmalign.adapters import load_adapter
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import rewards
from mmalign.rewards.engine.cache import identity
from tests.rewards.every_reward import GENERATOR

ASKED = [
    Prompt("could you draw me one red star please", meta={"request": "a red star"}),
    Prompt("i want a green square", meta={"request": "a green square"}),
]


def through(**options: Any) -> Any:
    spec = {"name": "through", "generator": GENERATOR, "inner": {"name": "verifier", "graded": True}, **options}
    return rewards.build(spec, "rewards.shown")


def written(prompts: list[Prompt], texts: list[str]) -> Rollout:
    return Rollout(prompts=prompts, output=texts, group=torch.arange(len(prompts)))


@pytest.fixture(scope="module")
def shown() -> Any:
    return through(images=4)


def test_a_rewrite_is_worth_what_the_generator_makes_of_it(shown: Any) -> None:
    prompts = [prompt for prompt in ASKED for _ in range(2)]
    texts = ["a red star", "four black circles", "a green square", "three blue crosses"]
    result = shown(written(prompts, texts))
    right, mismatched, green, blue = result.value.tolist()
    torch.testing.assert_close(result.parts["graded"], result.value)  # of four pictures each, as the value
    assert (result.parts["strict"] <= result.value).all()
    assert right > mismatched + 0.3 and green > blue + 0.3
    assert shown.range == (0.0, 1.0) and shown.makes == "image"


def test_a_score_depends_on_prompt_and_text_alone(shown: Any) -> None:
    alone = shown(written(ASKED[1:], ["a green square"])).value
    beside = shown(written(ASKED, ["two red stars", "a green square"])).value
    torch.testing.assert_close(alone[0], beside[1], atol=1e-6, rtol=0)


def test_rewrites_of_one_prompt_share_their_noise() -> None:
    made = through(images=4).made([ASKED[0], ASKED[0], ASKED[1]], ["a red star"] * 3).output.view(3, 4, -1)
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=0)
    assert (made[0] - made[2]).abs().max() > 0.1
    assert (made[0, 0] - made[0, 1]).abs().max() > 0.1  # the images of one text do not


def test_an_empty_text_is_the_writers_fault_and_others_pass_on_their_status(shown: Any) -> None:
    strange = [replace(ASKED[0], meta={"request": "a melancholy Tuesday"}), ASKED[0]]
    scores = shown(written(strange, ["a red star", "  "]))
    assert scores.status.tolist() == [Status.NOT_APPLICABLE, Status.PARSE_FAIL]
    assert math.isnan(scores.value[0]) and scores.value[1] == 0
    assert "melancholy" in scores.info[0] and scores.info[1] == "the answer is empty"


def test_the_generator_is_sent_the_answer_and_never_the_thoughts(shown: Any) -> None:
    """Each text's worth, parts and pictures are those of the rewrite alone; what cannot be read is the writer's."""
    plain = shown(written(ASKED[:1], ["a red star"]))
    texts = [
        "<think>four black circles, surely</think>a red star",
        "<think>no</think><answer>a red star</answer> I hope",
        "<think>it never ends: a red star",
        "<answer>a red star</answer><answer>a red star</answer>",
    ]
    scores = through(images=4, where="auto")(written(ASKED[:1] * 4, texts))
    assert scores.status.tolist() == [Status.OK, Status.OK, Status.PARSE_FAIL, Status.PARSE_FAIL]
    torch.testing.assert_close(scores.value, torch.stack([plain.value[0]] * 2 + [torch.tensor(0.0)] * 2))
    assert through(where="answer")(written(ASKED[:1], ["a red star"])).status.tolist() == [Status.PARSE_FAIL]
    whole = shown(written(ASKED[:1], texts[:1]))
    torch.testing.assert_close(whole.value, plain.value)  # by default too nothing before </think> is sent


def test_the_cache_knows_generator_and_judge() -> None:
    names = [identity(through(**more)) for more in ({}, {}, {"images": 2}, {"inner": {"name": "sharpness"}})]
    assert names[0] == names[1] and len(set(names)) == 3 and " object at " not in str(names[0])


def test_every_fault_of_the_run_file_is_told() -> None:
    with pytest.raises(ConfigError, match=r"images: must be at least 1 \(got 0\)\n.*rows: must be at least 1\."):
        through(images=0, rows=0)
    with pytest.raises(ConfigError, match="generator: needs adapter and policy, got adapter"):
        through(generator={"adapter": GENERATOR["adapter"]})
    with pytest.raises(ConfigError, match="judges sets, not rows"):
        through(inner={"name": "vendi", "encoder": "assets/scenes_clip"})
    with pytest.raises(CapabilityError, match="inner: judges text, but the generator makes image"):
        through(inner={"name": "bleu"})
    with pytest.raises(ConfigError, match=r"rewards.shown.inner.name: no reward is called 'verifyer'. Did you mean"):
        through(inner={"name": "verifyer"})


def test_the_generator_may_be_one_that_a_lora_tuned(tmp_path: Path) -> None:
    spec: dict[str, Any] = {**GENERATOR["adapter"], "device": "cpu", "lora": {"rank": 2}}
    tuned = load_adapter(spec.pop("name"), **spec)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in tuned.trainable().values():
            weight += 0.1 * torch.randn(weight.shape, generator=rng)
    tuned.save(tmp_path / "lora")
    adapter = {**GENERATOR["adapter"], "train": "frozen", "start_lora": str(tmp_path / "lora")}
    plain, shown = through(), through(generator={**GENERATOR, "adapter": adapter})
    made, other = (each.made(ASKED, ["a red star", "a green square"]).output for each in (plain, shown))
    assert (made - other).abs().max() > 0.05
    assert not shown.adapter.trainable()
    names = {identity(plain), identity(shown)}
    weaker = {**adapter, "start_lora": {"path": str(tmp_path / "lora"), "weight": 0.5}}
    names.add(identity(through(generator={**GENERATOR, "adapter": weaker})))
    file = next((tmp_path / "lora").glob("*.safetensors"))
    tensors = {key: value + 1 for key, value in load_file(file).items()}
    save_file(tensors, file)
    names.add(identity(through(generator={**GENERATOR, "adapter": adapter})))
    assert len(names) == 4  # the cache tells them apart, by what the file holds
