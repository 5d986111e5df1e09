"""Sampling, replay and other engines on tiny models of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmalign.core.capabilities import members, offers
from mmalign.core.errors import CapabilityError, CheckError, ConfigError, DataError
from mmalign.core.protocols import DensityPolicy, StepPolicy
from mmalign.core.types import Prompt, Rollout
from mmalign.objectives.grpo import GRPO
from mmalign.policies import policies
from mmalign.policies._tokens_sampling import (
    Completions,
    Request,
    SamplingParams,
    own_engine,
    penalize_repetition,
    sample_token,
    uniform_noise,
)
from mmalign.policies.tokens import Tokens
from mmalign.rewards import rule
from mmalign.training.checks import check_start
from tests.objectives.driving import stream
from tests.policies.codebooks import Frames
from tests.toys import ToyLatent

Lm = Callable[..., Any]
TEXTS = ["a red cube", "two dogs asleep a b c d e", "say"]
GROUPS = [Prompt(text) for text in TEXTS for _ in range(4)]


@rule(modalities={"text"}, range=(0.0, 1.0))
def share_of_b(prompt: Prompt, output: str) -> float:
    words = output.split()
    return words.count("b") / max(len(words), 1)


def test_it_offers_what_grpo_and_dpo_drive() -> None:
    assert policies.get("tokens") is Tokens
    assert offers(Tokens, StepPolicy) and offers(Tokens, DensityPolicy), members(StepPolicy)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("narrow", [{}, {"top_p": 0.8, "top_k": 6, "temperature": 0.8, "no_repeat_ngram": 2}])
def test_what_sampling_recorded_is_what_the_replay_finds(kind: str, narrow: dict[str, Any], lm: Lm) -> None:
    policy = Tokens(lm(kind), max_new_tokens=16, **narrow)
    rollout = policy.sample(GROUPS, stream())
    assert rollout.step_logp.dtype == torch.float32 and rollout.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert not rollout.step_logp[~rollout.mask].any()
    with torch.no_grad():
        assert (policy.step_log_prob(rollout) - rollout.step_logp).abs().max() <= 1e-5
        with policy.reference():
            assert (policy.step_log_prob(rollout) - rollout.step_logp).abs().max() <= 1e-5
    experience = GRPO(share_of_b(), group_size=4, beta=0.1).collect(policy, [Prompt(t) for t in TEXTS], stream())
    check_start(policy, experience, 5, fresh=True)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_recording_the_replay_makes_the_ratio_exactly_one(dtype: str, lm: Lm) -> None:
    policy = Tokens(lm(dtype=dtype), max_new_tokens=16, record="auto" if dtype == "bf16" else "replay", rows=6)
    rollout = policy.sample(GROUPS, stream())
    with torch.no_grad():
        assert torch.equal(policy.step_log_prob(rollout), rollout.step_logp)
        assert torch.equal(policy.step_log_prob(rollout[:6]), rollout.step_logp[:6])
        own = replace(policy, record="sampler").sample(GROUPS, stream())
    assert torch.equal(own.trajectory["tokens"], rollout.trajectory["tokens"])
    assert not torch.equal(own.step_logp, rollout.step_logp)
    experience = GRPO(share_of_b(), group_size=4, beta=0.1).collect(policy, [Prompt(t) for t in TEXTS], stream())
    check_start(policy, experience, 6, fresh=True)


def test_in_bf16_sampling_and_training_may_be_split_differently(lm: Lm) -> None:
    policy = Tokens(lm(dtype="bf16"), max_new_tokens=16)
    experience = GRPO(share_of_b(), group_size=4).collect(policy, [Prompt(t) for t in TEXTS], stream())
    with torch.no_grad():
        parts = torch.cat([policy.step_log_prob(experience.rollout[i : i + 4]) for i in (0, 4, 8)])
    assert (parts - experience.old.log_prob).abs().max() > 1e-3  # padding and company move bfloat16
    for rows in (1, 4, 8):
        check_start(policy, experience, rows, fresh=True)
    with pytest.raises(CheckError, match="ratio: the replayed log-prob differs"):
        check_start(replace(policy, temperature=0.5), experience, 4, fresh=True)


def naive(policy: Tokens, prompt: Prompt, seed: torch.Tensor) -> list[int]:
    """One row by itself, the whole text forwarded for every token."""
    adapter: Any = policy.adapter
    params = policy.sampling_params()
    uniform = uniform_noise(seed[None], params.max_new_tokens, 1)[0]
    start = adapter.encode([prompt])[0]["input_ids"]
    written: list[int] = []
    for t in range(params.max_new_tokens):
        ids = torch.cat([start, torch.tensor(written, dtype=torch.long)])
        logits = adapter.network.model(ids[None]).logits[:, -1]
        if params.penalizes_repetition:
            logits = penalize_repetition(logits, torch.tensor([written], dtype=torch.long), params)
        written.append(int(sample_token(logits, uniform[t], params)))
        if written[-1] in adapter.stop_ids:
            break
    return written


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2", "gemma2", "bloom"])
@torch.no_grad()
def test_prompts_forwarded_once_give_what_every_row_by_itself_gives(kind: str, lm: Lm) -> None:
    policy = Tokens(lm(kind), max_new_tokens=12, top_p=0.95, repetition_penalty=1.2)
    rollout = policy.sample(GROUPS, stream())
    for i, prompt in enumerate(GROUPS):
        written = rollout.trajectory["tokens"][i][rollout.mask[i]].tolist()
        assert written == naive(policy, prompt, rollout.trajectory["seed"][i]), i


def test_a_prompt_is_forwarded_once_whatever_its_group(lm: Lm, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = lm()
    policy, seen = Tokens(adapter, max_new_tokens=6), []
    forward = adapter.network.forward

    def counted(**inputs: Any) -> Any:
        seen.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(adapter.network, "forward", counted)
    rollout = policy.sample(GROUPS, stream())
    assert seen[0] == (3, 8) and all(shape[1] == 1 and shape[0] <= 12 for shape in seen[1:])  # 3 prompts, 8 tokens
    seen.clear()
    policy.step_dist(rollout)
    assert seen == [(3, 8), (12, rollout.mask.shape[1] - 1)]
    adapter.share_prompts = False
    seen.clear()
    policy.step_dist(rollout)
    assert seen == [(12, 8 + rollout.mask.shape[1] - 1)]


def test_a_row_does_not_know_its_company(lm: Lm) -> None:
    policy = Tokens(lm(), max_new_tokens=12)
    whole = policy.sample(GROUPS, stream())
    seeds = whole.trajectory["seed"]
    again = policy.sample(GROUPS, stream())
    assert torch.equal(again.trajectory["tokens"], whole.trajectory["tokens"])
    assert len({tuple(row) for row in whole.trajectory["tokens"][:4].tolist()}) > 1
    picked = torch.tensor([10, 2, 7])
    alone = policy.sample([GROUPS[i] for i in picked], stream(9), seeds=seeds[picked])
    small = replace(policy, rows=5).sample(GROUPS, stream(9), seeds=seeds)
    longer = replace(policy, max_new_tokens=20).sample(GROUPS, stream(9), seeds=seeds)
    assert alone.output == [whole.output[i] for i in picked]
    assert small.output == whole.output
    assert all(new.startswith(old) for new, old in zip(longer.output, whole.output, strict=True))
    for other, rows in ((alone, picked), (small, torch.arange(12))):
        steps = other.mask.shape[1]
        assert (other.step_logp - whole.step_logp[rows][:, :steps]).abs().max() <= 1e-5


def test_completions_end_at_any_stop_token_and_say_so(lm: Lm) -> None:
    policy = Tokens(lm(), max_new_tokens=12)
    stops = policy.adapter.stop_ids
    assert stops == (1, 3)  # the tokenizer's <eos>, and <end> of the generation config
    rollout = policy.sample([Prompt("say")] * 64, stream())
    ended_by = set()
    for row, live, cut in zip(rollout.trajectory["tokens"], rollout.mask, rollout.truncated, strict=True):
        length = int(live.sum())
        written = row[:length].tolist()
        assert live[:length].all() and not live[length:].any()
        assert not set(written[:-1]) & set(stops)
        assert (written[-1] in stops) != bool(cut)
        assert not cut or length == 12
        ended_by.add(written[-1] if not cut else None)
    assert ended_by == {None, 1, 3}
    one = policy.sample([Prompt("say")] * 64, stream())[:1]
    assert one.truncated.shape == (1,)  # sliced with everything else


def test_a_last_token_that_stops_is_no_truncation(lm: Lm) -> None:
    policy = Tokens(lm(), max_new_tokens=1)
    rollout = policy.sample([Prompt("say")] * 200, stream())
    first = rollout.trajectory["tokens"][:, 0]
    assert rollout.mask.shape == (200, 1) and rollout.mask.all()
    assert torch.equal(rollout.truncated, ~torch.isin(first, torch.tensor([1, 3])))
    assert 0 < int(rollout.truncated.sum()) < 200


def test_ended_rows_leave_the_batch(lm: Lm, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = lm()
    sizes: list[int] = []
    forward = adapter.network.forward

    def noted(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(adapter.network, "forward", noted)
    rollout = Tokens(adapter, max_new_tokens=24).sample([Prompt("say")] * 64, stream())
    steps = sizes[1:]
    assert steps == sorted(steps, reverse=True) and steps[-1] < 48
    alive = [int(rollout.mask[:, t].sum()) for t in range(1, rollout.mask.shape[1])]
    assert all(size <= max(4 * left / 3 + 1, left) for size, left in zip(steps, alive, strict=True))


@torch.no_grad()
def test_first_tokens_have_the_models_frequencies(lm: Lm) -> None:
    from scipy.stats import chisquare

    adapter = lm()
    policy = Tokens(adapter, max_new_tokens=1, temperature=1.3)
    n = 2000
    drawn = policy.sample([Prompt("two dogs")] * n, stream()).trajectory["tokens"][:, 0]
    ids = policy.adapter.encode([Prompt("two dogs")])[0]["input_ids"]
    chances = (adapter.network.model(ids[None]).logits[0, -1].double() / 1.3).softmax(0)
    counts = torch.bincount(drawn, minlength=len(chances)).double()
    rare = chances * n < 5
    assert rare.any() and (~rare).sum() > 4
    joined = [torch.cat([x[~rare], x[rare].sum()[None]]) for x in (counts, chances * n)]
    assert chisquare(joined[0].numpy(), joined[1].numpy()).pvalue > 1e-3


def test_greedy_generation_is_transformers_generate(lm: Lm) -> None:
    adapter = lm("qwen2")
    policy = Tokens(adapter, max_new_tokens=10)
    made = policy.generate(GROUPS[::4], stream())
    assert made.step_logp is None
    for i, prompt in enumerate(GROUPS[::4]):
        ids = policy.adapter.encode([prompt])[0]["input_ids"][None]
        theirs = adapter.network.model.generate(ids, do_sample=False, max_new_tokens=10)[0, ids.shape[1] :]
        ours = made.trajectory["tokens"][i][made.mask[i]]
        assert torch.equal(ours, theirs[: len(ours)])
    warm = replace(policy, eval_temperature=1.5, eval_max_new_tokens=3)
    assert warm.generate(GROUPS[::4], stream(1)).mask.shape[1] <= 3
    assert warm.generate(GROUPS, stream(1)).output == warm.generate(GROUPS, stream(1)).output
    assert warm.generate(GROUPS, stream(1)).output != warm.generate(GROUPS, stream(2)).output


def transformers_engine(request: Request) -> Completions:
    """The seam in use: transformers' own `generate`, which pads, repeats prompts and draws in its own way."""
    adapter: Any = request.adapter
    params = request.params
    ids = [request.inputs[i]["input_ids"] for i in request.rows.tolist()]
    width = max(len(row) for row in ids)
    prompts = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=adapter.pad_id) for row in ids])
    mask = torch.stack([torch.arange(width) >= width - len(row) for row in ids])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(int(request.seeds[0]) % 2**32)
        written = adapter.network.model.generate(
            prompts,
            attention_mask=mask.long(),
            do_sample=True,
            temperature=params.temperature,
            top_p=params.top_p,
            top_k=params.top_k,
            max_new_tokens=params.max_new_tokens,
        )[:, width:]
    stops = torch.isin(written, torch.tensor(adapter.stop_ids))
    mask = stops.cumsum(1) - stops.long() == 0
    return Completions(tokens=written, mask=mask, finished=stops.any(1))


def test_another_engine_writes_and_the_policy_still_judges(lm: Lm) -> None:
    policy = Tokens(lm(), max_new_tokens=12, top_p=0.7)
    policy.engine = transformers_engine
    rollout = policy.sample(GROUPS, stream())
    assert 0 < int(rollout.truncated.sum()) < 12
    with torch.no_grad():
        assert torch.equal(policy.step_log_prob(rollout), rollout.step_logp)
        inside = Tokens(policy.adapter, max_new_tokens=12, top_p=0.7).step_log_prob(rollout)
        assert torch.equal(inside, rollout.step_logp)
    assert (rollout.step_logp.exp()[rollout.mask] < 1).all()
    experience = GRPO(share_of_b(), group_size=4, beta=0.1).collect(policy, [Prompt(t) for t in TEXTS], stream())
    check_start(policy, experience, 12, fresh=True)
    policy.engine = lambda request: own_engine(replace(request, rows=request.rows[:2], seeds=request.seeds[:2]))
    with pytest.raises(CapabilityError, match=r"engine wrote 2 completions for 12 rows"):
        policy.sample(GROUPS, stream())


def test_given_texts_are_tokenised_by_themselves_and_end(lm: Lm) -> None:
    policy = Tokens(lm(), max_new_tokens=2)
    seen = policy.observe([Prompt("say")] * 3, ["good", "", "two dogs asleep"])
    assert seen.trajectory["tokens"].tolist() == [[16, 1, 0, 0], [1, 0, 0, 0], [13, 14, 15, 1]]
    assert seen.mask.sum(1).tolist() == [2, 1, 4] and not seen.truncated.any()
    with pytest.raises(DataError, match=r"observe: 2 prompts but 1 outputs"):
        policy.observe([Prompt("a")] * 2, ["a"])


def test_rewards_see_what_was_cut_off(lm: Lm) -> None:
    seen: list[Rollout] = []

    plain: Any = share_of_b

    class Watching(plain):
        def __call__(self, rollout: Rollout) -> Any:
            seen.append(rollout)
            return super().__call__(rollout)

    policy = Tokens(lm(), max_new_tokens=6)
    experience = GRPO(Watching(), group_size=8).collect(policy, [Prompt("say")], stream())
    assert torch.equal(seen[0].truncated, experience.rollout.truncated) and seen[0].truncated.any()
    weighted = replace(experience, weight=torch.ones_like(experience.old.log_prob))
    metrics = GRPO(Watching()).loss(policy, weighted, stream())[1]
    assert GRPO(Watching()).counts(weighted)["rows/truncated"] == seen[0].truncated.float().mean()
    assert float(metrics["policy/entropy"]) > 0 and abs(float(metrics["ratio/mean"]) - 1) <= 1e-5


def test_options_are_checked(lm: Lm) -> None:
    adapter = lm()
    for options, message in (
        ({"temperature": 0.0}, r"temperature is 0.0; it must be above 0"),
        ({"top_p": 1.5}, r"top_p is 1.5; it must be above 0 and at most 1"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty is 0.0"),
        ({"max_new_tokens": 0}, r"max_new_tokens is 0; it must be at least 1"),
        ({"no_repeat_ngram": -1}, r"no_repeat_ngram is -1"),
        ({"eval_temperature": -1.0}, r"eval_temperature is -1.0; it must lie in \[0, inf\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Tokens(adapter, **options)
    with pytest.raises(ConfigError, match=r"policy.record: must be 'auto', 'sampler' or 'replay'"):
        policies.build({"name": "tokens", "record": "replya"}, "policy", adapter=adapter)
    with pytest.raises(ConfigError, match=r"policy.engine: unknown option"):
        policies.build({"name": "tokens", "engine": "x"}, "policy", adapter=adapter)


def test_adapters_of_the_other_kind_are_refused(lm: Lm) -> None:
    with pytest.raises(ValueError, match=r"policy 'tokens' needs an adapter that makes tokens, and this one \(ToyLate"):
        policies.get("tokens")(ToyLatent())
    for name in ("flow", "ddpm", "few_step"):
        with pytest.raises(ValueError, match=rf"policy '{name}' needs an adapter that makes latents.*use policy 'toke"):
            policies.get(name)(Frames())


def test_the_engine_is_given_the_options(lm: Lm) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.4,
        "top_k": 2,
        "repetition_penalty": 1.1,
    }
    assert Tokens(lm(), **options, no_repeat_ngram=4).sampling_params() == SamplingParams(**options, no_repeat_ngram=4)
