"""One seed, many streams; noise of a row from its own generator."""

import pytest
import torch

from mmalign.core.rng import Streams, home, randn, stream


def test_streams_are_named_and_restorable() -> None:
    streams = Streams(3)
    first = randn((2,), streams["probe"])
    assert not torch.equal(first, randn((2,), streams["rollout"]))
    state, ahead = streams.state_dict(), randn((2,), streams["probe"])
    streams.load_state_dict(state)
    torch.testing.assert_close(randn((2,), streams["probe"]), ahead, rtol=0, atol=0)


def test_a_rows_own_generator_makes_it_independent_of_its_neighbours() -> None:
    together = randn((3, 4), [stream(0, name) for name in "abc"])
    torch.testing.assert_close(together[1], randn((1, 4), [stream(0, "b")])[0], rtol=0, atol=0)
    assert randn((0, 4), []).shape == (0, 4) and home([]) == torch.device("cpu")
    with pytest.raises(ValueError, match="2 generators for 3 rows; give one, or one per row"):
        randn((3, 4), [stream(0, "a"), stream(0, "b")])
