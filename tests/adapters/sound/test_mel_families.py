"""AudioLDM, MusicLDM and AudioLDM 2 against their pipelines: DDIM, durations, spectrograms, vocoder, LoRA."""

from __future__ import annotations

import diffusers
import pytest
import torch

from mmalign.adapters.sound._mel_adapter import Mel, mel_sounds
from mmalign.adapters.sound.audio_ldm import AudioLDM
from mmalign.adapters.sound.audio_ldm2 import AudioLDM2, check_reads_prompts
from mmalign.adapters.sound.music_ldm import MusicLDM
from mmalign.core.errors import CapabilityError, CheckpointError, ConfigError, MediaError
from mmalign.core.protocols import LatentAdapter
from mmalign.core.types import Audio, Prompt
from tests.adapters.deterministic import sample
from tests.adapters.sound.tiny_ldm import BANDS, HOP, RATE, write_audio_ldm, write_audio_ldm2, write_music_ldm
from tests.adapters.tiny_contract import (
    SCALE,
    STEPS,
    TEXTS,
    Family,
    a_row_does_not_depend_on_its_batch,
    disturb,
    each_text_is_encoded_once,
    plain_diffusers_loads_the_full_fine_tune,
    plain_peft_loads_the_lora,
    start_of,
    the_reference_is_exact_and_comes_back_from_errors,
)

SECONDS = 0.05  # 80 samples, 20 frames, 10 latents
MEL = Mel(window=16)


def options(start, steps, scale, output, seconds):
    return {
        "latents": start,
        "num_inference_steps": steps,
        "guidance_scale": scale,
        "audio_length_in_s": seconds,
        "output_type": output,
    }


def call_audio(pipe, texts, start, steps, scale, output, negative=None, seconds=SECONDS):
    """The pipeline as it is; it has no other way to give latents than to show them after each step."""
    negatives, seen = None if negative is None else [negative] * len(texts), []
    given = options(start, steps, scale, "pt", seconds)
    heard = pipe(texts, negative_prompt=negatives, callback=lambda i, t, x: seen.append(x), **given).audios
    return seen[-1] if output == "latent" else heard


def call_music(pipe, texts, start, steps, scale, output, negative=None, seconds=SECONDS):
    """The pipeline, given embeddings: with transformers 5 it cannot make them itself."""

    def embedded(texts):
        given = pipe.tokenizer(texts, padding=True, return_tensors="pt")
        return pipe.text_encoder.get_text_features(**given).pooler_output

    with torch.no_grad():
        given = {"prompt_embeds": embedded(texts), "negative_prompt_embeds": embedded([negative or ""] * len(texts))}
    return pipe(**given, **options(start, steps, scale, output, seconds)).audios


def call_audio2(pipe, texts, start, steps, scale, output, negative=None, seconds=SECONDS):
    """The pipeline, a text at a time (its conditions depend on the batch), given negatives that were read alone."""
    made = []
    for i, text in enumerate(texts):
        with torch.no_grad():
            states, mask, written = pipe.encode_prompt([text], "cpu", 1, False)
            empty, seen, none = pipe.encode_prompt([negative or ""], "cpu", 1, False)
        length = max(states.shape[1], empty.shape[1])

        def longer(value, length=length):
            return torch.nn.functional.pad(value, [0, 0] * (value.dim() - 2) + [0, length - value.shape[1]])

        given = {
            "prompt_embeds": longer(states),
            "attention_mask": longer(mask),
            "generated_prompt_embeds": written,
            "negative_prompt_embeds": longer(empty),
            "negative_attention_mask": longer(seen),
            "negative_generated_prompt_embeds": none,
        }
        made.append(pipe(**given, **options(start[i : i + 1], steps, scale, output, seconds)).audios)
    return torch.cat(made)


KINDS = {
    "audio_ldm": (AudioLDM, "AudioLDMPipeline", write_audio_ldm, call_audio, "text_encoder"),
    "music_ldm": (MusicLDM, "MusicLDMPipeline", write_music_ldm, call_music, "text_encoder.text_model"),
    "audio_ldm2": (AudioLDM2, "AudioLDM2Pipeline", write_audio_ldm2, call_audio2, "text_encoder.text_model"),
}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The description of a family by its name; its checkpoint is written when first asked for."""
    written = {}

    def family(name):
        adapter, pipeline, write, call, encoder = KINDS[name]
        if name not in written:
            with torch.random.fork_rng():
                written[name] = write(tmp_path_factory.mktemp(name) / "tiny")
        own = {"max_sequence_length": 40} if adapter is AudioLDM2 else {}
        given = {"seconds": SECONDS, "mel": MEL} | own
        kind = getattr(diffusers, pipeline)
        return Family(adapter, kind, written[name], call, given, component="unet", encoder=encoder)

    return family


@pytest.fixture(scope="module", params=KINDS)
def family(request, described):
    return described(request.param)


@pytest.fixture(scope="module", params=["music_ldm", "audio_ldm2"])
def trained(request, described):
    """AudioLDM and MusicLDM train the same network in the same way."""
    return described(request.param)


@pytest.fixture(scope="module")
def ready(family):
    """An adapter and a plain pipeline for tests that change neither."""
    return family.make(), family.plain()


@pytest.mark.parametrize(
    "check",
    [
        a_row_does_not_depend_on_its_batch,
        each_text_is_encoded_once,
        plain_diffusers_loads_the_full_fine_tune,
        the_reference_is_exact_and_comes_back_from_errors,
    ],
)
def test_contract(check, family, tmp_path):
    check(family, tmp_path)


@pytest.mark.parametrize("scale", [1.0, SCALE])
def test_latents_and_sound_are_the_pipelines(family, ready, scale):
    adapter, pipe = ready
    start = start_of(adapter)
    expected = family.call(pipe, TEXTS, start, STEPS, scale, "latent")
    ours = sample(adapter, TEXTS, start, STEPS, scale)
    assert (ours - expected).abs().max() <= 1e-4 and (ours - start).abs().max() > 0.1
    sound, heard = adapter.decode(ours), family.call(pipe, TEXTS, start, STEPS, scale, "pt")
    assert sound.rate == RATE == adapter.rate and sound.samples.shape == (2, 1, int(SECONDS * RATE))
    assert isinstance(adapter, LatentAdapter)
    assert (sound.samples[:, 0] - heard).abs().max() <= 1e-4 and heard.abs().max() > 1e-3


def test_a_negative_prompt_is_the_pipelines(family, ready):
    adapter, pipe = family.make(negative_prompt="noise"), ready[1]
    start = start_of(adapter)
    expected = family.call(pipe, TEXTS, start, STEPS, SCALE, "latent", "noise")
    assert (sample(adapter, TEXTS, start, STEPS, SCALE) - expected).abs().max() <= 1e-4
    assert (family.call(pipe, TEXTS, start, STEPS, SCALE, "latent") - expected).abs().max() > 1e-5


def test_the_policy_at_eta_0_is_the_deterministic_pipeline_and_replays_itself(family, ready):
    from mmalign.policies.ddpm import Ddpm

    adapter, pipe = ready
    prompts = [Prompt(text) for text in TEXTS]
    policy = Ddpm(adapter, num_inference_steps=STEPS, guidance_scale=SCALE, eta=1.0, rows=2)
    rollout = policy.generate(prompts, torch.Generator().manual_seed(3))
    noise = torch.randn(2, *adapter.latent_shape, generator=torch.Generator().manual_seed(3))
    expected = family.call(pipe, TEXTS, noise, STEPS, SCALE, "latent")
    assert (rollout.trajectory["x0"] - expected).abs().max() <= 1e-4
    drawn = policy.sample(prompts, torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert torch.equal(policy.step_log_prob(drawn), drawn.step_logp)


def test_plain_peft_loads_the_lora(trained, tmp_path):
    plain_peft_loads_the_lora(trained, tmp_path)


def test_gradients_reach_what_trains_and_the_latents_and_recomputing_changes_none(trained):
    grads = []
    for more in ({}, {"gradient_checkpointing": True}, {"dtype": "bf16", "gradient_checkpointing": True}):
        adapter = trained.make(**more)
        disturb(adapter)
        x = start_of(adapter).requires_grad_()
        said = adapter.predict(x, torch.tensor([900.0, 300.0]), adapter.encode([Prompt(t) for t in TEXTS]))
        assert said.dtype == torch.float32 and adapter.decode(said).samples.dtype == torch.float32
        adapter.decode(said).samples.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.trainable().values())
        assert any(p.grad.abs().max() > 0 for p in adapter.trainable().values()) and x.grad.abs().max() > 0
        pipe = adapter.loaded.pipeline
        assert not any(p.requires_grad for part in (pipe.vae, pipe.vocoder) for p in part.parameters())
        grads.append(torch.cat([p.grad.flatten() for p in adapter.trainable().values()]))
    assert (grads[0] - grads[1]).norm() <= 1e-4 * grads[0].norm()


def test_the_decoders_gradient_is_its_slope(trained):
    adapter = trained.make()
    sounds = adapter.loaded.autoencoder
    sounds.vae.double(), sounds.vocoder.double()
    x, direction = (torch.randn(1, *adapter.latent_shape, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    (slope,) = torch.autograd.grad(sounds._sound(x).square().sum(), x)
    with torch.no_grad():
        ends = [sounds._sound(x + sign * 1e-6 * direction).square().sum() for sign in (1, -1)]
    torch.testing.assert_close((slope * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-8)


def test_only_the_latents_that_a_length_needs(family, ready):
    assert ready[0].latent_shape == (4, 10, BANDS // 2)
    odd = family.make(seconds=0.053)  # 84.8 samples, 21.2 frames: 22 of them, 11 latents
    assert odd.latent_shape == (4, 11, 4) and odd.decode(start_of(odd)).samples.shape == (2, 1, 84)
    heard = family.call(ready[1], TEXTS[:1], start_of(odd, 1), 1, 1.0, "latent", seconds=0.053)
    assert heard.shape[1:] == odd.latent_shape
    longest = family.make(seconds=None)
    assert longest.seconds == pytest.approx(8 * 2 * HOP / RATE) and longest.latent_shape == (4, 8, 4)
    with pytest.raises(ConfigError, match=r"seconds: 0\.004 is shorter than one latent of this model \(0\.005 s\)"):
        family.make(seconds=0.004)


def test_sound_becomes_the_latents_the_autoencoder_says(family, ready):
    adapter = ready[0]
    sound = torch.rand(2, 1, 80) - 0.5
    found = adapter.latents(Audio(sound, RATE))
    vae = adapter.loaded.pipeline.vae
    with torch.no_grad():
        seen = MEL.of(sound[:, 0], RATE, HOP, BANDS)[:, None]
        expected = vae.encode(seen).latent_dist.mode() * 0.9
    assert seen.shape == (2, 1, 20, BANDS) and found.shape == (2, *adapter.latent_shape) and not found.requires_grad
    torch.testing.assert_close(found, expected)
    mask = torch.ones(2, 80, dtype=torch.bool)
    mask[:, 50:] = False
    torch.testing.assert_close(adapter.latents(Audio(sound, RATE, mask)), adapter.latents(Audio(sound[..., :50], RATE)))


@pytest.mark.parametrize(
    ("sound", "why"),
    [
        (Audio(torch.zeros(1, 1, 8), 16_000), "sound at 16000 Hz; this model's is at 1600 Hz: resample it first"),
        (Audio(torch.zeros(1, 2, 8), RATE), "sound of 2 channels; this model's has 1: mix or repeat"),
        (Audio(torch.zeros(1, 1, 96), RATE), r"sound of 0\.06 s; this adapter makes 0\.05 s: raise seconds, or cut"),
        (Audio(torch.full((1, 1, 8), float("nan")), RATE), "samples that are not finite"),
    ],
)
def test_sound_that_does_not_fit_is_refused(family, ready, sound, why):
    with pytest.raises(MediaError, match=why):
        ready[0].latents(sound)


def test_prompts_matter_and_media_is_refused(family, ready):
    adapter = ready[0]
    x, times = start_of(adapter, 1).expand(2, -1, -1, -1), torch.full((2,), 500.0)
    with torch.no_grad():
        one, other = adapter.predict(x, times, adapter.encode([Prompt(t) for t in TEXTS]))
    assert (one - other).abs().max() > 1e-4
    with pytest.raises(CapabilityError, match=r"row 0: the prompt carries media \(audio\) and '\w+_ldm2?' reads text"):
        adapter.encode([Prompt("x", media={"audio": torch.zeros(1, 4)})])
    with pytest.warns(UserWarning, match=r"the last 9 of 41 tokens .* are cut; shorten it\."):
        adapter.encode([Prompt("a" * 39)])


@pytest.mark.parametrize("rate", [16_000])
def test_spectrograms_are_those_of_the_published_training_code(rate):
    """Its steps written with librosa's conventions: reflected ends, no centring, Slaney's areas, log of 1e-5."""
    import numpy as np
    from scipy.signal import get_window
    from transformers.audio_utils import mel_filter_bank

    wave = torch.randn(1, 1600, generator=torch.Generator().manual_seed(0)).double() * 0.1
    ends = np.pad(wave[0].numpy(), 432, mode="reflect")
    frames = np.stack([ends[i : i + 1024] for i in range(0, len(ends) - 1024 + 1, 160)])
    spectra = np.abs(np.fft.rfft(frames * get_window("hann", 1024), axis=1))
    bank = mel_filter_bank(513, 64, 0.0, 8000.0, rate, norm="slaney", mel_scale="slaney")
    expected = torch.from_numpy(np.log(np.maximum(spectra @ bank, 1e-5)))
    torch.testing.assert_close(Mel().of(wave, rate, 160, 64)[0], expected)


def test_spectrograms_of_frames_on_samples_are_what_torchaudio_computes():
    from torchaudio.functional import melscale_fbanks

    rate, hop, size, bins, lowest, highest, floor = 16_000, 256, 1024, 64, 150.0, 7_600.0, 1e-4
    wave = torch.randn(2, 40 * hop, generator=torch.Generator().manual_seed(0)) * 0.1
    window = torch.hann_window(size)
    spectrum = torch.stft(wave, size, hop, window=window, pad_mode="constant", return_complex=True)
    bank = melscale_fbanks(size // 2 + 1, lowest, highest, bins, rate, norm="slaney", mel_scale="slaney")
    expected = (spectrum[..., :40].abs().transpose(1, 2) @ bank).clamp_min(floor).log()
    mel = Mel(size, lowest, highest, floor, "on")
    torch.testing.assert_close(mel.of(wave, rate, hop, bins)[:, :40], expected, rtol=1e-3, atol=1e-3)


def test_faults_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)window: 1 is no frame; .*floor: 0 has no logarithm"):
        Mel(window=1, floor=0)
    folder = write_music_ldm(tmp_path / "music")
    with pytest.raises(
        CheckpointError, match=r"holds a MusicLDMPipeline, .* drives AudioLDM2Pipeline\. Use adapter 'music"
    ):
        AudioLDM2(str(folder), device="cpu").load()
    pipe = diffusers.MusicLDMPipeline.from_pretrained(folder)
    pipe.vocoder.config.model_in_dim = 7
    with pytest.raises(CapabilityError, match="one spectrogram of 7 bands; they do not fit"):
        mel_sounds(pipe, "m", None, Mel(), 1, False)
    index = folder / "model_index.json"  # what only ranks sounds need not be there
    index.write_text(
        index.read_text()
        .replace('"ClapFeatureExtractor"', "null")
        .replace('"feature_extractor": [\n    "transformers"', '"feature_extractor": [\n    null')
    )
    MusicLDM(str(folder), device="cpu").load()


def test_a_language_model_without_a_head_says_the_same(tmp_path):
    """Published checkpoints hold a GPT2Model, with which the pipeline itself does not run any more."""
    said = []
    for head in (True, False):
        with torch.random.fork_rng():
            folder = write_audio_ldm2(tmp_path / str(head), head=head)
        said.append(AudioLDM2(str(folder), device="cpu", seconds=SECONDS).load().encode([Prompt("a red cube")]))
    for name, value in said[0].items():
        torch.testing.assert_close(value, said[1][name])
    assert said[0]["encoder_hidden_states"].shape == (1, 3, 24)
    pipe = diffusers.AudioLDM2Pipeline.from_pretrained(folder)
    with pytest.raises(AttributeError, match="_update_model_kwargs_for_generation"):
        pipe.encode_prompt(["a red cube"], "cpu", 1, False)


def test_checkpoints_that_read_a_transcription_are_refused():
    from transformers import T5Config, VitsConfig

    check_reads_prompts(T5Config(), "m")
    with pytest.raises(CapabilityError, match="m: its second encoder is a vits, which reads a transcription besides"):
        check_reads_prompts(VitsConfig(), "m")
