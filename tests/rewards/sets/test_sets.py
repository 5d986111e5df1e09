"""Set rewards on pictures through a tiny CLIP: references, values, credit, gradients."""

import json

import pytest
import torch

from mmalign.core.errors import ConfigError, DataError
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.media.image import read_image
from mmalign.rewards import Credit
from mmalign.rewards import functional as F
from mmalign.rewards.encoders import encoders, make_encoder
from mmalign.rewards.reference_sets.statistics import load_reference, save_reference
from tests.rewards.doubles import answers, built, pictures, text_encoder


def embedded(folder, encoder):
    return torch.cat([encoder.images([read_image(p)]) for p in sorted(folder.iterdir())])


def test_frechet_and_mmd_against_the_functions(tiny_clip, picture_folder):
    rollout = pictures(per_prompt=4, size=32)
    encoder = make_encoder(str(tiny_clip))
    rows = embedded(picture_folder, encoder)
    x = encoder.embed(rollout)
    for name, value, credit in (
        ("frechet", -F.frechet_distance(x, rows), F.frechet_credit(x, rows)),
        ("mmd", -F.kad(x, rows), 100 * F.mmd_credit(x, rows)),
    ):
        reward = built(name, reference=str(picture_folder), encoder=str(tiny_clip))
        assert torch.allclose(reward.score(reward.embed(rollout)), value, atol=1e-9)
        assert torch.allclose(reward.credit(reward.embed(rollout)), credit, atol=1e-9)
        assert reward.modalities == {"image", "text"} and reward.differentiable
    exact = built("frechet", reference=str(picture_folder), encoder=str(tiny_clip), credit_by="leave_one_out")
    assert torch.allclose(exact.credit(x), F.frechet_leave_one_out(x, rows) - F.frechet_leave_one_out(x, rows).mean())


@pytest.mark.parametrize("name", ["frechet", "mmd"])
def test_swaps_at_once_equal_swaps_one_by_one(tiny_clip, picture_folder, name):
    reward = built(name, reference=str(picture_folder), encoder=str(tiny_clip))
    better, other = (reward.embed(pictures(per_prompt=3, size=32, seed=s)) for s in (1, 2))
    expected = []
    for place in range(2, 6):
        trial = better.clone()
        trial[place] = other[place]
        expected.append(reward.score(trial))
    assert torch.allclose(reward.swap_scores(better, other, 2), torch.stack(expected), atol=1e-6)


def test_a_set_equal_to_its_reference_is_best(tiny_clip, picture_folder):
    reward = built("frechet", reference=str(picture_folder), encoder=str(tiny_clip))
    rows = embedded(picture_folder, make_encoder(str(tiny_clip)))
    assert abs(reward.score(rows).item()) < 1e-9
    assert reward.score(reward.embed(pictures(per_prompt=3, size=32))) < -1e-6


def test_vendi_of_equal_and_of_different_pictures(tiny_clip):
    reward = built("vendi", encoder=str(tiny_clip))
    rollout = pictures(per_prompt=3, size=32)
    several = reward.score(reward.embed(rollout))
    rollout.output[:] = rollout.output[:1]
    equal = reward.score(reward.embed(rollout)).item()
    assert equal == pytest.approx(1, abs=1e-4) and equal < several
    assert built("vendi", encoder=str(tiny_clip), order=2.0).order == 2.0
    with pytest.raises(ConfigError, match="order must be above 0"):
        built("vendi", encoder=str(tiny_clip), order=0.0)


def test_a_row_that_is_embedded_as_zeros_leaves_the_set_alone():
    """It has no direction; the whole set was an error for it."""

    class Plain:
        modalities, differentiable = frozenset({"image"}), False

        def embed(self, rollout):
            return rollout.output.flatten(1)[:, :4]

    reward = built("vendi", encoder={"name": "spectral"})
    reward.embedder = Plain()
    rollout = pictures(per_prompt=3)
    rollout.output[2] = 0
    scores = Credit(reward)(rollout)
    others = torch.tensor([0, 1, 3, 4, 5])
    assert scores.status.tolist() == [0, 0, Status.ERROR, 0, 0, 0] and scores.info[2] == "the embedding is not finite"
    assert torch.allclose(scores.value[others], Credit(reward)(rollout[others]).value)


@pytest.mark.parametrize("name", ["frechet", "mmd", "vendi"])
def test_gradient_of_sets_reaches_the_pixels(name, tiny_clip, picture_folder):
    options = {} if name == "vendi" else {"reference": str(picture_folder)}
    reward = built(name, encoder=str(tiny_clip), **options)
    rollout = pictures(per_prompt=3, size=32)
    rollout.output.requires_grad_()
    reward.score(reward.embed(rollout)).backward()
    assert rollout.output.grad.isfinite().all() and (rollout.output.grad.flatten(1).norm(dim=1) > 0).all()


def test_words_can_be_exemplars_and_captions_be_judged(tiny_clip, tmp_path):
    (tmp_path / "wanted.txt").write_text("a red circle\n\n two blue square\nthree star\n")
    reward = built("frechet", reference=str(tmp_path / "wanted.txt"), encoder=str(tiny_clip), least_rows=3)
    rows = text_encoder(str(tiny_clip)).texts(["a red circle", "two blue square", "three star"])
    assert torch.allclose(reward.target.rows, rows)
    (tmp_path / "noted.txt").write_bytes("\ufeff# wanted\r\na red circle\r\ntwo blue square\r\nthree star\r\n".encode())
    noted = built("frechet", reference=str(tmp_path / "noted.txt"), encoder=str(tiny_clip), least_rows=3)
    assert torch.equal(noted.target.rows, reward.target.rows)
    captions = answers("a red circle", "two blue square", "three star")
    assert abs(reward.score(reward.embed(captions)).item()) < 1e-9
    rollout = Rollout([Prompt("x")] * 3, torch.rand(3, 3, 32, 32), torch.zeros(3, dtype=torch.long))
    assert reward.score(reward.embed(rollout)) < 0


def test_statistics_are_kept_with_their_provenance(tiny_clip, tiny_transformers_clip, picture_folder, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    encoder = make_encoder(str(tiny_clip))
    rows = embedded(picture_folder, encoder)
    save_reference(tmp_path / "ref.safetensors", rows, encoder, "six pictures")
    loaded = load_reference(str(tmp_path / "ref.safetensors"), encoder)
    x = encoder.embed(pictures(per_prompt=3, size=32))
    assert torch.allclose(F.frechet_distance(x, loaded.gaussian), F.frechet_distance(x, rows), atol=1e-7)
    assert torch.equal(loaded.rows, rows) and loaded.gaussian.count == 6
    with safe_open(tmp_path / "ref.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["provenance"])
    spec = facts.pop("spec")
    assert facts == {"encoder": encoder.fingerprint(), "unit": "row", "count": 6, "source": "six pictures"}
    assert spec["name"] == "clip" and make_encoder(spec).fingerprint() == encoder.fingerprint()
    other = make_encoder({"name": "clip", "checkpoint": str(tiny_transformers_clip)})
    with pytest.raises(DataError, match=r"made with encoder .* but this run's is .*Make the statistics again"):
        load_reference(str(tmp_path / "ref.safetensors"), other)
    save_reference(tmp_path / "bare.safetensors", rows, encoder, "six pictures", keep_rows=False)
    kernel = built("mmd", reference=str(tmp_path / "bare.safetensors"), encoder=str(tiny_clip))
    with pytest.raises(DataError, match="keep no rows"):
        kernel.score(x)
    save_file({"mean": torch.zeros(2)}, tmp_path / "half.safetensors")
    with pytest.raises(DataError, match="lacks cov"):
        load_reference(str(tmp_path / "half.safetensors"), encoder)
    (tmp_path / "junk.safetensors").write_text("junk")
    with pytest.raises(DataError, match=r"junk\.safetensors: cannot be read as reference statistics"):
        load_reference(str(tmp_path / "junk.safetensors"), encoder)


def test_references_that_are_none(tiny_clip, tmp_path):
    encoder = make_encoder(str(tiny_clip))
    with pytest.raises(ConfigError, match=r"frechet: nowhere: no such file or folder"):
        built("frechet", reference="nowhere", encoder=str(tiny_clip))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no pictures in it \(read are PNG, JPEG"):
        load_reference(str(tmp_path / "empty"), encoder)
    (tmp_path / "one.txt").write_text("a star\n")
    with pytest.raises(DataError, match="at least 2 items, found 1"):
        load_reference(str(tmp_path / "one.txt"), encoder)
    (tmp_path / "old.txt").write_bytes(b"a star\n\xfcber\n")
    with pytest.raises(DataError, match=r"old\.txt:2: not UTF-8 text"):
        load_reference(str(tmp_path / "old.txt"), encoder)
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(DataError, match=r"a reference is a folder of pictures or sounds, a \.txt"):
        load_reference(str(tmp_path / "x.csv"), encoder)


def test_encoders_are_a_registry():
    assert "clip" in encoders.names()
    with pytest.raises(ConfigError, match=r"encoder\.name: no encoder is called 'clpi'"):
        make_encoder({"name": "clpi"})


@pytest.mark.parametrize("name", ["vendi", "contrastive", "frechet", "mmd"])
def test_what_embeds_is_never_guessed(name, picture_folder):
    options = {"reference": str(picture_folder)} if name in ("frechet", "mmd") else {}
    with pytest.raises(ConfigError, match=r"encoder: missing\. .*`clip` \(image, text\): .*`spectral` \(audio\)"):
        built(name, **options)
    with pytest.raises(ConfigError, match="checkpoint: missing"):
        built("bmas")


def test_a_covariance_of_far_fewer_rows_than_dimensions_is_refused(tiny_clip, tmp_path):
    (tmp_path / "few.txt").write_text("a red circle\ntwo blue square\nthree star\n")
    options = {"reference": str(tmp_path / "few.txt"), "encoder": str(tiny_clip)}
    with pytest.raises(DataError, match=r"few\.txt: a covariance of 16×16 from 3 rows .* Give at least 4 \(better 16"):
        built("frechet", **options).score(torch.randn(5, 16))
    assert built("frechet", **options, least_rows=3).score(torch.randn(5, 16)) < 0
    assert built("mmd", **options).score(torch.randn(5, 16)).isfinite()
    four = tmp_path / "four.txt"
    four.write_text("a red circle\ntwo blue square\nthree star\na blue star\n")
    assert built("frechet", reference=str(four), encoder=str(tiny_clip)).score(torch.randn(5, 16)) < 0


def test_set_rewards_are_called_like_others(tiny_clip):
    """As README shows: rows have their credit, sets their score; the options stand in the reward itself."""
    import mmalign
    from mmalign.core.protocols import Reward, SetReward
    from mmalign.rewards import Mix, Slot

    reward = mmalign.load_reward("vendi", encoder=str(tiny_clip))
    assert reward.reward.order == 1.0 and isinstance(reward, Reward) and isinstance(reward, SetReward)
    rollout = pictures(per_prompt=3)
    scores, rows = reward(rollout), reward.embed(rollout)
    assert torch.allclose(scores.value, reward.credit(rows).float())
    assert torch.allclose(scores.parts["set"], reward.score(rows).float().expand(6))
    mixed = Mix({"each": Slot(reward, over="group")})(rollout)
    assert torch.allclose(mixed.parts["each/set"][0], reward.score(rows[:3]).float())


def test_rewards_are_loaded_by_name_or_class():
    import mmalign

    def plain(output):
        return 1.0

    made = mmalign.rule(modalities={"text"}, range=(0.0, 1.0))(plain)
    assert mmalign.load_reward(made)(answers("a")).value.tolist() == [1.0]
    with pytest.raises(ConfigError, match=r"'plain': a reward is loaded by its name or its class; put @mmalign\.rule"):
        mmalign.load_reward(plain)
    with pytest.raises(ConfigError, match="An object that is a reward already needs no loading"):
        mmalign.load_reward(made())
