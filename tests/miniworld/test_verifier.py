import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mmalign.miniworld.grammar import hard_negatives, holds, parse, sample_scene
from mmalign.miniworld.scenes import Scene, Thing, render
from mmalign.miniworld.verifier import UNKNOWN, read_scene, verify, verify_batch
from pipelines.miniworld.scenes.pictures import draw_pictures


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, list, list]:
    images, requests, scenes = draw_pictures(2000, seed=99, split="any")
    return images.astype(np.float32) / 255, requests, scenes


def test_truth_renderings_verify(truth: tuple) -> None:
    images, requests, scenes = truth
    verdict = verify_batch(images, requests)
    assert verdict.fulfilled.mean() >= 0.995
    assert (verdict.fraction[verdict.fulfilled] == 1).all()
    for read, scene in zip(verdict.scenes[:200], scenes, strict=False):
        assert sorted(thing[:3] for thing in read.things) == sorted(thing[:3] for thing in scene.things)


@pytest.mark.parametrize(("blur", "noise"), [(0.8, 0.0), (0.0, 0.06), (0.8, 0.04)])
def test_slight_blur_and_noise_do_not_matter(truth: tuple, blur: float, noise: float) -> None:
    images, requests, _ = truth
    grain = np.random.default_rng(0).normal(0, noise, (300, 3, 64, 64))
    some = np.clip(gaussian_filter(images[:300], (0, 0, blur, blur)) + grain, 0, 1)
    assert verify_batch(some, requests[:300]).fulfilled.mean() >= 0.98


def test_renders_of_hard_negatives_fail_the_request(truth: tuple) -> None:
    _, requests, _ = truth
    rng = np.random.default_rng(5)
    images, asked = [], []
    for request in requests[:200]:
        for negative in hard_negatives(request, 2, rng):
            scene = sample_scene(negative, rng)
            # Some scene of a false caption can still fulfil the request: left open, an attribute may come out right.
            if not all(holds(scene, request)):
                images.append(render(scene, rng))
                asked.append(request)
    assert len(images) > 300
    assert not verify_batch(np.stack(images), asked).fulfilled.any()


def test_an_unexplained_blob_breaks_the_total_only() -> None:
    rng = np.random.default_rng(6)
    image = render(Scene((Thing("circle", "red", "large", 20.0, 20.0),)), rng)
    request = parse("a red circle")
    assert verify(image, request) == [True, True]
    image[:, 45:50, 40:58] = np.array([0.2, 0.7, 0.7])[:, None, None]
    assert verify(image, request) == [True, False]
    assert UNKNOWN in {thing.shape for thing in read_scene(image).things}


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, np.nan])
def test_flat_images_show_nothing(value: float) -> None:
    assert read_scene(np.full((3, 64, 64), value, dtype=np.float32)).things == ()


def test_noise_fulfils_nothing() -> None:
    images = np.random.default_rng(7).random((20, 3, 64, 64), dtype=np.float32)
    assert not verify_batch(images, [parse("a circle")] * 20).fulfilled.any()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="shape"):
        read_scene(np.zeros((64, 64, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="one for each"):
        verify_batch(np.zeros((2, 3, 64, 64)), [parse("a star")])
