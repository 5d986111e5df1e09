"""A reward's model goes to an accelerator (here torch's "meta" device) and does not come back for the CPU's inputs."""

import pytest
import torch

from mmalign.rewards.models.frozen import move_to_inputs


@pytest.mark.parametrize(
    ("device", "inputs", "where"),
    [("cpu", "cpu", "cpu"), ("cpu", "meta", "meta"), ("meta", "cpu", "meta"), ("meta", "meta", "meta")],
)
def test_a_model_follows_to_an_accelerator_only(device: str, inputs: str, where: str) -> None:
    module = torch.nn.Linear(2, 2, device=device)
    assert move_to_inputs(module, torch.device(inputs)) == torch.device(where) == module.weight.device
