"""What the watch on a rollout sees, whatever the kind of numbers and however they lie in memory."""

from __future__ import annotations

import pytest
import torch

from mmalign.core.errors import ScoreError
from mmalign.core.types import Audio, Prompt, Rollout
from mmalign.rewards.engine.call import Shield

KINDS = [torch.uint8, torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


def rollout(output, trajectory=None, rows=2):
    return Rollout([Prompt("a")] * rows, output, torch.zeros(rows, dtype=torch.long), trajectory or {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3, 5, 7), (2,), (2, 0)])
def test_one_value_that_numpy_writes_is_seen_in_every_kind_of_numbers(kind, shape):
    latents = torch.zeros(shape).to(kind)
    made = rollout(["a", "b"], {"latents": latents})
    shield = Shield(made)
    shield.check("still")
    if latents.numel():
        latents.data.view(-1)[-1] = 1  # `.data` counts no writes, as NumPy does not
        with pytest.raises(ScoreError, match="reward 'one' wrote into what it was given"):
            shield.check("one")


@pytest.mark.parametrize("lie", ["channels last", "cut", "turned", "repeated"])
def test_pictures_may_lie_anyhow(lie):
    whole = torch.zeros(3, 3, 6, 5)
    pictures = {
        "channels last": whole[:2].to(memory_format=torch.channels_last),
        "cut": whole[1:, :, 1:, 1:],
        "turned": whole[:2].transpose(2, 3),
        "repeated": torch.zeros(1, 3, 6, 5).expand(2, 3, 6, 5),
    }[lie]
    shield = Shield(rollout(pictures))
    shield.check("still")
    pictures.data[1, 2, 3, 3] = 1e-30
    with pytest.raises(ScoreError):
        shield.check("one")


def test_sounds_are_seen_and_of_a_long_trajectory_what_is_spread_over_it():
    sound = Audio(torch.zeros(2, 1, 9), 100)
    latents = torch.zeros(2, 200_001)
    shield = Shield(rollout(sound, {"latents": latents}))
    shield.check("still")
    latents.data[1, :30_000] += 1
    with pytest.raises(ScoreError):
        shield.check("latents")
    shield = Shield(rollout(sound))
    sound.samples.data[0, 0, 4] = 1
    with pytest.raises(ScoreError):
        shield.check("sound")


def test_rows_of_one_prompt_are_shown_one_prompt_and_facts_are_copies():
    facts = {"boxes": [[1, 2]], "answer": "x", "more": {"a": [1]}}
    first, second = Prompt("a", {}, facts, "f:1"), Prompt("b", {}, facts)
    shown = Shield(Rollout([first, first, second], ["x", "y", "z"], torch.tensor([0, 0, 1]))).shown
    assert shown.prompts == [first, first, second] and shown.prompts[0] is shown.prompts[1] is not first
    assert shown.prompts[0].place == "f:1"
    for prompt in shown.prompts:
        prompt.meta["boxes"][0][0] = 9
        prompt.meta["more"]["a"].append(2)
    assert facts == {"boxes": [[1, 2]], "answer": "x", "more": {"a": [1]}}
