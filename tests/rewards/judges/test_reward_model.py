"""A reward model as a reward: its scores, its users, its failures, its place in Python and in `mmalign score`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards.engine.cache import identity
from tests.adapters.language.reward_models import ASKED, SAID, moved, reward_model, scores


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, lm_folder: Callable[..., Path]) -> tuple[Path, Any]:
    """A saved reward model with two users, and its adapter."""
    folder = tmp_path_factory.mktemp("kept")
    adapter = moved(reward_model(lm_folder("llama"), head={"kind": "ideal_point", "users": ["ann", "bo"]}))
    adapter.save(folder)
    return folder, adapter


def written(prompts: list[Prompt] = ASKED, answers: list[str] = SAID) -> Rollout:
    return Rollout(list(prompts), list(answers), torch.arange(len(prompts)))


def test_it_gives_the_models_scores(saved: tuple[Path, Any]) -> None:
    folder, adapter = saved
    reward = mmalign.load_reward("reward_model", model=str(folder), device="cpu", rows=2)
    torch.testing.assert_close(reward(written()).value, scores(adapter), atol=1e-6, rtol=0)
    known = mmalign.load_reward("reward_model", model=str(folder), device="cpu", mean=1.5, std=2.0)
    torch.testing.assert_close(known(written()).value, (scores(adapter) - 1.5) / 2, atol=1e-6, rtol=0)
    assert reward.modalities == {"text"} and identity(reward) != identity(known)


def test_one_users_taste_may_be_asked_for(saved: tuple[Path, Any]) -> None:
    folder, adapter = saved
    prompts = [Prompt(p.text, meta={"user": "ann"}) for p in ASKED]
    bo = mmalign.load_reward("reward_model", model=str(folder), device="cpu", user="bo")
    torch.testing.assert_close(bo(written()).value, bo(written(prompts)).value)
    assert not torch.allclose(bo(written()).value, scores(adapter, prompts))
    with pytest.raises(ConfigError, match="user: 'cy' is none of this model's users: ann, bo"):
        mmalign.load_reward("reward_model", model=str(folder), user="cy")


def test_a_published_classifier_is_one_too(lm_folder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(lm_folder("llama", chat=True), num_labels=1).eval()
    model.save_pretrained(tmp_path)
    words = AutoTokenizer.from_pretrained(lm_folder("llama", chat=True))
    words.save_pretrained(tmp_path)
    values = mmalign.load_reward("reward_model", model=str(tmp_path), device="cpu")(written()).value
    for prompt, answer, value in zip(ASKED, SAID, values, strict=True):
        turns = [{"role": "user", "content": prompt.text}, {"role": "assistant", "content": answer}]
        text = words.apply_chat_template(turns, tokenize=False)
        ids = words(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids).logits[0, 0], value, atol=1e-5, rtol=0)


def test_a_row_that_does_not_fit_is_an_error_of_its_own(saved: tuple[Path, Any]) -> None:
    reward = mmalign.load_reward("reward_model", model=str(saved[0]), device="cpu")
    result = reward(written(answers=["good", "bad " * 100, "a"]))
    assert result.status.tolist() == [0, Status.ERROR, 0] and result.value.isnan().tolist() == [False, True, False]
    assert "longer than the model's context of 64" in result.info[1]
    torch.testing.assert_close(result.value[[0, 2]], scores(saved[1])[[0, 2]], atol=1e-6, rtol=1e-6)


def test_mmalign_score_takes_it(
    saved: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mmalign.cli.main import main

    rows = [{"prompt": p.text, "output": answer} for p, answer in zip(ASKED, SAID, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["score", str(tmp_path / "rows.jsonl"), "--reward", "reward_model", "--set", f"model={saved[0]}"]
    monkeypatch.setattr("sys.argv", ["mmalign", *words, "--set", "device=cpu"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["value"] for line in lines] == pytest.approx(scores(saved[1]).tolist(), abs=1e-5)


def test_without_the_means_to_build_a_model_it_says_what_to_call() -> None:
    from mmalign.rewards import rewards

    with pytest.raises(ValueError, match=r"builds a model of its own; make it with mmalign\.load_reward"):
        rewards.get("reward_model")(model="x", std=0.0)
