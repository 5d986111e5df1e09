"""Set rewards and encoders on sounds: tiny real classes, references in files, credit, gradients, per-song distances."""

import json
import math

import pytest
import torch

from mmalign.core.errors import CapabilityError, ConfigError, DataError
from mmalign.core.types import Status
from mmalign.media.audio import write_audio
from mmalign.rewards import Credit
from mmalign.rewards import functional as F
from mmalign.rewards.encoders import encoders, make_encoder
from mmalign.rewards.functional.frechet_pool import LINEAR_FROM
from mmalign.rewards.reference_sets.statistics import encoder_of, load_reference, save_reference
from tests.rewards.doubles import built, frame_encoder, text_encoder
from tests.rewards.sounds import RATE, rollout, tones

SOUND = [name for name in encoders.names() if hasattr(encoders.get(name), "frames")]


@pytest.fixture
def spec(tiny_clap, tiny_codecs):
    """The spec of any encoder of sound."""
    places = {"clap": tiny_clap, **tiny_codecs}
    return lambda name: {"name": name} | ({"checkpoint": str(places[name])} if name in places else {})


def test_every_encoder_of_sound_is_here():
    assert {"clap", "spectral", "latents", "encodec", "dac"} <= set(SOUND)


@pytest.mark.parametrize("name", SOUND)
def test_encoders_of_sound_embed_each_row_on_its_own(name, spec):
    encoder, sounds = frame_encoder(spec(name)), tones(3, channels=2)
    sounds.output.samples[1, 0, 5] = float("nan")
    embedding = encoder.embed(sounds)
    assert embedding.isfinite().all(1).tolist() == [True, False, True]
    alone = torch.cat([encoder.embed(sounds[i : i + 1]) for i in range(3)])
    assert torch.allclose(embedding, alone, atol=1e-5, equal_nan=True)
    assert [len(frames) > 0 for frames in encoder.frames(sounds)] == [True, False, True]
    tiny = encoder.embed(rollout(torch.full((1, 1, 1), 0.3)))  # one sample long
    assert tiny.shape == embedding[:1].shape and tiny.isfinite().all()
    assert make_encoder(spec(name)).fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize("name", SOUND)
def test_gradient_reaches_the_samples(name, spec):
    encoder, sounds = make_encoder(spec(name)), tones(3, channels=2)
    sounds.output.samples.requires_grad_()
    encoder.embed(sounds)[0].sum().backward()
    grad = sounds.output.samples.grad
    assert grad[0].norm() > 0 and grad[1:].abs().max() == 0 and grad.isfinite().all()


def test_codecs_equal_their_models_own_calls(tiny_codecs):
    from diffusers import AutoencoderOobleck
    from transformers import DacModel, EncodecModel

    sounds = tones(2)
    x = sounds.output.samples
    encodec = EncodecModel.from_pretrained(tiny_codecs["encodec"]).eval()
    with torch.no_grad():
        quiet = x / (x.square().mean(2, keepdim=True).sqrt() + 1e-8)
        expected = {
            "encodec": encodec.encoder(quiet),
            "dac": DacModel.from_pretrained(tiny_codecs["dac"]).eval().encoder(x),
            "latents": AutoencoderOobleck.from_pretrained(tiny_codecs["latents"] / "vae")
            .eval()
            .encode(x.expand(-1, 2, -1))
            .latent_dist.mode(),
        }
    for name, frames in expected.items():
        encoder = frame_encoder({"name": name, "checkpoint": str(tiny_codecs[name])})
        assert torch.allclose(torch.stack(encoder.frames(sounds)), frames.transpose(1, 2), atol=1e-5)
        both = torch.cat([frames.mean(2), frames.std(2, correction=0)], 1)
        assert torch.allclose(encoder.embed(sounds), both, atol=1e-4)


def test_latents_of_the_rollout_are_used_and_nothing_is_decoded():
    x0 = torch.randn(3, 4, 7)
    encoder = frame_encoder({"name": "latents", "space": "tiny"})
    sounds = rollout(torch.zeros(3, 1, 10), trajectory={"x0": x0})
    expected = torch.cat([x0.mean(2), x0.std(2, correction=0)], 1)
    assert torch.allclose(encoder.embed(sounds), expected, atol=1e-5) and not encoder.differentiable
    picture = rollout(torch.zeros(3, 1, 10), trajectory={"x0": torch.randn(3, 2, 5, 7)})
    late = frame_encoder({"name": "latents", "space": "tiny", "time": 3})
    assert encoder.frames(picture)[0].shape == (5, 14) and late.frames(picture)[0].shape == (7, 10)
    assert encoder.fingerprint() != late.fingerprint()
    with pytest.raises(CapabilityError, match=r"come without their latents.*name the generator's autoencoder"):
        encoder.embed(rollout(torch.zeros(3, 1, 10)))
    with pytest.raises(CapabilityError, match=r"x0 is \(3, 4, 7\) and has no axis 3"):
        late.embed(sounds)
    with pytest.raises(ConfigError, match="name the latents: their autoencoder"):
        make_encoder({"name": "latents"})


def test_checkpoints_that_take_no_waveform_or_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder, and not a Hub id"):
        make_encoder({"name": "dac", "checkpoint": "./nowhere"})
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(
        DataError, match=r"autoencoder is AutoencoderKL, which does not take waveforms.*mmalign reference"
    ):
        make_encoder({"name": "latents", "checkpoint": str(tmp_path)}).embed(tones(2))


@pytest.mark.parametrize("name", ["spectral", "clap"])
def test_fad_and_kad_against_the_functions(name, spec, sound_folder):
    sounds, encoder = tones(6), make_encoder(spec(name))
    reference = load_reference(str(sound_folder), encoder)
    x = encoder.embed(sounds)
    for reward, value, credit in (
        ("fad", -F.frechet_distance(x, reference.rows), F.frechet_credit(x, reference.rows)),
        ("kad", -F.kad(x, reference.rows), 100 * F.mmd_credit(x, reference.rows)),
    ):
        few = {"least_rows": 2} if reward == "fad" else {}
        made = built(reward, reference=str(sound_folder), encoder=spec(name), **few)
        assert torch.allclose(made.score(made.embed(sounds)), value, atol=1e-9)
        assert torch.allclose(made.credit(made.embed(sounds)), credit, atol=1e-9)
        assert "audio" in made.modalities and made.differentiable
    itself = built("fad", reference=str(sound_folder), encoder=spec(name), least_rows=2)
    assert abs(itself.score(reference.rows).item()) < 1e-9  # FAD(X, X), n < d
    fewer = reference.rows[:2]
    assert itself.score(fewer).isfinite() and itself.score(fewer) < 0


def test_fad_credit_serves_grpo_and_its_gradient_r0(sound_folder):
    """Rows of one batch get the closed-form credit; a mean over rows has the set's gradient."""
    from mmalign.objectives._reward_gradients import output_gradient

    sounds = tones(6)
    reward = built("fad", reference=str(sound_folder), encoder={"name": "spectral"}, least_rows=2)
    scores = Credit(reward)(sounds)
    assert scores.status.tolist() == [Status.OK] * 6 and scores.value.isfinite().all()
    x = reward.embed(sounds)
    exact = torch.stack([reward.score(x) - reward.score(torch.cat([x[:i], x[i + 1 :]])) for i in range(6)])
    assert torch.corrcoef(torch.stack([scores.value.double(), exact]))[0, 1] > 0.8
    gradient, _, valid = output_gradient(Credit(reward), sounds)
    assert valid.all() and (gradient.flatten(1).norm(dim=1) > 0).all() and gradient.isfinite().all()
    unit = gradient / gradient.norm()
    with torch.no_grad():
        ends = [reward.score(reward.embed(rollout(sounds.output.samples + h * unit))) for h in (1e-3, -1e-3)]
    slope = (unit * gradient).sum().item() / 6  # every row carries the whole set's gradient
    assert ((ends[0] - ends[1]) / 2e-3).item() == pytest.approx(slope, rel=0.05)


def test_only_statistics_know_their_encoder(sound_folder, tmp_path):
    assert encoder_of(str(sound_folder)) == {}
    encoder = make_encoder({"name": "spectral", "bands": 8})
    made = load_reference(str(sound_folder), encoder)
    save_reference(tmp_path / "style.safetensors", made, encoder, "a style")
    reward = built("fad", reference=str(tmp_path / "style.safetensors"))
    assert reward.encoder == {"name": "spectral", "rate": 16_000, "bands": 8, "hop": 0.02}
    assert reward.embed(tones(3)).shape == (3, 32)
    other = built("fad", reference=str(tmp_path / "style.safetensors"), encoder={"name": "spectral"})
    with pytest.raises(
        DataError, match=r"made with encoder spectral-1-16000-8-0\.02, but this run's is spectral-1-16000"
    ):
        other.score(other.embed(tones(3)))


def test_references_of_sounds_that_are_none(tmp_path):
    encoder = make_encoder({"name": "spectral"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no sounds in it \(read are WAV, "):
        load_reference(str(tmp_path / "empty"), encoder)
    one = tmp_path / "one"
    write_audio(tones(1).output.samples[0], RATE, one / "a.wav")
    with pytest.raises(DataError, match="one: a reference set needs at least 2 items, found 1"):
        load_reference(str(one), encoder)
    assert load_reference(str(one), encoder, unit="frame").gaussian.count > 20  # its frames are many
    (one / "b.wav").write_bytes(b"")
    (one / "c.flac").write_bytes(b"no sound")
    with pytest.raises(
        DataError, match=r"b\.wav: the file is empty[\s\S]*c\.flac: soundfile .* could not decode its 8"
    ):
        load_reference(str(one), encoder)


# texts as exemplars ------------------------------------------------------------------------------------------------


def test_texts_are_moved_across_the_modality_gap(tiny_clap, tmp_path):
    encoder = text_encoder({"name": "clap", "checkpoint": str(tiny_clap)})
    wanted = ["a red circle", "two blue square", "three star"]
    (tmp_path / "wanted.txt").write_text("\n".join(wanted))
    options = {"reference": str(tmp_path / "wanted.txt"), "encoder": {"name": "clap", "checkpoint": str(tiny_clap)}}
    sounds = tones(4)
    with pytest.raises(
        ConfigError, match=r"pairs: wanted\.txt holds texts .* name a JSONL of sounds with their captions"
    ):
        built("fad", least_rows=3, **options).score(encoder.embed(sounds))
    apart = built("fad", least_rows=3, pairs="none", **options)
    assert torch.equal(apart.target.rows, encoder.texts(wanted))
    lines = []
    for row, caption in enumerate(["a star", "green circle", "a star"]):
        write_audio(sounds.output.samples[row], RATE, tmp_path / f"{row}.wav")
        lines.append(json.dumps({"prompt": caption, "output": f"{row}.wav"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    near = built("fad", least_rows=3, pairs=str(tmp_path / "pairs.jsonl"), **options)
    gap = near.target.rows - encoder.texts(wanted)
    assert torch.allclose(gap, gap[:1].expand(3, -1), atol=1e-6)  # one step for all
    expected = encoder.embed(sounds)[:3].mean(0) - encoder.texts(["a star", "green circle", "a star"]).mean(0)
    assert torch.allclose(gap[0], expected, atol=1e-3)  # 16-bit files
    x = encoder.embed(sounds)
    assert near.score(x) > apart.score(x)
    kernel = built("kad", pairs=str(tmp_path / "pairs.jsonl"), **options)
    assert torch.equal(kernel.target[0], near.target.rows)
    with pytest.raises(DataError, match="texts have no frames"):
        load_reference(str(tmp_path / "wanted.txt"), encoder, unit="frame", pairs="none")


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"prompt": "a"}', r"pairs\.jsonl:1: not \{.*'output'"),
        ("junk", r"pairs\.jsonl:1: not"),
        ('{"prompt": null, "output": "gone.wav"}', r"pairs\.jsonl:1: not .*the caption is null, not a text"),
        ("junk\n\n{}", r"pairs\.jsonl:1: not .*\n.*pairs\.jsonl:3: not"),
        (b"\n\xff", r"pairs\.jsonl:2: not UTF-8 text"),
        ('{"prompt": "a", "output": "gone.wav"}', r"gone\.wav: cannot be read"),
        ("\n", r"pairs\.jsonl: the gap is a mean over pairs; give at least 2, found 0"),
    ],
)
def test_pairs_that_are_none(text, message, tiny_clap, tmp_path):
    (tmp_path / "wanted.txt").write_text("a star\na circle")
    (tmp_path / "pairs.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    encoder = make_encoder({"name": "clap", "checkpoint": str(tiny_clap)})
    with pytest.raises(DataError, match=message):
        load_reference(str(tmp_path / "wanted.txt"), encoder, pairs=str(tmp_path / "pairs.jsonl"))


# one sound, pools, reports -----------------------------------------------------------------------------------------


def test_song_fad_is_the_distance_of_a_songs_own_frames(sound_folder, tiny_clip, tmp_path):
    encoder = frame_encoder({"name": "spectral"})
    reward, sounds = built("song_fad", reference=str(sound_folder), encoder={"name": "spectral"}), tones(4)
    every = torch.cat([encoder.frames(one)[0] for one in files(sound_folder)])
    expected = [-F.frechet_distance(frames, every).item() for frames in encoder.frames(sounds)]
    result = reward(sounds)
    assert result.value.tolist() == pytest.approx(expected, rel=1e-5) and (result.value < 0).all()
    save_reference(tmp_path / "f.safetensors", load_reference(str(sound_folder), encoder, "frame"), encoder, "x")
    from_file = built("song_fad", reference=str(tmp_path / "f.safetensors"))
    assert (
        torch.allclose(from_file(sounds).value, result.value, atol=1e-5)
        and from_file.fingerprint() == reward.fingerprint()
    )
    with pytest.raises(
        DataError, match=r"holds statistics of frames, this reward compares rows; make them with --unit row"
    ):
        built("fad", reference=str(tmp_path / "f.safetensors")).score(encoder.embed(sounds))
    samples = sounds.output.samples.clone()
    samples[0, 0, 3] = float("inf")
    mask = torch.ones(4, samples.shape[2], dtype=torch.bool)
    mask[1, 1:] = False
    assert reward(rollout(samples, mask=mask)).status.tolist()[0] == Status.ERROR
    sounds.output.samples.requires_grad_()
    reward(sounds).value[2].backward()
    assert (sounds.output.samples.grad.flatten(1).norm(dim=1) > 0).tolist() == [False, False, True, False]
    with pytest.raises(ConfigError, match=r"gives one row per output and no frames; encoders with frames: clap, dac"):
        built("song_fad", reference=str(sound_folder), encoder=str(tiny_clip))


def test_a_song_of_one_window_has_no_covariance(tiny_clap, sound_folder):
    clap = {"name": "clap", "checkpoint": str(tiny_clap)}
    result = built("song_fad", reference=str(sound_folder), encoder=clap)(tones(2, seconds=0.6))
    assert result.status.tolist() == [Status.NOT_APPLICABLE] * 2 and "fewer than 2 frames" in result.info[0]
    assert built("song_fad", reference=str(sound_folder), encoder=clap)(tones(2, seconds=2.5)).value.isfinite().all()


def files(folder):
    from mmalign.media.audio import read_audio

    for file in sorted(folder.iterdir()):
        samples, rate = read_audio(file)
        yield rollout(samples[None], rate)


def test_a_pool_takes_the_sets_place_of_its_own_rows(sound_folder, tmp_path):
    encoder = make_encoder({"name": "spectral", "bands": 4})
    rows = encoder.embed(tones(12, seed=8))
    save_reference(tmp_path / "pool.safetensors", rows, encoder, "before")
    spec = {"name": "spectral", "bands": 4}
    options = {"reference": str(sound_folder), "encoder": spec}
    reward = built("fad", pool=str(tmp_path / "pool.safetensors"), **options)
    x, other = encoder.embed(tones(5, seed=1)), encoder.embed(tones(5, seed=2))
    expected = -F.frechet_in_pool(x, F.gaussian(rows), reward.target.gaussian)
    assert torch.allclose(reward.score(x), expected, atol=1e-6)
    assert reward.credit(x).mean().abs() < 1e-9
    swapped = torch.cat([x[:3], other[3:4], x[4:]])
    assert torch.allclose(reward.swap_scores(x, other, 3)[0], reward.score(swapped), atol=1e-9)
    with pytest.raises(ConfigError, match="leave_one_out is not offered in a pool"):
        built("fad", pool=str(tmp_path / "pool.safetensors"), credit_by="leave_one_out", **options)


def test_reports_free_the_score_of_the_bias_of_n(sound_folder):
    reward = built("fad", reference=str(sound_folder), encoder={"name": "spectral", "bands": 4})
    rows = torch.randn(128, 16, generator=torch.Generator().manual_seed(0))
    assert reward.report(rows[:127]) == {}
    assert "parts.infinity takes 128 rows of 16 features" in reward.doubts(rows[:127])
    expected = -F.frechet_infinity(rows, reward.target.gaussian)
    assert torch.equal(reward.report(rows)["infinity"], expected)
    (doubt,) = reward.doubts(rows)  # five sounds make no covariance of 16 features
    assert doubt.startswith("the reference has 5 rows for 16 features, fewer than a covariance of full rank takes (17)")
    assert reward.doubts(rows[:9])[0].startswith("the set has 9 rows for 16 features")


# the functions -----------------------------------------------------------------------------------------------------


def gauss(n, d, seed, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


@pytest.mark.parametrize("parts", [(10,), (1, 9), (4, 1, 5)])
def test_moments_of_parts_are_those_of_the_whole(parts):
    x = gauss(10, 3, 0, shift=50.0)
    total = None
    for part in x.split(list(parts)):
        total = F.Moments.of(part) if total is None else total + F.Moments.of(part)
    assert total.count == 10 and torch.allclose(total.mean, x.mean(0), atol=1e-12)
    assert torch.allclose(total.gaussian().cov, torch.cov(x.T), atol=1e-12)
    with pytest.raises(ValueError, match="a covariance needs at least 2 rows, got 1"):
        F.Moments.of(x[:1]).gaussian()
    with pytest.raises(ValueError, match=r"at least 1 row \(N, D\), got shape \(0, 3\)"):
        F.Moments.of(x[:0])


@pytest.mark.parametrize("n, d", [(6, 4), (6, 20)])
def test_the_pool_equals_merged_moments_with_scipys_root(n, d):
    import numpy as np
    from scipy.linalg import sqrtm

    pool, x, y = F.gaussian(gauss(60, d, 1)), gauss(n, d, 2, 1.5, 0.4), F.gaussian(gauss(200, d, 3, 0.8))
    rest = F.Moments(60 - n, pool.mean, pool.cov * (60 - n - 1))
    mixed = (rest + F.Moments.of(x)).gaussian()
    root = np.real(np.trace(sqrtm(mixed.cov.numpy() @ y.cov.numpy())))
    expected = ((mixed.mean - y.mean) ** 2).sum() + mixed.cov.trace() + y.cov.trace() - 2 * root
    assert F.frechet_in_pool(x, pool, y).item() == pytest.approx(expected.item(), abs=1e-8)


def test_pool_gradient_and_credit():
    pool, y = F.gaussian(gauss(50, 5, 4)), F.gaussian(gauss(80, 5, 5, 1.3))
    x = gauss(8, 5, 6, 1.2, 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: F.frechet_in_pool(v, pool, y), (x,), eps=1e-6, atol=1e-7)

    def mixed(rows):  # the pool with these rows, its own part unchanged
        total = F.Moments(42, pool.mean, pool.cov * 41) + F.Moments.of(rows)
        return F.frechet_between(total.gaussian(), y)

    rows = x.detach()
    exact = torch.stack([mixed(torch.cat([rows[:i], rows[i + 1 :]])) - mixed(rows) for i in range(8)])
    credit = F.frechet_pool_credit(rows, pool, y)
    assert torch.corrcoef(torch.stack([credit, exact]))[0, 1] > 0.97
    assert credit.std().item() == pytest.approx(exact.std().item(), rel=0.3) and credit.mean().abs() < 1e-12
    whole, differences = (F.Moments(42, pool.mean, pool.cov * 41) + F.Moments.of(rows)).gaussian(), []
    for row in rows - whole.mean:  # weight moves from the whole pool to one row
        ends = []
        for h in (1e-5, -1e-5):
            cov = (1 - h) * whole.cov + h * (1 - h) * torch.outer(row, row)
            ends.append(F.frechet_between(F.Gaussian(whole.mean + h * row, cov), y))
        differences.append((ends[0] - ends[1]) / 2e-5)
    slopes = torch.stack(differences)
    assert torch.allclose(credit, (slopes.mean() - slopes) / 49, atol=1e-8)
    with pytest.raises(ValueError, match="8 rows cannot be scored in a pool of 9"):
        F.frechet_in_pool(rows, F.gaussian(gauss(9, 5, 7)), y)


def test_a_pool_and_extrapolation_take_the_bias_away():
    """Two draws of one distribution: the plain distance of 64 rows is nearly all bias."""
    d, y = 48, F.gaussian(gauss(6000, 48, 8))
    x, pool = gauss(64, d, 9), F.gaussian(gauss(3000, d, 10))
    plain, pooled = F.frechet_distance(x, y), F.frechet_in_pool(x, pool, y)
    assert pooled < plain / 20
    ample = gauss(512, d, 11, shift=0.1)
    truth = d * 0.01
    assert abs(F.frechet_infinity(ample, y) - truth) < 0.2 * abs(F.frechet_distance(ample, y) - truth)
    assert torch.allclose(F.frechet_infinity(ample, y, seed=3), F.frechet_infinity(ample, y, seed=3))
    with pytest.raises(ValueError, match="at least 16 rows"):
        F.frechet_infinity(x[:10], y)


@pytest.mark.parametrize("d", [16, 64])
def test_where_the_extrapolation_is_shown_it_is_near_the_truth(d):
    """With 4 D rows, which were enough to be shown before, it is off by a third and more."""
    reference = F.Gaussian(torch.zeros(d), 1.44 * torch.eye(d), 10**6)
    truth = float(F.frechet_between(F.Gaussian(torch.full((d,), 0.1), torch.eye(d)), reference))

    def off(times):
        distances = [float(F.frechet_infinity(gauss(times * d, d, 20 + i, shift=0.1), reference)) for i in range(6)]
        return abs(sum(distances) / len(distances) / truth - 1)

    assert off(LINEAR_FROM) < 0.2 and off(3) > 0.5


def test_values_of_the_published_toolkits():
    """fadtk: eigenvalues of C1 C2; frechet-audio-distance: trace of its complex root. Both in float64, n above d."""
    import numpy as np
    from scipy.linalg import sqrtm

    x, y = gauss(90, 12, 12, 1.4, 0.2), gauss(300, 12, 13)
    c1, c2 = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum().item()
    fadtk = gap + np.trace(c1) + np.trace(c2) - 2 * np.sqrt(np.linalg.eigvals(c1 @ c2).astype(complex)).real.sum()
    distance = gap + np.trace(c1) + np.trace(c2) - 2 * np.trace(sqrtm(c1 @ c2).real)
    assert F.frechet_distance(x, y).item() == pytest.approx(fadtk, abs=1e-9)
    assert F.frechet_distance(x, y).item() == pytest.approx(distance, abs=1e-9)


def test_equal_texts_and_sounds_need_no_luck():
    """KAD is unbiased: draws of one distribution average to zero, some of them below."""
    values = [F.kad(gauss(12, 3, s), gauss(12, 3, 1000 + s), 2.0).item() for s in range(200)]
    mean, error = sum(values) / 200, torch.tensor(values).std().item() / math.sqrt(200)
    assert abs(mean) < 4 * error and min(values) < 0
