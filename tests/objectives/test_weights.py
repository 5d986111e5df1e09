import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.core.protocols import Mean
from mmalign.objectives import _weights as weights

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


def alone(total: torch.Tensor) -> torch.Tensor:
    return total


def noting(counts: list[torch.Tensor]) -> Mean:
    def mean(count: torch.Tensor) -> torch.Tensor:
        counts.append(count)
        return count

    return mean


def always(mean: torch.Tensor) -> Mean:
    return lambda count: mean


def test_by_hand() -> None:
    assert torch.equal(weights.per_row(torch.tensor([True, False, True]), alone), torch.tensor([0.5, 0, 0.5]))
    third = 1 / 6
    assert torch.allclose(weights.per_sequence(MASK, alone)[0], torch.tensor([third, third, third, 0]))
    assert weights.per_sequence(MASK, alone)[1].tolist() == [0.5, 0, 0, 0]
    assert torch.allclose(weights.per_step(MASK, alone)[MASK], torch.full((4,), 0.25))
    assert torch.allclose(weights.constant(MASK, alone, 4)[MASK], torch.full((4,), 1 / 8))


def test_nothing_valid_weighs_nothing() -> None:
    empty = torch.zeros(2, 3, dtype=torch.bool)
    for weigh in (weights.per_sequence, weights.per_step, weights.constant):
        assert weigh(empty, alone).abs().sum() == 0
    assert weights.per_row(empty[:, 0], alone).sum() == 0


@settings(max_examples=50)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=9), st.integers(1, 8))
def test_averaging_over_ranks_is_exact(rows: list[list[bool]], cut: int) -> None:
    """Two ranks of unequal size: the mean over ranks of their weighted sums is the weighted sum of the whole."""
    mask = torch.tensor(rows)
    value = torch.arange(mask.numel(), dtype=torch.float32).reshape(mask.shape)
    parts = [slice(0, min(cut, len(mask) - 1)), slice(min(cut, len(mask) - 1), None)]
    for weigh in (weights.per_sequence, weights.per_step, weights.constant):
        counts: list[torch.Tensor] = []
        for part in parts:
            weigh(mask[part], noting(counts))
        mean = torch.stack(counts).mean()
        ranks = [(weigh(mask[part], always(mean)) * value[part]).sum() for part in parts]
        whole = (weigh(mask, alone) * value).sum()
        assert torch.allclose(torch.stack(ranks).mean(), whole, rtol=1e-5)
