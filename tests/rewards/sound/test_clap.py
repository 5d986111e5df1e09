"""CLAP rewards on tiny random checkpoints: against transformers' own pipeline, at any length, with gradients."""

import shutil

import pytest
import torch

from mmalign.core.errors import ConfigError, DataError, MissingExtra
from mmalign.core.types import Audio, Prompt, Rollout, Status
from mmalign.data.lazy_media import LazyMedia
from mmalign.rewards import Guarded, load_reward
from mmalign.rewards.models.clap_laion import as_clap_model, read_original, renamed
from mmalign.rewards.models.clap_towers import ClapSource, load_clap
from mmalign.rewards.models.waves import waves, windows
from tests.rewards.doubles import noting
from tests.rewards.sounds import RATE, rollout, tones

TEXTS = ["a red circle", "a red circle", "two blue square", "two blue square"]


def own_features(folder, wave):
    """transformers' extractor and model on one wave of at most a window."""
    from transformers import ClapFeatureExtractor, ClapModel

    model, extractor = ClapModel.from_pretrained(folder).eval(), ClapFeatureExtractor.from_pretrained(folder)
    inputs = extractor(wave.numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        return model, model.get_audio_features(
            inputs["input_features"], is_longer=torch.tensor([[False]])
        ).pooler_output


@pytest.mark.parametrize("which", ["tiny_clap", "tiny_fused_clap"])
def test_cosine_equals_transformers_own_pipeline(which, request):
    from transformers import AutoTokenizer

    folder, sounds = request.getfixturevalue(which), tones(seconds=0.6)
    reward = load_reward("clap", checkpoint=str(folder))
    value = reward(sounds).value
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    for row in range(4):
        model, features = own_features(folder, sounds.output.samples[row, 0])
        with torch.no_grad():
            text = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output[row]
        assert value[row].item() == pytest.approx((features[0] @ text).item(), abs=1e-5)
    logit = load_reward("clap", checkpoint=str(folder), score="logit")
    assert torch.allclose(logit(sounds).value, value * model.logit_scale_a.exp().detach(), atol=1e-4)
    assert logit.range[1] == pytest.approx(model.logit_scale_a.exp().item())


def test_windows_cover_a_long_sound_end_to_end():
    wave = torch.arange(25.0)
    assert windows(wave, 10, 10)[:, 0].tolist() == [0, 10, 15] and windows(wave, 10, 5)[:, 0].tolist() == [0, 5, 10, 15]
    assert windows(wave[:20], 10, 10)[:, 0].tolist() == [0, 10]
    assert windows(wave[:3] + 1, 8, 8).tolist() == [[1, 2, 3, 1, 2, 3, 0, 0]]
    assert windows(wave[:3] + 1, 8, 8, "repeat").tolist() == [[1, 2, 3, 1, 2, 3, 1, 2]]
    assert windows(wave[:3] + 1, 8, 8, "pad").tolist() == [[1, 2, 3, 0, 0, 0, 0, 0]]
    assert windows(wave[:1], 2, 2).shape == (1, 2) and windows(wave[:0], 2, 2).shape == (0, 2)


def test_long_sounds_are_embedded_alike_every_time(tiny_clap):
    """The libraries' own front ends crop at random: cosines of a clip with itself of 0.3 to 0.99."""
    sounds = tones(3, seconds=3.7, channels=2)
    towers = load_clap(ClapSource(str(tiny_clap)))
    first = towers.sounds(sounds.output)
    for _ in range(4):
        torch.rand(1)  # whatever the global generator says
        assert torch.equal(first, towers.sounds(sounds.output))
    assert torch.allclose((first * first).sum(1), torch.ones(3), atol=1e-6)
    alone = torch.cat([towers.sounds(sounds.output[i : i + 1]) for i in range(3)])
    assert torch.allclose(first, alone, atol=1e-6)
    by_hand = [towers.windows(sounds.output[:1])[0].mean(0)]
    assert len(towers.windows(sounds.output[:1])[0]) == 4
    assert torch.allclose(first[0], by_hand[0] / by_hand[0].norm(), atol=1e-6)
    assert len(load_clap(ClapSource(str(tiny_clap), hop=0.5)).windows(sounds.output)[0]) == 7


def test_rate_channels_and_mask_do_not_matter(tiny_clap):
    towers = load_clap(ClapSource(str(tiny_clap)))
    sounds = tones(2, seconds=0.5)
    plain = towers.sounds(sounds.output)
    stereo = Audio(sounds.output.samples.expand(-1, 2, -1), RATE)
    assert torch.allclose(towers.sounds(stereo), plain, atol=1e-6)
    mask = (torch.arange(2700) < 2000).expand(2, -1)
    padded = Audio(torch.cat([sounds.output.samples, torch.ones(2, 1, 700)], 2), RATE, mask)
    assert torch.allclose(towers.sounds(padded), plain, atol=1e-6)
    tone = [
        torch.sin(torch.arange(int(0.5 * rate)) / rate * 2 * torch.pi * 440).expand(1, 2, -1) for rate in (RATE, 11_025)
    ]
    near, far = (waves(Audio(samples, rate), RATE)[0] for samples, rate in zip(tone, (RATE, 11_025), strict=True))
    assert len(near) == len(far) == 2000 and (near - far)[50:-50].abs().max() < 1e-2


def test_gradient_reaches_the_samples_and_no_weight(tiny_clap):
    sounds = tones(4, seconds=1.3, rate=5000, channels=2)
    reward = load_reward("clap", checkpoint=str(tiny_clap))
    sounds.output.samples.requires_grad_()
    reward(sounds).value[0].backward()
    grad = sounds.output.samples.grad
    assert grad[0].norm() > 0 and grad[1:].abs().max() == 0 and grad.isfinite().all()
    assert all(p.grad is None and not p.requires_grad for p in reward.towers.module.parameters())
    direction = grad[0] / grad[0].norm()
    with torch.no_grad():
        ends = []
        for h in (2e-3, -2e-3):
            moved = Rollout(
                sounds.prompts[:1], Audio(sounds.output.samples[:1] + h * direction, 5000), sounds.group[:1]
            )
            ends.append(reward(moved).value)
    assert ((ends[0] - ends[1]) / 4e-3).item() == pytest.approx(grad[0].norm().item(), rel=0.05)


def test_sounds_without_sound_are_errors_of_their_rows(tiny_clap):
    samples = tones(4).output.samples.repeat(1, 1, 1)
    samples[1, 0, 7] = float("nan")
    mask = torch.ones(4, samples.shape[2], dtype=torch.bool)
    mask[2] = False
    scores = Guarded("clap", load_reward("clap", checkpoint=str(tiny_clap)))(rollout(samples, mask=mask))
    assert scores.status.tolist() == [Status.OK, Status.ERROR, Status.ERROR, Status.OK]
    assert scores.value[1:3].isnan().all() and "empty or not finite" in scores.info[1]
    one = load_reward("clap", checkpoint=str(tiny_clap))(rollout(torch.full((1, 1, 1), 0.5)))
    assert one.status.tolist() == [Status.OK]  # one sample is a sound
    silent = load_reward("clap", checkpoint=str(tiny_clap))(rollout(torch.zeros(1, 1, 900)))
    assert silent.status.tolist() == [Status.OK] and silent.value.isfinite().all()


def test_a_sound_is_not_held_to_an_empty_prompt(tiny_clap):
    samples = tones(4).output.samples.clone()
    samples[3, 0, 7] = float("nan")
    whole = rollout(samples)
    whole.prompts = [Prompt(text) for text in ("a red circle", "", "  ", "")]
    scores = Guarded("clap", load_reward("clap", checkpoint=str(tiny_clap)))(whole)
    assert scores.status.tolist() == [Status.OK, Status.NOT_APPLICABLE, Status.NOT_APPLICABLE, Status.ERROR]
    assert scores.value[1:].isnan().all() and scores.info[:2] == ["", "the prompt is empty"]


def test_captions_are_judged_against_their_sound(tiny_clap):
    sounds = tones(2)
    sound = sounds.output[:1]
    prompts = [
        Prompt("describe", media={"audio": sound.samples[0]}, meta={"rate": RATE}),
        Prompt("describe", media={"audio": sound}),
        Prompt("describe", media={"audio": sound.samples[0]}, meta={"rate": RATE}),
        Prompt("describe", media={"audio": sound.samples[0]}),
    ]
    captions = ["a red circle", "a red circle", " ", "a star"]
    reward = load_reward("clap", checkpoint=str(tiny_clap))
    scores = reward(Rollout(prompts, captions, torch.arange(4)))
    assert scores.status.tolist() == [Status.OK, Status.OK, Status.PARSE_FAIL, Status.NOT_APPLICABLE]
    assert torch.allclose(scores.value[:2], reward(sounds[:1]).value.expand(2), atol=1e-6) and scores.value[2] == -1


def test_captions_of_one_sound_hear_it_once_and_a_file_that_is_not_there_is_its_rows_error(tiny_clap, tmp_path):
    reward, calls = load_reward("clap", checkpoint=str(tiny_clap)), []
    towers = reward.towers
    encode = towers.encode_waves
    prompt = Prompt("describe", media={"audio": tones(2).output[:1]})
    gone = Prompt("describe", media=LazyMedia({"audio": "gone.wav"}, tmp_path, "row 3"))
    try:
        towers.encode_waves = noting(encode, lambda part: calls.append(len(part)))
        scores = Guarded("c", reward, failed_share=1.0)(
            Rollout([prompt, prompt, prompt, gone], ["a star", "a red circle", "two blue", "a"], torch.arange(4))
        )
    finally:
        towers.encode_waves = encode
    assert calls == [1] and scores.status.tolist() == [Status.OK] * 3 + [Status.ERROR]
    assert "gone.wav cannot be read" in scores.info[3]


def test_a_collapsed_text_tower_is_refused_when_it_is_loaded(tiny_clap, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_clap, tmp_path / "clap")
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.linear2.weight"] *= 1e-3  # only the bias is left to speak
    weights["text_projection.linear2.bias"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        DataError, match=r"text tower has collapsed: 4 unrelated texts have a mean cosine of (1\.0|0\.99)"
    ):
        load_reward("clap", checkpoint=str(folder))(tones())
    with pytest.raises(DataError, match="collapsed"):  # an error of the set-up ends the run: it is not one of a row
        Guarded("clap", load_reward("clap", checkpoint=str(folder)))(tones())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"checkpoint": "assets/no_such_clap"}, "assets/no_such_clap: no such file or folder, and not a Hub id"),
        ({"checkpoint": "a/b", "hop": -1.0}, r"hop: must be at least 0 \(got -1\.0\)"),
        ({"checkpoint": "a/b", "backend": "laion"}, "laion reads one file of original weights"),
        ({}, r"rewards\.x\.checkpoint: missing"),
    ],
)
def test_faults_of_options_are_said_before_loading(options, message):
    from mmalign.rewards import rewards

    with pytest.raises(ConfigError, match=message):
        rewards.build({"name": "clap", **options}, "rewards.x")


def test_folders_and_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json in it; not a transformers CLAP checkpoint"):
        load_reward("clap", checkpoint=str(tmp_path))
    (tmp_path / "w.bin").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"laion-clap's weights are \.pt or \.safetensors files"):
        load_reward("clap", checkpoint=str(tmp_path / "w.bin"))
    (tmp_path / "w.pt").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"w\.pt: cannot be read as plain weights"):
        read_original(tmp_path / "w.pt")
    torch.save({"state_dict": {"module.x": torch.ones(1)}}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="lacks audio_branch and text_projection"):
        read_original(tmp_path / "w.pt")


# laion-clap --------------------------------------------------------------------------------------------------------

NAMES = [  # ClapModel's names in those of LAION-AI/CLAP, written down from its modules
    ("text_model.", "text_branch."),
    ("audio_model.audio_encoder.batch_norm.", "audio_branch.bn0."),
    ("audio_model.audio_encoder.", "audio_branch."),
    ("_projection.linear1.", "_projection.0."),
    ("_projection.linear2.", "_projection.2."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.output.dense.", "attn.proj."),
    ("attention.self.relative", "attn.relative"),
    ("intermediate.dense.", "mlp.fc1."),
]


def original(folder):
    """The tiny checkpoint as laion-clap would hold it: its names, qkv in one, and the parts ClapModel lacks."""
    from transformers import ClapModel

    model, state = ClapModel.from_pretrained(folder), {}
    for key, value in model.state_dict().items():
        audio = key.startswith("audio_model")
        name = key
        for new, old in NAMES if audio else [pair for pair in NAMES if "layernorm" not in pair[0]][:5]:
            name = name.replace(new, old)
        if audio:
            name = name.replace(".output.dense.", ".mlp.fc2.")
        if audio and ".attention.self.query" in name:
            parts = [model.state_dict()[key.replace("query", part)] for part in ("query", "key", "value")]
            name, value = name.replace("attention.self.query", "attn.qkv"), torch.cat(parts)
        if not (audio and ("self.key" in name or "self.value" in name)):
            state[f"module.{name}"] = value.clone()
    more = ["text_transform.sequential.0.weight", "audio_branch.tscam_conv.weight", "audio_branch.head.bias"]
    more += ["audio_branch.spectrogram_extractor.stft.conv_real.weight", "audio_branch.logmel_extractor.melW"]
    return state | {f"module.{name}": torch.ones(2) for name in more}


@pytest.mark.parametrize("which", ["tiny_clap", "tiny_fused_clap"])
def test_original_weights_score_as_the_converted_ones(which, request, tmp_path):
    folder = request.getfixturevalue(which)
    state = original(folder)
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "original.pt")
    model = as_clap_model(read_original(tmp_path / "original.pt"))
    from transformers import ClapModel

    wanted = ClapModel.from_pretrained(folder)
    assert model.config.audio_config.depths == wanted.config.audio_config.depths
    assert model.config.audio_config.window_size == 4 and model.config.audio_config.spec_size == 64
    weights = renamed({key.removeprefix("module."): value for key, value in state.items()})
    assert all(torch.equal(weights[key], value) for key, value in wanted.named_parameters())


def test_a_file_of_original_weights_is_a_checkpoint(tiny_clap, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setattr("mmalign.rewards.models.clap_towers._COLLAPSED", 1.1)  # untrained, with other heads: see below

    state = {key.removeprefix("module."): value for key, value in original(tiny_clap).items()}
    save_file(state, tmp_path / "original.safetensors")
    sounds = tones()
    scores = load_reward("clap", checkpoint=str(tmp_path / "original.safetensors"), processor=str(tiny_clap))
    converted = load_reward("clap", checkpoint=str(tiny_clap))
    # One head of 64 instead of two of 16 in the text tower: RoBERTa's width is all a file tells.
    assert torch.allclose(scores.towers.sounds(sounds.output), converted.towers.sounds(sounds.output), atol=1e-6)
    with pytest.raises(DataError, match="names differ, first"):
        as_clap_model({key: value for key, value in state.items() if "norm1" not in key})


def test_without_laion_clap_the_backend_says_what_to_install(tiny_clap, tmp_path):
    torch.save(original(tiny_clap), tmp_path / "original.pt")
    reward = load_reward("clap", checkpoint=str(tmp_path / "original.pt"), backend="laion")
    with pytest.raises(MissingExtra, match=r"numpy below 2\) needs the 'laion' extra: pip install 'mmalign\[laion\]'"):
        reward(tones())
