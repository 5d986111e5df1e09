"""One thread at the start's weights gives no other thread's forward the start, or a mixture."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from mmalign.adapters import load_adapter
from mmalign.adapters.weights.reference import ReadWriteLock
from mmalign.core.types import Prompt
from tests.adapters.language import tiny_lm


@pytest.mark.parametrize("train", ["lora", "full"])
@pytest.mark.parametrize("name", ["sd", "causal_lm"])
def test_every_thread_gets_the_weights_it_asked_for(name: str, train: str, checkpoint: Any, tmp_path: Any) -> None:
    folder = checkpoint("sd") if name == "sd" else tiny_lm.write_tiny_lm(tmp_path / "lm")
    adapter = load_adapter(name, model=str(folder), device="cpu", train=train, lora={"rank": 2})
    with torch.no_grad():
        for parameter in adapter.trainable().values():
            parameter.add_(0.3)

    @torch.no_grad()
    def said() -> torch.Tensor:
        if name == "sd":
            x = torch.ones(1, *adapter.latent_shape)
            return adapter.predict(x, torch.tensor([500.0]), adapter.encode([Prompt("a red circle")]))
        features = adapter.begin(adapter.encode([Prompt("a red circle")]), torch.zeros(1, dtype=torch.long), 4).features
        return adapter.logits(features)

    def at_start() -> torch.Tensor:
        with adapter.reference(), adapter.reference():
            return said()

    learned, start = said(), at_start()
    assert not torch.allclose(learned, start)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: at_start() if i % 2 else said(), range(60)))
    for i, answer in enumerate(found):
        assert torch.equal(answer, start if i % 2 else learned), f"call {i}"
    assert torch.equal(said(), learned)


def test_a_forward_waits_for_the_start_and_the_start_for_forwards() -> None:
    lock, order, inside = ReadWriteLock(), [], threading.Event()

    def forward() -> None:
        inside.wait()
        with lock.forward():
            order.append("forward")

    thread = threading.Thread(target=forward)
    thread.start()
    with lock.exclusive() as outermost:
        inside.set()
        thread.join(0.2)
        assert outermost and thread.is_alive() and not order
        with lock.exclusive() as inner, lock.forward():
            assert not inner
        order.append("start")
    thread.join(5)
    assert order == ["start", "forward"]


def test_a_forward_that_fails_gives_up_its_turn() -> None:
    lock, module = ReadWriteLock(), torch.nn.Linear(2, 2)
    lock.watch(module)
    with pytest.raises(RuntimeError):
        module(torch.ones(3))
    done: list[bool] = []

    def enter():
        if lock.exclusive().__enter__():
            done.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(5)
    assert done
