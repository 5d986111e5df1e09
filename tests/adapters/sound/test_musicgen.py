"""MusicGen against transformers' own forward and generate: delays, guidance, densities, EnCodec, LoRA."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.adapters.sound._delays import Delays
from mmalign.adapters.sound.musicgen import MusicGen
from mmalign.adapters.weights.lora import LoRA
from mmalign.core.errors import CapabilityError, ConfigError, DataError, MediaError
from mmalign.core.protocols import TokenAdapter
from mmalign.core.types import Audio, Prompt
from mmalign.policies.tokens import Tokens
from tests.adapters.sound.tiny_musicgen import HOP, RATE, K, V, write_musicgen

TEXTS = ["a red cube", "two dogs, one of them asleep", "slow"]
PROMPTS = [Prompt(text) for text in TEXTS]
STEPS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("musicgen")
    return {stereo: write_musicgen(root / str(stereo), stereo) for stereo in (False, True)}


@pytest.fixture
def make(folder):
    def adapter(stereo=False, **options):
        given: dict[str, Any] = {"device": "cpu", "lora": LoRA(rank=2, alpha=4)} | options
        return MusicGen(str(folder[stereo]), **given).load()

    return adapter


def drawn(adapter, rows=4, steps=STEPS, seed=0) -> Tensor:
    """Steps as the format has them."""
    codes = torch.randint(
        0,
        V,
        (rows, adapter.delays.codebooks, adapter.delays.frames(steps)),
        generator=torch.Generator().manual_seed(seed),
    )
    return adapter.delays.delayed(codes)


def judged(adapter, rows, tokens) -> Tensor:
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    features = adapter.features(adapter.encode(PROMPTS), rows, tokens, mask)
    return adapter.logits(features.flatten(0, 1)).unflatten(0, tokens.shape[:2])


@torch.no_grad()
def plain(adapter, rows, tokens, scale) -> Tensor:
    """The model's own logits, a row at a time."""
    model, out = adapter.network.model, []
    for row, said in zip(rows.tolist(), tokens, strict=True):
        before = torch.cat([said.new_full((1, said.shape[1]), V), said[:-1]]).T  # (K, T)
        given = adapter.tokenizer([TEXTS[row]], return_tensors="pt")
        told = model(**given, decoder_input_ids=before).logits
        if scale > 1:
            nothing = model.get_unconditional_inputs(1)
            untold = model(
                encoder_outputs=nothing.encoder_outputs,
                attention_mask=nothing.attention_mask,
                decoder_input_ids=before,
            ).logits
            told = untold + scale * (told - untold)
        out.append(told.transpose(0, 1))
    return torch.stack(out)


@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_logits_are_transformers(make, stereo, scale):
    adapter = make(stereo, guidance_scale=scale)
    assert isinstance(adapter, TokenAdapter) and adapter.event_shape == (K * (1 + stereo),)
    rows, tokens = torch.tensor([0, 2, 1, 1]), drawn(adapter)
    got, want = judged(adapter, rows, tokens), plain(adapter, rows, tokens, scale)
    assert want.std() > 0.1 and (got - want).abs().max() <= 1e-4 * want.abs().max()


@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_greedy_sound_is_that_of_generate(make, stereo, scale):
    adapter = make(stereo, guidance_scale=scale)
    made = Tokens(adapter, max_new_tokens=STEPS).generate(PROMPTS[1:2], torch.Generator())
    given = adapter.tokenizer(TEXTS[1:2], return_tensors="pt")
    want = adapter.network.model.generate(**given, do_sample=False, guidance_scale=scale, max_new_tokens=STEPS)
    assert made.output.rate == RATE and made.output.mask is None and made.truncated is None
    assert made.output.samples.shape == want.shape == (1, 1 + stereo, (STEPS + 1 - K) * HOP)
    torch.testing.assert_close(made.output.samples, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_what_is_drawn_is_what_is_replayed(make, scale):
    adapter = make(guidance_scale=scale)
    policy = Tokens(adapter, max_new_tokens=STEPS)
    rollout = policy.sample([p for p in PROMPTS for _ in range(2)], torch.Generator().manual_seed(0))
    tokens = rollout.trajectory["tokens"]
    assert rollout.mask.all() and policy.event_size == K
    assert torch.equal((tokens < V), adapter.delays.free(STEPS).expand_as(tokens))  # and no code outside the pattern
    said = policy.step_dist(rollout)
    assert (rollout.step_logp - said.log_prob).abs().max() <= 1e-4
    logits = judged(adapter, torch.arange(6) // 2, tokens).double()
    free = tokens < V
    by_hand = logits.log_softmax(-1).gather(-1, tokens.where(free, 0)[..., None])[..., 0].where(free, 0).sum(-1)
    assert (by_hand - said.log_prob).abs().max() <= 1e-4
    alone = policy.sample(PROMPTS[1:2], torch.Generator(), seeds=rollout.trajectory["seed"][2:3])
    assert torch.equal(alone.trajectory["tokens"][0], tokens[2])


def test_draws_follow_the_density(make):
    """The first code's frequencies against its softmax, 5 standard errors."""
    adapter = make()
    policy = Tokens(adapter, max_new_tokens=K)
    rollout = policy.sample(PROMPTS[:1] * 500, torch.Generator().manual_seed(1))
    chances = judged(adapter, torch.tensor([0]), rollout.trajectory["tokens"][:1])[0, 0, 0].softmax(-1)
    found = torch.bincount(rollout.trajectory["tokens"][:, 0, 0], minlength=V) / 500
    assert ((found - chances).abs() <= 5 * (chances * (1 - chances) / 500).sqrt() + 1e-3).all()


def test_delays_and_back():
    delays = Delays(4, 1, V)
    codes = torch.arange(24).reshape(1, 4, 6)
    steps = delays.delayed(codes)
    assert steps.shape == (1, 9, 4) and torch.equal(delays.aligned(steps), codes)
    assert steps[0, 0].tolist() == [0, V, V, V] and steps[0, 8].tolist() == [V, V, V, 23]
    stereo = Delays(8, 2, V)
    assert stereo.free(9).int().sum() == 8 * 6 and torch.equal(stereo.free(9)[0], torch.arange(8) < 2)
    with pytest.raises(
        DataError, match="3 steps say no whole frame of 4 codebooks; set the policy's max_new_tokens to"
    ):
        delays.frames(3)


def test_the_pattern_is_transformers(make):
    adapter = make(True)
    start = torch.full((2 * K, 1), V)
    _, pattern = adapter.network.model.decoder.build_delay_pattern_mask(start, V, 1 + STEPS)
    assert torch.equal(pattern[:, 1:].T == -1, adapter.delays.free(STEPS))


@pytest.mark.parametrize("stereo", [False, True])
def test_given_sounds_become_the_codes_of_encodec(make, stereo):
    adapter = make(stereo)
    samples = torch.rand(2, 1 + stereo, 40, generator=torch.Generator().manual_seed(2)) - 0.5
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[1, 30:] = False
    tokens, live = adapter.tokenize(Audio(samples, RATE, mask))
    assert live.sum(1).tolist() == [10 + K - 1, math.ceil(30 / HOP) + K - 1]
    codec = adapter.network.model.audio_encoder
    for row, length in ((0, 40), (1, 30)):
        said = adapter.delays.aligned(tokens[row : row + 1, live[row]])
        sides = samples[row, :, None, None, :length]
        want = [codec.encode(side, bandwidth=3.2).audio_codes[0, 0] for side in sides]
        assert torch.equal(said[0], torch.stack(want, 1).flatten(0, 1)) and (said < V).all()
    rollout = Tokens(adapter).observe(PROMPTS[:2], Audio(samples, RATE, mask))
    assert Tokens(adapter).log_prob(rollout, {}).where(~rollout.mask, 0).abs().max() == 0
    heard = adapter.decode(tokens, live)
    assert heard.samples.shape == (2, 1 + stereo, 40) and heard.mask.sum(1).tolist() == [40, 32]


def test_plain_peft_loads_the_lora_of_the_decoder(make, tmp_path):
    from peft import PeftModel
    from transformers import MusicgenForConditionalGeneration

    adapter = make(guidance_scale=1.0)
    assert all(name.startswith("decoder.model.decoder.layers.") for name in adapter.trainable())
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight.normal_(std=0.1)
    rows, tokens = torch.tensor([0]), drawn(adapter, 1)
    now = judged(adapter, rows, tokens).detach()
    with adapter.reference(), torch.no_grad():
        assert (judged(adapter, rows, tokens) - now).abs().max() > 1e-2
    adapter.save(tmp_path)
    base = MusicgenForConditionalGeneration.from_pretrained(adapter.model)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    before = torch.cat([tokens.new_full((1, 1, K), V), tokens[:, :-1]], 1)[0].T
    with torch.no_grad():
        said = loaded(**adapter.tokenizer(TEXTS[:1], return_tensors="pt"), decoder_input_ids=before).logits
    assert torch.allclose(said.transpose(0, 1), now[0], atol=1e-4)
    other = make(guidance_scale=1.0)
    other.restore(tmp_path)
    assert torch.equal(judged(other, rows, tokens), now)


def test_a_whole_decoder_is_saved_as_transformers_reads_it(make, tmp_path):
    from transformers import MusicgenForCausalLM

    adapter = make(train="full")
    rows, tokens = torch.tensor([0, 1]), drawn(adapter, 2)
    judged(adapter, rows, tokens).square().mean().backward()
    assert all(p.grad is not None for n, p in adapter.trainable().items() if "embed" not in n)
    assert not any(p.requires_grad for p in adapter.network.model.text_encoder.parameters())
    with torch.no_grad():
        for weight in adapter.trainable().values():
            weight += 0.01
    now = judged(adapter, rows, tokens).detach()
    adapter.save(tmp_path)
    fresh = make()
    fresh.network.model.decoder = MusicgenForCausalLM.from_pretrained(tmp_path / "decoder").eval()
    assert torch.allclose(judged(fresh, rows, tokens), now, atol=1e-5)
    other = make(train="full")
    other.restore(tmp_path)
    assert torch.equal(judged(other, rows, tokens), now)


def test_gradient_checkpointing_changes_no_gradient_and_bf16_stays_near(make):
    grads, said = [], []
    for more in ({}, {"gradient_checkpointing": True}, {"dtype": "bf16"}):
        adapter = make(**more)
        with torch.no_grad():
            for weight in adapter.trainable().values():
                weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        logits = judged(adapter, torch.tensor([0, 1]), drawn(adapter, 2))
        logits.square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in adapter.trainable().values()]))
        said.append(logits.detach())
    assert grads[0].norm() > 0 and (grads[0] - grads[1]).norm() <= 1e-4 * grads[0].norm()
    assert (said[2] - said[0]).abs().max() <= 0.1 * said[0].abs().max() and said[2].dtype == torch.float32


def test_texts_are_read_once(make):
    adapter, calls = make(cached_prompts=2), []
    adapter.network.model.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    first = adapter.encode(PROMPTS[:2])
    again = adapter.encode(PROMPTS[:2])
    assert len(calls) == 2 and all(a is b for a, b in zip(first, again, strict=True))
    adapter.encode(PROMPTS[2:])
    adapter.encode(PROMPTS[1:2])
    assert len(calls) == 3


def test_lengths_and_faults(make):
    adapter = make(train="frozen")
    assert not adapter.trainable() and not any(p.requires_grad for p in adapter.module.parameters())
    assert adapter.steps(0.1) == 20 + K - 1 and adapter.steps(0.101) == 21 + K - 1
    with pytest.raises(DataError, match="2 steps say no whole frame of 4 codebooks"):
        Tokens(adapter, max_new_tokens=2).generate(PROMPTS[:1], torch.Generator())
    with pytest.raises(CapabilityError, match=r"row 0: the prompt carries media \(audio\) and 'musicgen' reads text"):
        adapter.encode([Prompt("x", media={"audio": torch.zeros(1, 4)})])
    with pytest.raises(MediaError, match="sound at 16000 Hz; this model's is at 800 Hz"):
        adapter.tokenize(Audio(torch.zeros(1, 1, 8), 16_000))
    with pytest.raises(DataError, match="row 0: a sound without samples has no codes"):
        adapter.tokenize(Audio(torch.zeros(1, 1, 8), RATE, torch.zeros(1, 8, dtype=torch.bool)))
    with pytest.raises(ConfigError, match=r"guidance_scale: 0.5 is below 1"):
        MusicGen("m", guidance_scale=0.5)


def test_grpo_raises_what_it_is_rewarded_for(make):
    """The share of even codes, through the real objective and loop."""
    from mmalign.core.config import Trainer
    from mmalign.core.rng import Streams
    from mmalign.core.types import Scores
    from mmalign.data.batches import Batches
    from mmalign.objectives.grpo import GRPO
    from mmalign.training.loop import training_loop
    from mmalign.training.session import Session
    from mmalign.training.update import Update

    adapter = make(lora=LoRA(rank=4, alpha=8), guidance_scale=1.5)
    policy = Tokens(adapter, max_new_tokens=6)
    heard = []

    class Even:
        modalities = frozenset({"audio"})
        range = (0.0, 1.0)
        differentiable = False

        def __call__(self, rollout):
            assert rollout.output.samples.isfinite().all()
            share = (adapter.delays.aligned(rollout.trajectory["tokens"]) % 2 == 0).float().mean((1, 2))
            heard.append(share.mean().item())
            return Scores.of(share)

    from mmalign.rewards import Mix

    trainer = Trainer(steps=12, prompts_per_step=2, micro_batch_size=16, lr=3e-2)
    rule = Update(list(adapter.trainable().values()), trainer)
    session = Session(trainer, rule, Batches(PROMPTS[:2], 2, 0), Streams(0))
    training_loop(policy, GRPO(reward=Mix({"even": Even()}), group_size=16), session)
    assert sum(heard[-3:]) > 1.15 * sum(heard[:3])


def test_no_step_is_past_the_positions_that_were_trained(make):
    adapter = make()
    adapter.network.model.decoder.config.max_position_embeddings = STEPS
    inputs, rows = adapter.encode(PROMPTS[:1]), torch.zeros(1, dtype=torch.long)
    adapter.begin(inputs, rows, STEPS)
    past = rf"policy\.max_new_tokens: {STEPS + 1} steps, but .* was made for {STEPS}; .* Set {STEPS} or less \(0\.0 s\)"
    with pytest.raises(ConfigError, match=past):
        adapter.begin(inputs, rows, STEPS + 1)
    with pytest.raises(ConfigError, match=r"policy\.max_new_tokens"):
        adapter.features(inputs, rows, drawn(adapter, 1, STEPS + 1), torch.ones(1, STEPS + 1, dtype=torch.bool))


def test_a_prompt_longer_than_its_t5_was_made_for_is_said(make):
    adapter = make()
    adapter.tokenizer.model_max_length = 6
    with pytest.warns(UserWarning, match=r"musicgen: the prompt 'two dogs.*' has \d+ tokens, more than the 6 that its"):
        adapter.encode(PROMPTS)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_row_without_its_prompt_has_the_density_of_the_unconditional_branch(make, scale):
    adapter = make(guidance_scale=scale, guided_density=False)
    policy = Tokens(adapter, max_new_tokens=STEPS)
    tokens = drawn(adapter, 3)
    rollout = policy.sample(PROMPTS, torch.Generator().manual_seed(0))
    rollout.trajectory["tokens"] = tokens
    dropped = torch.tensor([False, True, False])
    with torch.no_grad():
        found = policy.log_prob(rollout, {"unconditional": dropped})
        whole = policy.log_prob(rollout, {})
        conditional, mixed = (plain(adapter, torch.arange(3), tokens, at) for at in (1.0, 2.0))
        logits = 2 * conditional - mixed  # the unconditional branch, for mixed = u + 2 (c - u)
    free = tokens < V
    log_prob = logits.log_softmax(-1).gather(-1, tokens.where(free, 0)[..., None])[..., 0].where(free, 0.0).sum(-1)
    torch.testing.assert_close(found[1], log_prob[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[[0, 2]], whole[[0, 2]], rtol=1e-4, atol=1e-4)
    assert (found[1] - whole[1]).abs().max() > 1e-3
