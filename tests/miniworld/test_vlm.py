"""How the scenes' vision-language model is built and taught: its parts agree with open_clip and transformers."""

import numpy as np
import pytest
import torch

from mmalign.miniworld.assets import asset_path
from mmalign.miniworld.compositions import UNSEEN_COLORED
from mmalign.miniworld.descriptions import sample_described
from mmalign.miniworld.language import parse
from mmalign.miniworld.questions import CAPTION, parse_question
from mmalign.miniworld.scenes import render
from mmalign.miniworld.vlm_examples import INSTRUCTION, Course, Examples, Shown, draw_lessons
from pipelines.miniworld.scenes import train_vlm
from pipelines.miniworld.scenes.clip_tower import vision_weights
from pipelines.miniworld.scenes.vlm_batches import Packing
from pipelines.miniworld.scenes.vlm_measures import box_measures, caption_measures, inputs
from pipelines.miniworld.scenes.vlm_model import ANSWER, IMAGE_TOKENS, build_model, build_processor, see_as


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def model(processor):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build_model(processor).eval()
    see_as(made, asset_path("scenes_clip"))
    return made


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(4):
        scene, told = sample_described(rng, "train")
        pictures.append(Shown(render(scene, rng), scene, draw_lessons(scene, told, rng, Course())))
    return pictures


def test_the_tower_computes_what_open_clip_does(model) -> None:
    import open_clip

    clip = open_clip.create_model_and_transforms(f"local-dir:{asset_path('scenes_clip')}")[0].eval()
    clip.visual.output_tokens = True
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = clip.visual(pixels)[1]
        got = model.model.vision_tower(pixels).last_hidden_state[:, 1:]
        assert want.std() > 0.1 and torch.allclose(got, want, atol=1e-4)
        seen = model.get_image_features(pixels).pooler_output
        assert torch.allclose(torch.stack(list(seen)), model.model.multi_modal_projector(want), atol=1e-4)


def test_a_tower_of_another_shape_is_refused(tmp_path, processor) -> None:
    from safetensors.torch import save_file

    weights = {f"visual.{name}": value for name, value in [("conv1.weight", torch.zeros(128, 3, 8, 8))]}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    assert list(vision_weights(tmp_path)) == ["embeddings.patch_embedding.weight"]
    with pytest.raises(ValueError, match=r"is no image tower of this shape: it lacks embeddings\.class_embedding"):
        see_as(build_model(processor), tmp_path)


def test_lessons_behind_one_picture_do_not_see_each_other(model, processor, shown: list[Shown]) -> None:
    """Packed, every lesson gets the logits that the whole model gives it alone."""
    packing = Packing(processor, np.random.default_rng(0))
    batch = packing.batch(shown)
    with torch.no_grad():
        together = train_vlm.losses(
            model, train_vlm.Reader(processor, 128), batch, torch.eye(len(processor.tokenizer))
        )[0]
        total, count = 0.0, 0
        for row, one in enumerate(shown):
            for question, answer in one.lessons:
                asked, said = packing.tokens(f"{question} {ANSWER}"), packing.tokens(f"{answer} <|end|>")
                ids = torch.cat([batch.ids[row, :IMAGE_TOKENS], torch.tensor(asked + said)])[None]
                logits = model(input_ids=ids, pixel_values=batch.pixels[row : row + 1]).logits[0, -len(said) - 1 : -1]
                total -= float(logits.log_softmax(-1).gather(1, torch.tensor(said)[:, None]).sum())
                count += len(said)
    assert total / count == pytest.approx(float(together), abs=1e-4)


def test_numbers_are_wanted_with_their_neighbours(processor) -> None:
    wanted = train_vlm.wanted_tokens(processor)
    ids = processor.tokenizer.convert_tokens_to_ids(["12", "13", "yes", "red"])
    assert torch.allclose(wanted.sum(-1)[ids], torch.tensor([1.0, 1.0, 2.0, 1.0]))
    assert wanted[ids[0], ids[0]] > wanted[ids[0], ids[1]] > 0.1 and wanted[ids[3], ids[3]] == 1


def test_the_processor_makes_what_training_saw(processor, shown: list[Shown]) -> None:
    pictures = [np.round(one.image * 255).astype(np.uint8) for one in shown]
    made = inputs(processor, pictures, [CAPTION] * len(shown))
    packing = Packing(processor, np.random.default_rng(0))
    asked = packing.tokens(f"{CAPTION} {ANSWER}")
    assert made["input_ids"][0].tolist() == [packing.image_id] * IMAGE_TOKENS + asked
    pixels = torch.from_numpy(np.stack(pictures).astype(np.float32) / 255)
    assert torch.allclose(made["pixel_values"], (pixels - 0.75) / 0.25, atol=1e-5)


def test_every_word_of_every_lesson_is_known(processor, shown: list[Shown]) -> None:
    unknown = processor.tokenizer.unk_token_id
    words = processor.tokenizer(f"Is there a SMALL red circle? {INSTRUCTION} [12,64] Where are the stars?").input_ids
    assert unknown not in words
    for one in shown:
        for question, answer in one.lessons:
            ids = processor.tokenizer(f"{question} {answer}").input_ids
            assert unknown not in ids
            assert processor.tokenizer.decode(processor.tokenizer(answer).input_ids) == answer


def test_nothing_unseen_is_taught() -> None:
    rng = np.random.default_rng(1)
    made = np.zeros((2, 3, 64, 64), dtype=np.uint8)
    kept = [sample_described(rng, "train") for _ in range(1)] + [sample_described(rng, "heldout") for _ in range(1)]
    material = Examples(made, [scene for scene, _ in kept], [told for _, told in kept], rng)
    for one in material.draw(40, Course()):
        for thing in one.scene.things:
            assert (thing.shape, thing.color) not in UNSEEN_COLORED
        for question, answer in one.lessons:
            if question == CAPTION:
                assert parse(answer)
            elif not question.startswith("Where"):
                parse_question(question.removesuffix(INSTRUCTION))
                assert answer in ("yes", "no")


def test_measures_of_what_was_written() -> None:
    rng = np.random.default_rng(2)
    scene, told = sample_described(rng, "train")
    found = caption_measures([told.text, "nonsense"], [scene] * 2, [told] * 2)
    assert found == {"caption_clauses": 0.5, "caption_true": 0.5, "caption_whole": 0.5}
    from mmalign.miniworld.boxes import boxes_of, write_boxes
    from mmalign.miniworld.vlm_examples import draw_kind

    kind = draw_kind(scene, rng)
    right = write_boxes(boxes_of(scene, kind))
    said = [right, "[ 1 , 2 ]", "", f"{right} [ 0 , 0 , 1 , 1 ]"]
    assert box_measures(said, [scene] * 4, [kind] * 4) == {"box_iou": 0.25, "box_iou_half": 0.25}
