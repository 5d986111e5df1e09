"""Row-wise maths against golden values, torchvision and hand computation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.rewards import functional as F

GOLDEN_BOXES = [  # (first, second, IoU, GIoU, DIoU, CIoU)
    ([0, 0, 2, 2], [1, 1, 3, 3], 0.142857, -0.079365, 0.031746, 0.031746),
    ([0, 0, 1, 1], [2, 0, 3, 1], 0.0, -0.333333, -0.4, -0.4),
    ([0, 0, 4, 2], [0, 0, 2, 4], 0.333333, 0.083333, 0.270833, 0.237082),
    ([10, 10, 20, 20], [12, 12, 18, 18], 0.36, 0.36, 0.36, 0.36),
    ([0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9], 0.0, -0.609375, None, None),  # NeMo-RL's disjoint test
]
KINDS = [F.box_iou, F.box_giou, F.box_diou, F.box_ciou]


@pytest.mark.parametrize("first, second, iou, giou, diou, ciou", GOLDEN_BOXES)
def test_boxes_golden_values(first, second, iou, giou, diou, ciou):
    a, b = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    for kind, expected in zip(KINDS, (iou, giou, diou, ciou), strict=True):
        if expected is not None:
            assert kind(a, b).item() == pytest.approx(expected, abs=1e-6)


def test_boxes_equal_torchvision():
    from torchvision import ops

    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 50, 2, 2, generator=rng, dtype=torch.float64).sort(2).values
    a, b = corners.reshape(2, 50, 4)
    peers = [ops.box_iou, ops.generalized_box_iou, ops.distance_box_iou, ops.complete_box_iou]
    for kind, peer in zip(KINDS, peers, strict=True):
        assert torch.allclose(kind(a, b), peer(a, b).diagonal(), atol=1e-6)


@pytest.mark.parametrize("bad", [[0.5, 0.5, 0.1, 0.1], [1, 1, 0, 0], [10, 10, 0, 0], [0, 0, 0, 1], [0, 0, math.nan, 1]])
@pytest.mark.parametrize("kind", KINDS)
def test_boxes_refuse_what_is_no_box(bad, kind):
    """Unchecked, the inverted box [10, 10, 0, 0] has GIoU 625 with this target."""
    truth = torch.tensor([[0.1, 0.1, 0.5, 0.5]] * 2)
    with pytest.raises(ValueError, match=r"first box 1 is \["):
        kind(torch.stack([truth[0], torch.tensor(bad, dtype=torch.float32)]), truth)
    with pytest.raises((ValueError, TypeError), match=r"in pairs|N 4"):
        kind(truth[:1], truth)


def test_boxes_in_a_frame():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.2, 1.0], [-0.01, 0.0, 1.0, 1.0]])
    assert F.valid_boxes(boxes, (1.0, 1.0)).tolist() == [True, False, False]
    assert F.valid_boxes(boxes, (1.0, 1.0), tolerance=0.05).tolist() == [True, False, True]
    assert F.valid_boxes(boxes).all()


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 1), min_size=8, max_size=8))
def test_boxes_ranges_symmetry_and_scale(values):
    v = torch.tensor(values, dtype=torch.float64).reshape(2, 4)
    a, b = torch.cat([v[:, :2], v[:, :2] + v[:, 2:]], 1).split(1)
    for kind, low in zip(KINDS, (0, -1, -1, -1.5), strict=True):
        value = kind(a, b)
        assert low <= value.item() <= 1 + 1e-9
        assert torch.allclose(value, kind(b, a)) and torch.allclose(value, kind(100 * a, 100 * b))
        assert kind(a, a).item() == pytest.approx(1, abs=1e-9)


def test_clip_score_and_its_reference_form():
    cosine = torch.tensor([0.3, -0.2])
    assert F.clip_score(cosine).tolist() == pytest.approx([0.75, 0.0])
    references = torch.tensor([[0.8, 0.1], [0.5, math.nan]])
    assert F.ref_clip_score(cosine, references).tolist() == pytest.approx([0.774194, 0.0], abs=1e-6)


E1, E2, E3 = torch.eye(3)


@pytest.mark.parametrize(
    "response, reference, expected",
    [
        ([E1, E2], [E1], 0.75),
        ([E2, E1], [E1, E2], 1.0),
        ([E1], [E2, E3], 0.0),
        ([E1 + E2], [E1, E2], 0.707107),
        ([E1] * 4, [E1, E2], 0.75),
    ],
)
def test_bmas_by_hand(response, reference, expected):
    assert F.bmas(torch.stack(response), torch.stack(reference)).item() == pytest.approx(expected, abs=1e-6)


def test_bmas_is_symmetric_and_centring_removes_what_all_share():
    a, b = torch.stack([E1, E2]) + 5, torch.stack([E3]) + 5
    assert F.bmas(a, b) == F.bmas(b, a) and F.bmas(a, b) > 0.9
    assert F.bmas(a, b, centre=torch.full((3,), 5.0)).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="tokens on both sides, got 0 and 1"):
        F.bmas(torch.zeros(0, 3), b)


def test_log_sigmoid_golden_values():
    zero = torch.zeros(2)
    good, mixed = torch.zeros(2, 1), torch.tensor([[2.0], [-2.0]])
    assert F.log_sigmoid_and(good, zero).item() == pytest.approx(-1.386294, abs=1e-6)
    assert F.log_sigmoid_and(mixed, zero).item() == pytest.approx(-2.253856, abs=1e-6)
    per_row = torch.tensor([[1.0, 2.0]])
    assert torch.allclose(F.log_sigmoid_and(per_row, per_row), torch.full((2,), math.log(0.5)))


def test_stratified_golden_value():
    """HERO with half widths .05."""
    group = torch.zeros(5, dtype=torch.long)
    rule, model = torch.tensor([1.0, 1, 0, 0, 0]), torch.tensor([2.0, 5, 4, 0, -1])
    assert F.stratified(rule, model, group, 0.05, 0.05).tolist() == pytest.approx([0.95, 1.05, 0.05, -0.03, -0.05])
    alone = F.stratified(rule[[0, 2]], model[[0, 2]], group[:2], 0.05, 0.1)
    assert alone.tolist() == pytest.approx([0.9, -0.05])


def test_normalize_then_sum_golden_value():
    """GDPO: the component of small scale regains its influence."""
    group = torch.zeros(4, dtype=torch.long)
    first, second = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 0.1, 0.2, 0.3])
    summed = F.group_normalize(first + second, group, unbiased=False)
    apart = [
        F.group_normalize(first, group, unbiased=u) + F.group_normalize(second, group, unbiased=u)
        for u in (False, True)
    ]
    assert summed.tolist() == pytest.approx([-1.0796, -0.9135, 0.9135, 1.0796], abs=1e-4)
    assert apart[0].tolist() == pytest.approx([-2.3416, -1.4472, 1.4472, 2.3416], abs=1e-4)
    assert apart[1].tolist() == pytest.approx([-2.0279, -1.2533, 1.2533, 2.0279], abs=1e-4)


def test_group_statistics_ignore_rows_without_a_value_and_flat_groups_are_zero():
    group = torch.tensor([7, 7, 7, 3, 3, 9])
    value = torch.tensor([1.0, math.nan, 3.0, 0.1, 0.1, 5.0])
    z = F.group_normalize(value, group, unbiased=False)
    assert z[[0, 2, 3, 4, 5]].tolist() == [-1, 1, 0, 0, 0] and z[1].isnan()
    assert F.group_normalize(torch.full((7,), 0.1), torch.zeros(7, dtype=torch.long)).abs().max() == 0
    rank = F.group_rank(value, group)
    assert rank[[0, 2, 3, 4, 5]].tolist() == [0, 1, 0.5, 0.5, 0.5] and rank[1].isnan()


@settings(max_examples=30)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=12, unique=True), st.floats(0.01, 100), st.integers(-9, 9))
def test_group_normalize_and_rank_do_not_see_scale_and_offset(values, scale, offset):
    value = torch.tensor(values, dtype=torch.float64)
    group = torch.arange(len(value)) % 2
    for function in (F.group_normalize, F.group_rank):
        assert torch.allclose(function(value, group), function(value * scale + offset, group), atol=1e-9)


def test_group_normalize_carries_gradient_also_through_flat_groups():
    value = torch.tensor([1.0, 2.0, 4.0, 3.0, 3.0], requires_grad=True)
    F.group_normalize(value, torch.tensor([0, 0, 0, 1, 1]))[0].backward()
    assert value.grad.isfinite().all() and value.grad[:3].abs().sum() > 0
