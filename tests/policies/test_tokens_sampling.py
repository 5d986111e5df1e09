"""One step of tokens: frequencies against probabilities, filters and penalties against transformers' own processors."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from mmalign.policies._tokens_sampling import (
    SamplingParams,
    penalize_repetition,
    row_seeds,
    sample_token,
    top_k_top_p_filter,
    uniform_noise,
)

PLAIN = SamplingParams(max_new_tokens=1)
LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0, 0.2], [0.0, 0.1, 4.0, -9.0, 1.0, 1.1, 1.2, 1.3]])


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_frequencies_are_the_softmax(temperature: float) -> None:
    n = 20_000
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0))
    drawn = sample_token(LOGITS[:1].expand(n, -1), uniform, SamplingParams(max_new_tokens=1, temperature=temperature))
    expected = (LOGITS[0].double() / temperature).softmax(0) * n
    counts = torch.bincount(drawn, minlength=8).double()
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_filtered_frequencies_are_the_renormalised_softmax() -> None:
    n = 20_000
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(1))
    drawn = sample_token(LOGITS[:1].expand(n, -1), uniform, SamplingParams(max_new_tokens=1, top_k=3))
    counts = torch.bincount(drawn, minlength=8).double()
    kept = LOGITS[0].topk(3).indices
    assert counts.sum() == counts[kept].sum()
    expected = LOGITS[0][kept].double().softmax(0) * n
    assert chisquare(counts[kept].numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.5), (0, 0.9), (5, 0.7), (1, 1.0), (0, 1e-6), (99, 1.0)])
def test_supports_are_transformers(top_k: int, top_p: float) -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    theirs = LOGITS.clone()
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    if top_p < 1:
        theirs = TopPLogitsWarper(top_p)(None, theirs)
    ours = top_k_top_p_filter(LOGITS, top_k, top_p)
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    assert torch.equal(ours[ours.isfinite()], LOGITS[ours.isfinite()])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_repetition_penalties_are_transformers(size: int) -> None:
    from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

    written = torch.tensor([[1, 2, 3, 1, 2], [4, 4, 4, 5, 4]])
    assert torch.allclose(
        penalize_repetition(LOGITS, written, SamplingParams(max_new_tokens=9, repetition_penalty=1.3)),
        RepetitionPenaltyLogitsProcessor(1.3)(written, LOGITS.clone()),
    )
    ours = penalize_repetition(LOGITS, written, SamplingParams(max_new_tokens=9, no_repeat_ngram=size))
    theirs = NoRepeatNGramLogitsProcessor(size)(written, LOGITS.clone())
    assert torch.equal(ours, theirs) and ours.isinf().any()


def test_repetition_penalties_leave_short_beginnings_alone_and_something_to_say() -> None:
    none = torch.empty(2, 0, dtype=torch.long)
    params = SamplingParams(max_new_tokens=9, repetition_penalty=1.3, no_repeat_ngram=2)
    assert torch.equal(penalize_repetition(LOGITS, none, params), LOGITS)
    everything = torch.arange(8).expand(2, -1)
    assert penalize_repetition(LOGITS, everything, SamplingParams(max_new_tokens=9, no_repeat_ngram=1)).isfinite().all()


def test_the_ends_of_the_noise_stay_in_the_support() -> None:
    logits = torch.full((1, 50_000), -torch.inf)
    logits[0, 7] = logits[0, 9] = 0.0
    for value in (0.0, 0.25, 0.75, 1 - 1e-16, 1.0):
        assert int(sample_token(logits, torch.tensor([value], dtype=torch.float64), PLAIN)) in (7, 9)


def test_noise_is_a_rows_own() -> None:
    seeds = row_seeds(4, torch.Generator().manual_seed(3))
    assert len(set(seeds.tolist())) == 4
    assert torch.equal(seeds[:2], row_seeds(2, torch.Generator().manual_seed(3)))
    whole = uniform_noise(seeds, 6, 1)
    assert torch.equal(uniform_noise(seeds[2:3], 6, 1)[0], whole[2])
    assert torch.equal(uniform_noise(seeds, 4, 1), whole[:, :4])  # a longer limit does not change params a text begins
