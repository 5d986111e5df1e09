"""How well the scenes' vision-language model does what it is for, on held-out compositions."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmalign.miniworld.boxes import boxes_of
from mmalign.miniworld.compositions import unseen_clause
from mmalign.miniworld.descriptions import agreement, sample_described
from mmalign.miniworld.grammar import hard_negatives
from mmalign.miniworld.language import CaptionError, Group, Request, parse
from mmalign.miniworld.questions import CAPTION, NO, YES, Question, answer, questions_of, where
from mmalign.miniworld.scenes import Scene, render
from mmalign.miniworld.verifier import read_scene
from mmalign.miniworld.vlm_examples import draw_kind, draw_question, likely_questions
from pipelines.miniworld.scenes.generated_pictures import generated_pictures

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

Pictures = list[np.ndarray]


def heldout_scenes(n: int, seed: int) -> tuple[Pictures, list[Scene], list[Request]]:
    """Pictures ``(3, 64, 64)`` uint8 of scenes with unseen compositions, and their fullest descriptions."""
    rng = np.random.default_rng([29, seed])
    pictures, scenes, descriptions = [], [], []
    for _ in range(n):
        scene, description = sample_described(rng, "heldout")
        pictures.append(np.round(render(scene, rng) * 255).astype(np.uint8))
        scenes.append(scene)
        descriptions.append(description)
    return pictures, scenes, descriptions


def inputs(processor: "LlavaProcessor", pictures: Pictures, questions: list[str]) -> dict[str, "torch.Tensor"]:
    """What the model takes for one question about each picture, padded on the left."""
    from PIL import Image

    processor.tokenizer.padding_side = "left"
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in questions]
    texts = [processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
    images = [[Image.fromarray(picture.transpose(1, 2, 0))] for picture in pictures]
    made = processor(text=texts, images=images, padding=True, return_tensors="pt")
    return {name: made[name] for name in ("input_ids", "attention_mask", "pixel_values")}


def written(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", pictures: Pictures, questions: list[str]
) -> list[str]:
    """The most likely answer to one question about each picture, word by word."""
    import torch

    texts: list[str] = []
    for part in range(0, len(pictures), 64):
        batch = inputs(processor, pictures[part : part + 64], questions[part : part + 64])
        with torch.no_grad():
            out = model.generate(**batch, max_new_tokens=40, do_sample=False)
        answer_ids = out[:, batch["input_ids"].shape[1] :]
        texts += processor.tokenizer.batch_decode(answer_ids, skip_special_tokens=True)
    return texts


def yes_probability(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", pictures: Pictures, questions: list[str]
) -> np.ndarray:
    """``(n,)`` p(yes) / (p(yes) + p(no)) of the first word."""
    import torch

    ids = processor.tokenizer.convert_tokens_to_ids([YES, NO])
    probabilities = []
    for part in range(0, len(pictures), 64):
        batch = inputs(processor, pictures[part : part + 64], questions[part : part + 64])
        with torch.no_grad():
            probabilities.append(model(**batch, logits_to_keep=1).logits[:, -1, ids].softmax(-1)[:, 0])
    return torch.cat(probabilities).numpy()


def balanced(
    model: "LlavaForConditionalGeneration",
    processor: "LlavaProcessor",
    asked: list[tuple[np.ndarray, Scene, Question]],
) -> float:
    """Mean of the shares of right answers among what is true and among what is false."""
    truth = np.array([answer(question, scene) for _, scene, question in asked])
    pictures, texts = [picture for picture, _, _ in asked], [question.text for _, _, question in asked]
    right = (yes_probability(model, processor, pictures, texts) > 0.5) == truth
    return float((right[truth].mean() + right[~truth].mean()) / 2)


def caption_measures(said: list[str], scenes: list[Scene], told: list[Request]) -> dict[str, float]:
    """Shares of clauses right, of the captions' own clauses that hold, and of captions that are right altogether."""
    rows = []
    for text, scene, full in zip(said, scenes, told, strict=True):
        try:
            comparison = agreement(parse(text), scene, full)
        except CaptionError:
            rows.append((0.0, 0.0, 0.0))
        else:
            rows.append((comparison.right, comparison.true, float(comparison.right == 1)))
    right, true, whole = np.mean(rows, axis=0).tolist()
    return {"caption_clauses": right, "caption_true": true, "caption_whole": whole}


def box_measures(said: list[str], scenes: list[Scene], kinds: list) -> dict[str, float]:
    """Mean IoU of the boxes that were written, matched one to one, and how often it is at least one half."""
    values = []
    for text, scene, kind in zip(said, scenes, kinds, strict=True):
        values.append(_overlap(text, boxes_of(scene, kind)))
    return {"box_iou": float(np.mean(values)), "box_iou_half": float(np.mean(np.array(values) >= 0.5))}


def _overlap(text: str, truth: list) -> float:
    """Mean IoU of boxes paired from left to right, 0 where their numbers differ."""
    try:
        boxes = json_boxes(text)
    except ValueError:
        return 0.0
    if len(boxes) != len(truth):
        return 0.0
    return float(np.mean([_iou(one, other) for one, other in zip(sorted(boxes), truth, strict=True)]))


def json_boxes(text: str) -> list[tuple[int, ...]]:
    """Boxes of ``[ 1 , 2 , 3 , 4 ] [ … ]``; raises ValueError for anything else."""
    parts = [part.strip(" [") for part in text.split("]")]
    if parts.pop() or not parts:
        raise ValueError(f"no boxes: {text!r}")
    boxes = [tuple(int(number) for number in part.split(",")) for part in parts]
    if any(len(box) != 4 for box in boxes):
        raise ValueError(f"a box is four numbers: {text!r}")
    return boxes


def _iou(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (one, other)]
    return common / max(sum(areas) - common, 1)


def measure(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", n: int, runs: Path, seed: int = 0
) -> dict[str, float]:
    """All of it, on ``n`` scenes and a few times as many questions, about generated pictures too."""
    training = model.training
    model.eval()
    rng = np.random.default_rng([31, seed])
    pictures, scenes, descriptions = heldout_scenes(n, seed)
    metrics = caption_measures(written(model, processor, pictures, [CAPTION] * n), scenes, descriptions)
    kinds = [draw_kind(scene, rng) for scene in scenes]
    wheres = [where(Group(sum(map(kind.fits, scene.things)), kind)) for scene, kind in zip(scenes, kinds, strict=True)]
    metrics |= box_measures(written(model, processor, pictures, wheres), scenes, kinds)
    shown = list(zip(pictures, scenes, descriptions, strict=True))
    questions = [
        (a, scene, draw_question(scene, likely_questions(full, rng), rng, "any"))
        for a, scene, full in shown
        for _ in range(4)
    ]
    metrics["judge"] = balanced(model, processor, questions)
    unseen = [row for row in questions if unseen_clause(row[2].clause)]
    metrics["judge_unseen"] = balanced(model, processor, unseen)
    images, requests = generated_pictures(runs / "scenes_generated_heldout.npz", "heldout", 128)
    generated = []
    for image, request in list(zip(images, requests, strict=True))[: 2 * n]:
        scene = read_scene(image / np.float32(255))
        near = [request, *hard_negatives(request, 1, rng)]
        generated += [(image, scene, question) for one in near for question in questions_of(one)]
    metrics["judge_generated"] = balanced(model, processor, generated)
    model.train(training)
    return {name: round(value, 4) for name, value in metrics.items()} | {"n": n}
