"""Every weight that trains gets a gradient: processes that train together wait for each of them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmalign.adapters import adapters, load_adapter
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt
from tests.loading.writers import WRITERS

LATENT = [name for name in adapters.built_in() if hasattr(adapters.get(name), "schedule")]


def loaded(name: str, folder: Path, **options: Any) -> Any:
    more = {"seconds": 0.5} if name == "stable_audio_3" else {}
    return load_adapter(name, model=str(folder), device="cpu", **more, **options)


def backward(adapter: Any) -> None:
    x = torch.randn(1, *adapter.latent_shape)
    told = adapter.encode([Prompt("a red circle")])
    adapter.predict(x, adapter.schedule(4).times[1:2], told).square().sum().backward()


@pytest.mark.parametrize("name", LATENT)
def test_every_trained_weight_gets_a_gradient(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = WRITERS[name](tmp_path / "model")
    for options in ({"train": "full"}, {"train": "lora", "lora": {"rank": 2}}):
        adapter = loaded(name, folder, **options)
        backward(adapter)
        assert adapter.trainable()
        assert not [key for key, weight in adapter.trainable().items() if weight.grad is None]


def step_twice(rank: int, port: int, folder: Path, options: dict[str, Any]) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    adapter = loaded("qwen_image", folder, **options)
    adapter.wrap(torch.nn.parallel.DistributedDataParallel)
    for _ in range(2):  # an unused weight is noticed at the second
        backward(adapter)
    dist.destroy_process_group()


TEXT_LORA = {"rank": 2, "target_modules": ["attn.to_q", "attn.to_add_out", "txt_mlp.net.2"]}


@pytest.mark.parametrize("options", [{"train": "full"}, {"train": "lora", "lora": TEXT_LORA}], ids=["full", "lora"])
def test_two_processes_train_qwen_image(options: dict[str, Any], tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = WRITERS["qwen_image"](tmp_path / "model")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.spawn(step_twice, (port, folder, options), nprocs=2)


def test_a_lora_only_where_nothing_reads_is_refused(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = WRITERS["stable_audio_3"](tmp_path / "model")
    with pytest.raises(ConfigError, match=r"target_modules: to_local_embed.0 names only layers whose output nothing"):
        loaded("stable_audio_3", folder, lora={"rank": 2, "target_modules": ["to_local_embed.0"]})
