import pytest
import torch

from mmalign.policies._base import both_predictions, guided
from tests.policies.worlds import CountingLatent
from tests.toys import prompts


def inputs(adapter: CountingLatent) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    return torch.randn(4, 1, 1, 2), torch.rand(4), adapter.encode(prompts(4))


def test_guidance_is_one_doubled_forward_and_the_pipelines_combination() -> None:
    adapter = CountingLatent()
    x, times, condition = inputs(adapter)
    found = guided(adapter, condition, 3.0)(x, times)
    assert adapter.forwards == [8]
    conditional = adapter.predict(x, times, condition)
    unconditional = adapter.predict(x, times, adapter.unconditional(4))
    torch.testing.assert_close(found, unconditional + 3 * (conditional - unconditional))
    pair = both_predictions(adapter, x, times, condition)
    torch.testing.assert_close(pair, (conditional, unconditional))


@pytest.mark.parametrize("scale", [None, 0.0, 1.0])
def test_no_guidance_is_one_plain_forward(scale: float | None) -> None:
    adapter = CountingLatent()
    x, times, condition = inputs(adapter)
    assert torch.equal(guided(adapter, condition, scale)(x, times), adapter.predict(x, times, condition))
    assert adapter.forwards == [4, 4]


def test_a_detached_unconditional_branch_gives_no_gradient() -> None:
    adapter = CountingLatent()
    x, times, condition = inputs(adapter)
    grads = []
    for value in (
        guided(adapter, condition, 3.0, detach_unconditional=True)(x, times),
        3 * adapter.predict(x, times, condition),
        guided(adapter, condition, 3.0)(x, times),
    ):
        grads.append(torch.autograd.grad(value.sum(), adapter.network.get_parameter("0.weight"))[0])
    torch.testing.assert_close(grads[0], grads[1])
    assert not torch.allclose(grads[0], grads[2])
