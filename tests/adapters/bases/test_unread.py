"""Every weight that trains gets a gradient: processes that train together wait for each of them."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmalign.adapters import adapters, load_adapter
from mmalign.core.errors import ConfigError
from mmalign.core.types import Prompt
from tests.adapters.asked import asked_of
from tests.loading.writers import WRITERS

LATENT = [name for name in adapters.built_in() if hasattr(adapters.get(name), "schedule")]


def loaded(name: str, folder: Path, **options: Any) -> Any:
    more: dict[str, Any] = {"seconds": 0.5} if name == "stable_audio_3" else {}
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def step_twice(rank: int, port: int, folder: Path, options: dict[str, Any]) -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    adapter = loaded("qwen_image", folder, **options)
    adapter.wrap(torch.nn.parallel.DistributedDataParallel)
    for _ in range(2):  # an unused weight is noticed at the second
        backward(adapter)
    dist.destroy_process_group()


MEDIA_CASES = [(name, recompute) for name in ("image_text", "audio_text") for recompute in (False, True)]


def ask_about_media(rank: int, port: int, folder: Path) -> None:
    """Three updates of two processes: the first one's prompts alone have media, and in the last update none have."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(minutes=4))
    for name, recompute in MEDIA_CASES:
        adapter = loaded(name, folder / name, train="full", gradient_checkpointing=recompute)
        adapter.wrap(torch.nn.parallel.DistributedDataParallel)
        for step in range(3):
            adapter.module.zero_grad(set_to_none=True)
            backward_of_tokens(adapter, with_media=rank == 0 and step < 2)
            grads = {key: weight.grad for key, weight in adapter.trainable().items()}
            torch.save(grads, folder / f"{name}-{recompute}-{rank}-{step}.pt")
    dist.destroy_process_group()


def backward_of_tokens(adapter: Any, with_media: bool) -> None:
    prompts = asked_of(adapter) if with_media else [Prompt(prompt.text) for prompt in asked_of(adapter)]
    tokens = torch.tensor([[5, 6], [7, 8]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    features = adapter.features(adapter.encode(prompts), torch.tensor([0, 1]), tokens, mask)
    adapter.logits(features.flatten(0, 1)).square().mean().backward()


def test_a_process_whose_prompts_have_no_media_keeps_step_with_one_whose_have(tmp_path: Path) -> None:
    for name in ("image_text", "audio_text"):
        with torch.random.fork_rng():
            WRITERS[name](tmp_path / name)
    mp.spawn(ask_about_media, (free_port(), tmp_path), nprocs=2)
    for name, recompute in MEDIA_CASES:
        alone = loaded(name, tmp_path / name, train="full", gradient_checkpointing=recompute)
        for step in range(3):
            alone.module.zero_grad(set_to_none=True)
            backward_of_tokens(alone, with_media=step < 2)
            backward_of_tokens(alone, with_media=False)
            for rank in range(2):
                mean = torch.load(tmp_path / f"{name}-{recompute}-{rank}-{step}.pt")
                for key, weight in alone.trainable().items():
                    wanted = torch.zeros_like(weight) if weight.grad is None else weight.grad / 2
                    torch.testing.assert_close(mean[key], wanted, rtol=1e-4, atol=1e-5)


TEXT_LORA = {"rank": 2, "target_modules": ["attn.to_q", "attn.to_add_out", "txt_mlp.net.2"]}


@pytest.mark.parametrize("options", [{"train": "full"}, {"train": "lora", "lora": TEXT_LORA}], ids=["full", "lora"])
def test_two_processes_train_qwen_image(options: dict[str, Any], tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = WRITERS["qwen_image"](tmp_path / "model")
    mp.spawn(step_twice, (free_port(), folder, options), nprocs=2)


def test_a_lora_only_where_nothing_reads_is_refused(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        folder = WRITERS["stable_audio_3"](tmp_path / "model")
    with pytest.raises(ConfigError, match=r"target_modules: to_local_embed.0 names only layers whose output nothing"):
        loaded("stable_audio_3", folder, lora={"rank": 2, "target_modules": ["to_local_embed.0"]})
