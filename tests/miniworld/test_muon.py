"""Which weights Muon trains, and that both optimizers together fit a small problem."""

import torch
from torch import nn

from pipelines.miniworld.muon import build_optimizers


def test_matrices_of_layers_go_to_muon_and_all_else_to_adamw() -> None:
    torch.manual_seed(0)
    table, layers, head = (
        nn.Embedding(5, 8),
        nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)),
        nn.Linear(8, 1),
    )
    model = nn.Sequential(table, layers, head)
    optimizers = build_optimizers([model], [layers], 1e-2, 0.1, (0.9, 0.99))
    muon, adamw = ([id(weight) for group in each.param_groups for weight in group["params"]] for each in optimizers)
    assert muon == [id(layers[0].weight), id(layers[2].weight)]
    assert sorted(muon + adamw) == sorted(id(weight) for weight in model.parameters())
    ids, target = torch.arange(5), torch.tensor([1.0, -1.0, 2.0, 0.0, 0.5])
    losses = []
    for _ in range(60):
        loss = (model(ids)[:, 0] - target).square().mean()
        losses.append(loss.item())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert losses[-1] < 0.05 * losses[0]
