import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.objectives._advantages import group_relative


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def everyone(value: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(value, dtype=torch.bool)


def test_leave_one_out_golden() -> None:
    value = column(1, 0, 0, 1, 1)
    got, live = group_relative(
        value, torch.zeros(5, dtype=torch.long), everyone(value), std="none", baseline="leave_one_out"
    )
    assert got[:, 0].tolist() == pytest.approx([0.5, -0.75, -0.75, 0.5, 0.5])
    assert live.all()


def test_group_std_by_hand() -> None:
    value = column(1, 3, 10, 10, 40)
    group = torch.tensor([0, 0, 1, 1, 1])
    got, _ = group_relative(value, group, everyone(value), std_floor=0.0, limit=None)
    spread = math.sqrt((100 + 100 + 400) / 3)
    assert got[:, 0].tolist() == pytest.approx([-1, 1, -10 / spread, -10 / spread, 20 / spread])


def test_global_std_is_the_spread_of_all_raw_values() -> None:
    value = column(0, 1, 10, 13)
    got, _ = group_relative(value, torch.tensor([0, 0, 1, 1]), everyone(value), std="global", std_floor=0.0)
    spread = float(torch.tensor([0.0, 1, 10, 13]).std(correction=0))
    assert got[:, 0].tolist() == pytest.approx([-0.5 / spread, 0.5 / spread, -1.5 / spread, 1.5 / spread])


def test_invalid_rows_are_never_read() -> None:
    value = column(1, math.nan, 3, math.inf, 5, math.nan)
    group = torch.tensor([0, 0, 0, 0, 1, 1])
    valid = value.isfinite()
    got, live = group_relative(value, group, valid, std="none")
    assert got[:, 0].tolist() == [-1, 0, 1, 0, 0, 0]
    assert live.tolist() == [True] * 4 + [False] * 2  # one valid row cannot be compared


@pytest.mark.parametrize("level", [0.0, 0.1, 1e6, -3.3])
@pytest.mark.parametrize("std", ["group", "global", "none"])
def test_equal_groups_are_dropped_at_any_level(level: float, std: str) -> None:
    value = torch.tensor([level, level, level, level + 1, level - 1, level], dtype=torch.float32)[:, None]
    got, live = group_relative(value, torch.tensor([0, 0, 0, 1, 1, 1]), everyone(value), std=std)  # type: ignore[arg-type]
    assert live.tolist() == [False] * 3 + [True] * 3
    assert got[:3].abs().max() == 0 and got.isfinite().all()


def test_differences_by_rounding_count_as_equal() -> None:
    value = torch.tensor([0.7031, 0.7031 + 6e-8, 0.7031, 0.7031], dtype=torch.float32)[:, None]
    assert value.unique().numel() == 2
    _, live = group_relative(value, torch.zeros(4, dtype=torch.long), everyone(value))
    assert not live.any()


def test_the_floor_keeps_nearly_equal_groups_small() -> None:
    value = column(0.5, 0.5 + 1e-5)
    got, _ = group_relative(value, torch.zeros(2, dtype=torch.long), everyone(value))
    assert got.abs().max() < 0.06


def test_limit() -> None:
    value = column(*[0.0] * 99, 1.0)
    got, _ = group_relative(value, torch.zeros(100, dtype=torch.long), everyone(value), limit=5.0)
    assert got.max() == 5.0


def test_step_credit_uses_all_valid_steps_of_the_group() -> None:
    value = torch.tensor([[1.0, 2.0], [3.0, 99.0]], dtype=torch.float64)
    valid = torch.tensor([[True, True], [True, False]])
    got, live = group_relative(value, torch.zeros(2, dtype=torch.long), valid, std="none")
    assert got.tolist() == [[-1, 0], [1, 0]] and live.all()
    others, _ = group_relative(value, torch.zeros(2, dtype=torch.long), valid, std="none", baseline="leave_one_out")
    assert others.tolist() == [[-2, -1], [1.5, 0]]


@settings(max_examples=40)
@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), st.floats(0.5, 20), st.floats(-50, 50))
def test_shift_and_scale_invariance(values: list[float], scale: float, shift: float) -> None:
    value = column(*values)
    group = torch.zeros(4, dtype=torch.long)
    if float(value.std()) < 1e-2:
        return
    plain, _ = group_relative(value, group, everyone(value), std_floor=0.0)
    moved, _ = group_relative(scale * value + shift, group, everyone(value), std_floor=0.0)
    assert torch.allclose(plain, moved, atol=1e-6)
    assert abs(float(plain.sum())) < 1e-9
