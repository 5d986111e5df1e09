import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmalign.policies._steps import cps, flow_sde
from mmalign.policies._trajectory import Window, bounds, candidates, draw_plan, window_start
from tests.policies.worlds import generator


def options(**given: object) -> Window:
    chosen = {"kind": "all", "size": 0, "range": (0.0, 1.0), "every": 1, "stride": 1, "residual_noise": False}
    return Window(**{**chosen, **given})  # type: ignore[arg-type]


@given(
    count=st.integers(1, 60),
    size=st.integers(1, 60),
    calls=st.integers(0, 10**6),
    stride=st.integers(1, 70),
    every=st.integers(1, 30),
    kind=st.sampled_from(["first", "random", "progressive", "scattered", "subset"]),
)
def test_a_window_is_never_empty_and_never_shrinks(
    count: int, size: int, calls: int, stride: int, every: int, kind: str
) -> None:
    size = min(size, count)
    able = list(range(3, 3 + count))
    drawn = options(kind=kind, size=size, every=every, stride=stride).draw(able, calls, 2, generator(calls))
    assert drawn.recorded.shape == (2, size)
    for steps in drawn.recorded.tolist():
        assert steps == sorted(set(steps))
        assert set(steps) <= set(drawn.noisy) <= set(able)


@given(count=st.integers(1, 40), size=st.integers(1, 40), stride=st.integers(1, 45))
def test_a_sliding_window_visits_every_step_and_then_starts_over(count: int, size: int, stride: int) -> None:
    size, stride = min(size, count), min(stride, size)
    starts = [window_start(i, count, size, stride) for i in range(2 * count + 2)]
    assert {s + i for s in starts for i in range(size)} == set(range(count))
    assert starts[0] == 0
    assert 0 in starts[1:]
    assert all(b - a <= stride for a, b in itertools.pairwise(starts))


@given(low=st.floats(0, 0.95), width=st.floats(0.001, 1), steps=st.integers(1, 100))
def test_a_range_of_fractions_holds_at_least_one_step(low: float, width: float, steps: int) -> None:
    start, end = bounds((low, min(low + width, 1.0)), steps)
    assert 0 <= start < end <= steps


def test_ranges_read_as_fractions_up_to_one_and_as_indices_above() -> None:
    assert bounds((0.0, 0.5), 10) == (0, 5)
    assert bounds((0, 1), 10) == (0, 10)
    assert bounds((2, 6), 10) == (2, 6)


def test_progressive_moves_every_so_many_calls() -> None:
    window = options(kind="progressive", size=2, every=3)
    drawn = [window.draw([0, 1, 2, 3], calls, 1, generator()).noisy for calls in range(12)]
    assert drawn == [[0, 1]] * 3 + [[1, 2]] * 3 + [[2, 3]] * 3 + [[0, 1]] * 3


def test_decay_hurries_through_the_steps_near_the_data_as_mixgrpos_code_does() -> None:
    """Against the counters of MixGRPO's code (exp_decay, stride 1), written out: l moves when they run out."""
    steps, size, every, k, after = 25, 4, 20, 0.1, 13
    window = options(kind="progressive", size=size, every=every, decay=k, decay_after=after)
    at, spent, expected = 0, 0, []
    while at <= steps - size:
        expected.append(at)
        spent += 1
        if spent >= math.ceil(every * math.exp(-k * max(0, at - after))):
            at, spent = at + 1, 0
    found = [window.draw(list(range(steps)), calls, 1, generator()).noisy[0] for calls in range(len(expected) + 1)]
    assert found == [*expected, 0]
    assert expected.count(0) == expected.count(13) == 20 and expected.count(21) == 9
    with pytest.raises(ValueError, match="window_decay shortens the stays of window 'progressive'; 'first' has none"):
        options(kind="first", size=2, decay=0.1)


def test_random_reaches_every_start_and_first_stays() -> None:
    rng = generator()
    starts = {draw_plan("random", [1, 2, 3, 4, 5], size=3, start=0, rows=4, rng=rng).noisy[0] for _ in range(60)}
    assert starts == {1, 2, 3}
    assert draw_plan("first", [1, 2, 3], size=2, start=0, rows=4, rng=rng).recorded.tolist() == [[1, 2]] * 4


def test_a_scattered_window_is_one_for_the_batch_and_reaches_every_choice() -> None:
    rng, seen = generator(), set()
    for _ in range(120):
        drawn = draw_plan("scattered", [1, 2, 4, 5], size=2, start=0, rows=3, rng=rng)
        assert drawn.recorded.tolist() == [drawn.noisy] * 3  # noise on those alone
        seen.add(tuple(drawn.noisy))
    assert seen == {(1, 2), (1, 4), (1, 5), (2, 4), (2, 5), (4, 5)}


def test_a_subset_leaves_every_candidate_noisy_and_differs_by_row() -> None:
    drawn = draw_plan("subset", list(range(8)), size=5, start=0, rows=32, rng=generator())
    assert drawn.noisy == list(range(8))
    assert len({tuple(steps) for steps in drawn.recorded.tolist()}) > 5


SD35 = torch.tensor([1.0, 0.9682, 0.9277, 0.8768, 0.8118, 0.7265, 0.6117, 0.465, 0.278, 0.0089, 0.0])


def std(kind: str, sigma: torch.Tensor) -> torch.Tensor:
    nothing = torch.zeros(len(sigma) - 1, 1)
    if kind == "cps":
        return cps(nothing, sigma[:-1], sigma[1:], nothing, None, 0.8).std
    return flow_sde(nothing, sigma[:-1], sigma[1:], nothing, None, 0.7, sigma[1]).std


def test_noise_that_the_last_step_cannot_remove_is_not_injected_unless_asked() -> None:
    spread = std("flow_sde", SD35)
    assert spread[8].item() == pytest.approx(0.225, abs=0.003)  # on the step that lands on 0.0089
    assert candidates(spread.tolist(), SD35[1:].tolist(), (0.0, 1.0), False) == list(range(8))
    assert candidates(spread.tolist(), SD35[1:].tolist(), (0.0, 1.0), True) == list(range(10))


def test_the_last_step_of_cps_carries_no_noise_whatever_is_asked() -> None:
    spread = std("cps", SD35)
    assert candidates(spread.tolist(), SD35[1:].tolist(), (0.0, 1.0), False) == list(range(9))
    assert candidates(spread.tolist(), SD35[1:].tolist(), (0.0, 1.0), True) == list(range(9))


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        ({"kind": "random"}, "window 'random' needs window_size >= 1"),
        ({"size": 2}, "window 'all' trains every step; name another window"),
        ({"range": (0.5, 0.2)}, r"window_range is \(0.5, 0.2\); it must be"),
        ({"every": 0}, "window_every is 0; it must be at least 1"),
        ({"stride": 0}, "window_stride is 0; it must be at least 1"),
    ],
)
def test_options_that_make_no_window_are_refused(given_options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**given_options)


def test_a_window_and_a_plan_are_made_by_keyword_so_that_no_two_numbers_can_be_swapped() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        Window("first", 2, (0.0, 1.0), 1, 1, False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional argument"):
        draw_plan("first", [1, 2, 3], 2, 0, 4, generator())  # type: ignore[call-arg]


def test_windows_that_do_not_fit_the_schedule_are_refused() -> None:
    spread, after = std("cps", SD35).tolist(), SD35[1:].tolist()
    with pytest.raises(ValueError, match=r"no step of window_range \(0.95, 1\) can carry noise: of 10 steps"):
        options(range=(0.95, 1.0)).steps(spread, after)
    with pytest.raises(ValueError, match="window_size is 10 but only 9 steps can carry noise"):
        options(kind="first", size=10).steps(spread, after)
    with pytest.raises(ValueError, match=r"window_range is \(2, 12\) but a sample has 10 steps"):
        options(range=(2, 12)).steps(spread, after)
