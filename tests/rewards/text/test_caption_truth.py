"""The truth about captions of scenes: what is shared with the fullest description, and what cannot be judged."""

import numpy as np
import pytest
import torch

from mmalign.core.errors import CapabilityError
from mmalign.core.types import Prompt, Rollout, Scores, Status
from mmalign.data.sources.scenes import Scenes
from mmalign.miniworld.scenes import Scene, Thing, render
from mmalign.rewards import Guarded, load_reward

TWO = Scene((Thing("circle", "red", "small", 12, 30), Thing("star", "blue", "large", 45, 32)))
FULL = "a small red circle left of a large blue star"


def picture(scene: Scene = TWO) -> torch.Tensor:
    return torch.from_numpy(render(scene, np.random.default_rng(0)))


def judged(*captions: str, prompt: Prompt | None = None, **options: str) -> Scores:
    prompts = [prompt or Prompt("Describe the picture.", {"image": picture()})] * len(captions)
    reward = Guarded("caption_truth", load_reward("caption_truth", **options), failed_share=1.0)
    return reward(Rollout(prompts, list(captions), torch.arange(len(captions))))


def test_inventing_and_leaving_out_cost_the_same() -> None:
    turned = "A large blue star right of a small red circle."
    scores = judged(FULL, turned, "a circle and a star", "a small red circle left of a large green star", "two stars")
    assert scores.value.tolist() == [1.0, 1.0, 0.25, 0.5, 0.25]
    assert scores.parts["true"].tolist() == [1.0, 1.0, 1.0, 0.5, 0.5]
    assert scores.parts["told"].tolist() == [1.0, 1.0, 0.25, 0.5, 0.25]
    assert judged(FULL, "a circle and a star", measure="whole").value.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "text", ["", "   ", "a dog", "a red circle " * 40_000, "a red circle left of a red circle", "\0\n["]
)
def test_what_is_no_caption_scores_the_floor(text: str) -> None:
    scores = judged(text)
    assert scores.status.tolist() == [int(Status.PARSE_FAIL)] and scores.value.tolist() == [0.0]


def test_prompts_that_it_cannot_judge() -> None:
    three = Scene(
        tuple(Thing(shape, "red", "small", 10 + 20 * i, 30) for i, shape in enumerate(("circle", "star", "cross")))
    )
    for prompt in (Prompt("a"), Prompt("a", {"image": picture(Scene(()))}), Prompt("a", {"image": picture(three)})):
        scores = judged(FULL, prompt=prompt)
        assert scores.status.tolist() == [int(Status.NOT_APPLICABLE)] and scores.value.isnan().all()
    with pytest.raises(
        CapabilityError, match=r"caption_truth reads pictures \(3, 64, 64\) of scenes; this is \(3, 8, 8\)"
    ):
        judged(FULL, prompt=Prompt("a", {"image": torch.zeros(3, 8, 8)}))


@pytest.mark.parametrize("skill", ["caption", "boxes", "questions"])
def test_scenes_are_drawn_by_seed_and_their_own_answers_are_right(skill: str) -> None:
    from mmalign.miniworld.boxes import write_boxes

    source = Scenes(skill=skill, count=30, held_out=10)  # type: ignore[arg-type]
    prompts = source.training_items()
    assert len(prompts) == 30 and len(source.held_out_items()) == 10
    again = Scenes(skill=skill, count=5, held_out=10).training_items()  # type: ignore[arg-type]
    assert [p.text for p in again] == [p.text for p in prompts[:5]]
    assert torch.equal(again[3].media["image"], prompts[3].media["image"])
    other = Scenes(skill=skill, count=1, seed=1).training_items()[0]  # type: ignore[arg-type]
    assert not torch.equal(other.media["image"], prompts[0].media["image"])
    answers = {
        "caption": lambda meta: meta["references"][0],
        "boxes": lambda meta: write_boxes([tuple(box) for box in meta["boxes"]]),
        "questions": lambda meta: meta["answer"],
    }
    captions = [answers[skill](p.meta) for p in prompts]
    name = {"caption": "caption_truth", "boxes": "iou", "questions": "exact_match"}[skill]
    scores = load_reward(name)(Rollout(prompts, captions, torch.arange(30)))
    assert scores.value.tolist() == [1.0] * 30


def test_scenes_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="skill is 'box'; there is caption, boxes, questions"):
        Scenes(skill="box")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count is 0 and held_out 1; they count pictures"):
        Scenes(count=0, held_out=1)
