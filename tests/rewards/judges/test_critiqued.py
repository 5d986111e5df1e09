"""Critiques before scores: by a real small language model, written once for a row, and read by the inner reward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign.annotators import annotators
from mmalign.annotators._rows import Row
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt, Rollout, Status

PAIR = {"prompt": "two", "chosen": "a star", "rejected": "a red circle", "id": 3}
WORDS: dict[str, Any] = {"name": "length", "low": 100.0, "rise": 100.0}  # a hundredth for each word


def drawing(lm_folder: Callable[..., Path]) -> dict[str, Any]:
    adapter = {"name": "causal_lm", "model": str(lm_folder("llama"))}
    return {"adapter": adapter, "policy": {"name": "tokens", "max_new_tokens": 6}}


def critiqued(lm_folder: Callable[..., Path], **options: Any) -> Any:
    return mmalign.load_reward("critiqued", inner=WORDS, critic=drawing(lm_folder), **options)


def test_the_inner_reward_reads_output_and_critique(lm_folder: Callable[..., Path]) -> None:
    """Its value is the inner reward's of the text that annotator `critique` writes into the pair."""
    spec = {"name": "critique", "generator": drawing(lm_folder)}
    assert "wrote nothing of one side" in str(annotators.build(spec, "critique")([Row.of(PAIR)])[0])
    ((row,),) = annotators.build({**spec, "seed": 3}, "critique")([Row.of(PAIR)])
    assert row["chosen"].startswith("a star\n\nCritique: ") and row["id"] == 3
    reward, prompts = critiqued(lm_folder, seed=3), [Prompt("two"), Prompt("two")]
    value = reward(Rollout.of(prompts, [PAIR["chosen"], PAIR["rejected"]])).value
    plain = mmalign.load_reward(**WORDS)(Rollout.of(prompts, [row["chosen"], row["rejected"]])).value
    assert torch.equal(value, plain) and len(set(plain.tolist())) == 2
    bare = critiqued(lm_folder, template="{output} {critique}", seed=3)(Rollout.of(prompts[:1], ["a star"])).value
    assert float(value[0] - bare) == pytest.approx(0.01, abs=1e-6)  # the word before the critique


def test_a_critique_is_the_rows_own(lm_folder: Callable[..., Path]) -> None:
    """It does not depend on the rows beside it, nor on how many are written at once."""
    prompts, texts = [Prompt(word) for word in ("two", "a red", "blue")], ["a star", "b", "a red circle"]
    at_once = critiqued(lm_folder)(Rollout.of(prompts, texts)).value
    singly = [
        float(critiqued(lm_folder, rows=1)(Rollout.of([p], [t])).value) for p, t in zip(prompts, texts, strict=True)
    ]
    assert at_once.tolist() == singly
    other = critiqued(lm_folder, seed=1)(Rollout.of(prompts, texts)).value
    assert other.tolist() != singly


def test_a_row_that_the_critic_cannot_read_is_an_error_of_its_own(lm_folder: Callable[..., Path]) -> None:
    prompts = [Prompt("two"), Prompt("a " * 500), Prompt("blue")]
    scores = critiqued(lm_folder)(Rollout.of(prompts, ["a star"] * 3))
    assert scores.status.tolist() == [Status.OK, Status.ERROR, Status.OK] and "longer" in scores.info[1]
    alone = critiqued(lm_folder)(Rollout.of(prompts[:1], ["a star"]))
    assert scores.value[0] == alone.value[0] and scores.value[1].isnan()


def test_critics_learn_from_what_is_written_already() -> None:
    row = PAIR | {"chosen_reason": "right ", "rejected_reason": "wrong colour", "image": "a.png"}
    named = {"source": "columns", "chosen": "chosen_reason", "rejected": "rejected_reason"}
    build = lambda **more: annotators.build({"name": "critique", **named, **more}, "critique")([Row.of(row)])  # noqa: E731
    ((pair,),) = build(template="{output} | {critique}")
    assert (pair["chosen"], pair["rejected"]) == ("a star | right", "a red circle | wrong colour")
    ((one, other),) = build(form="critic", instruction="judge {output} for {prompt}")
    assert one == {"image": "a.png", "prompt": "judge a star for two", "target": "right"}
    assert other["target"] == "wrong colour"
    missing = annotators.build({"name": "critique", "source": "columns"}, "critique")([Row.of(row)])
    assert str(missing[0]) == "'chosen_critique' holds no text"


def test_faults_are_told(lm_folder: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"template: leaves the output itself out"):
        critiqued(lm_folder, template="{critique}")
    with pytest.raises(ConfigError, match=r"instruction: .* name \{output\}"):
        critiqued(lm_folder, instruction="what do you think?")
    with pytest.raises(ConfigError, match="'sharpness' judges image, no texts"):
        mmalign.load_reward("critiqued", inner={"name": "sharpness"}, critic=drawing(lm_folder))
    with pytest.raises(ConfigError, match="source: columns reads critiques that are there"):
        annotators.build({"name": "critique", "source": "columns", "generator": drawing(lm_folder)}, "critique")
