"""The density ratio of two checkpoints, on real embedded generators of texts, pictures and sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.adapters import load_adapter
from mmalign.core.errors import CapabilityError, ConfigError
from mmalign.core.types import Prompt, Rollout
from mmalign.rewards.engine.cache import identity
from tests.adapters.language.tiny_lm import write_tiny_lm

SPECS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "image": (
        {"name": "sd3", "model": "assets/scenes_sd3", "max_sequence_length": 1, "text_encoder_3": False},
        {"name": "flow", "noise_level": 0, "num_inference_steps": 2},
    ),
    "audio": (
        {"name": "stable_audio_3", "model": "assets/tunes_sa3", "seconds": 2.048, "logsnr": [-3, 3]},
        {"name": "flow", "noise_level": 0, "num_inference_steps": 2},
    ),
}
PROMPTS = {"image": ["a red circle", "two blue squares"], "audio": ["a fast tune", "a slow tune"]}


def moved_copy(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The adapter's section with weights a little elsewhere."""
    adapter = load_adapter(**spec, train="full", device="cpu")
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight.add_(0.02 * weight.abs().mean() * torch.randn(weight.shape, generator=rng))
    adapter.save(folder)
    return {**spec, "model": str(folder)}


@pytest.fixture(scope="module", params=list(SPECS))
def media(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Rollout]:
    """A strong and a weak reader of pictures or sounds, and four outputs of two prompts."""
    adapter, policy = SPECS[request.param]
    weak = {"adapter": adapter, "policy": policy}
    strong = {"adapter": moved_copy(adapter, tmp_path_factory.mktemp("moved")), "policy": policy}
    reward = mmalign.load_reward("density_ratio", strong=weak, weak=weak)
    prompts = [Prompt(text) for text in PROMPTS[request.param] for _ in range(2)]
    rollout = reward.better.loaded.generate(prompts, torch.Generator().manual_seed(0))
    return strong, weak, Rollout.of(prompts, rollout.output)


def test_the_ratio_of_a_model_to_itself_is_nothing(media: tuple[Any, Any, Rollout]) -> None:
    strong, weak, rollout = media
    same = mmalign.load_reward("density_ratio", strong=weak, weak=weak, draws=2)(rollout)
    assert same.value.tolist() == [0.0] * 4
    there = mmalign.load_reward("density_ratio", strong=strong, weak=weak, draws=2)(rollout).value
    back = mmalign.load_reward("density_ratio", strong=weak, weak=strong, draws=2)(rollout).value
    assert there.abs().min() > 0 and torch.allclose(there, -back, rtol=1e-5)


def test_a_row_is_scored_alike_in_any_company(media: tuple[Any, Any, Rollout]) -> None:
    strong, weak, rollout = media
    reward = mmalign.load_reward("density_ratio", strong=strong, weak=weak, draws=2, rows=3)
    whole = reward(rollout).value
    order = torch.tensor([3, 0, 2])
    assert torch.allclose(reward(rollout[order]).value, whole[order], rtol=1e-3, atol=1e-3)
    assert reward.modalities == {reward.better.policy.modality}


def test_outputs_of_a_prompt_share_their_noise(media: tuple[Any, Any, Rollout]) -> None:
    """The same output twice has the same score; the noise of another seed gives another one."""
    strong, weak, rollout = media
    twice = rollout[torch.tensor([0, 0])]
    reward = mmalign.load_reward("density_ratio", strong=strong, weak=weak, draws=1)
    one, other = reward(twice).value.tolist()
    assert one == pytest.approx(other, rel=1e-4)
    elsewhere = mmalign.load_reward("density_ratio", strong=strong, weak=weak, draws=1, seed=1)
    assert elsewhere(twice).value[0] != one and identity(elsewhere) != identity(reward)


def test_tokens_have_only_of_texts_a_number(media: tuple[Any, Any, Rollout]) -> None:
    _, weak, rollout = media
    with pytest.raises(CapabilityError, match="per: token divides by tokens, and these outputs have none"):
        mmalign.load_reward("density_ratio", strong=weak, weak=weak, per="token")(rollout)


def test_of_texts_it_is_what_transformers_says(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Σ log softmax of plain transformers, with the prefix before the prompt, over the answer and its end."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = [write_tiny_lm(tmp_path / "other", "llama", seed=3), lm_folder("llama")]
    reward = mmalign.load_reward("density_ratio", strong=str(folders[0]), weak=str(folders[1]), prefix="good", rows=1)
    prompts, texts = [Prompt("a red"), Prompt("two")], ["circle", "a blue square"]
    result = reward(Rollout.of(prompts, texts))

    def log_prob(folder: Path, prompt: str, text: str) -> float:
        words, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
        start = words(f"good {prompt}")["input_ids"]
        answer = reward.worse.read([Prompt(prompt)], [text]).trajectory["tokens"][0].tolist()
        logits = model(input_ids=torch.tensor([[*start, *answer]])).logits[0].detach().log_softmax(-1)
        return sum(float(logits[len(start) - 1 + i, token]) for i, token in enumerate(answer))

    wanted = [
        log_prob(folders[0], p.text, text) - log_prob(folders[1], p.text, text)
        for p, text in zip(prompts, texts, strict=True)
    ]
    assert result.value.tolist() == pytest.approx(wanted, abs=1e-4)
    per_token = mmalign.load_reward(
        "density_ratio", strong=str(folders[0]), weak=str(folders[1]), prefix="good", per="token"
    )
    counts = reward.worse.read(prompts, texts).mask.sum(1)
    assert torch.allclose(per_token(Rollout.of(prompts, texts)).value, result.value / counts, atol=1e-5)


def test_a_run_directory_is_a_reader(tmp_path: Path) -> None:
    """What a run trained, LoRA and all, against its start: 0 at step 0 of training is not what it reads."""
    changes = ["trainer.steps=2", "trainer.prompts_per_step=4", "evaluation.count=0", "adapter.train=lora"]
    mmalign.train("configs/scenes/rewriter_imitate.yaml", changes, out=tmp_path / "run")
    reward = mmalign.load_reward("density_ratio", strong=str(tmp_path / "run"), weak="assets/scenes_rewriter")
    rollout = Rollout.of(["four discs", "four discs"], ["four circles", "four red stars"])
    value = reward(rollout).value
    assert value.abs().min() > 0
    for place in (f"{tmp_path / 'run'}@2", str(next((tmp_path / "run/checkpoints").glob("*2/adapter")))):
        again = mmalign.load_reward("density_ratio", strong=place, weak="assets/scenes_rewriter")
        assert torch.equal(again(rollout).value, value)
    trained: Any = mmalign.load_run(tmp_path / "run").parts.policy
    read = trained.observe([Prompt("four discs")], ["four circles"])
    with torch.no_grad():
        after = trained.log_prob(read, {}).sum()
        with trained.reference():
            before = trained.log_prob(read, {}).sum()
    assert float(value[0]) == pytest.approx(float(after - before), abs=1e-4)


def test_what_is_no_reader_is_refused(lm_folder: Callable[..., Path]) -> None:
    text, (adapter, policy) = str(lm_folder("llama")), SPECS["image"]
    with pytest.raises(ConfigError, match="weak: makes image, and strong makes text"):
        mmalign.load_reward("density_ratio", strong=text, weak={"adapter": adapter, "policy": policy})
    with pytest.raises(ConfigError, match="strong: needs adapter and policy, got adapter"):
        mmalign.load_reward("density_ratio", strong={"adapter": adapter}, weak=text)
    with pytest.raises(ConfigError, match="'few_step' gives outputs no log-prob"):
        mmalign.load_reward("density_ratio", strong={"adapter": adapter, "policy": {"name": "few_step"}}, weak=text)
    with pytest.raises(ConfigError, match="is built from a run file"):
        from mmalign.rewards import rewards

        rewards.get("density_ratio")(strong=text, weak=text)
