"""The checks of adapters find planted faults, and pass the bundled models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mmalign import load_adapter
from mmalign.testing import check_latent_adapter, check_token_adapter
from tests.docs.blocks import named_blocks

PROMPTS = ["two red circles", "a blue star"]


def test_the_bundled_generator_of_images_passes() -> None:
    adapter = load_adapter(
        "sd3", model="assets/scenes_sd3", train="full", max_sequence_length=1, text_encoder_3=False, device="cpu"
    )
    check_latent_adapter(adapter, PROMPTS)


def test_the_bundled_language_model_passes() -> None:
    adapter = load_adapter("causal_lm", model="assets/scenes_rewriter", train="full", device="cpu")
    check_token_adapter(adapter, PROMPTS, ["a red circle", "two blue stars"])


@pytest.fixture(scope="module")
def tiny_flow() -> Iterator[Any]:
    """The adapter class of docs/plugins.md."""
    module = ModuleType("tiny_flow_of_the_page")
    sys.modules[module.__name__] = module
    exec(named_blocks("plugins.md")["mmalign_lamps/tiny_flow.py"], module.__dict__)
    yield module.TinyFlow
    del sys.modules[module.__name__]


def test_the_adapter_of_the_page_passes(tiny_flow: Any) -> None:
    check_latent_adapter(tiny_flow().load(), PROMPTS)


def test_each_fault_of_an_adapter_is_found(tiny_flow: Any) -> None:
    class Backwards(tiny_flow):
        def schedule(self, num_inference_steps: int) -> Any:
            return self.level(torch.linspace(0, 1, num_inference_steps + 1))

    class Detached(tiny_flow):
        def predict(self, x: Any, times: Any, condition: Any) -> Any:
            return super().predict(x, times, condition).detach().requires_grad_()

    class Together(tiny_flow):
        def predict(self, x: Any, times: Any, condition: Any) -> Any:
            made = super().predict(x, times, condition)
            return made - made.mean(0)

    class NoReference(tiny_flow):
        @contextmanager
        def reference(self) -> Iterator[None]:
            yield

    class Forgets(tiny_flow):
        def restore(self, directory: Path) -> None:
            pass

    for broken, sentence in (
        (Backwards, "sigma must fall from noise to data"),
        (Detached, "raised RuntimeError|no gradient reaches the trainable weights"),
        (Together, "row 0 is predicted otherwise alone"),
        (NoReference, "the reference moved with the trained weights"),
        (Forgets, "restore does not bring back what save wrote"),
    ):
        with pytest.raises(AssertionError, match=f"{broken.__name__}: .*({sentence})"):
            check_latent_adapter(broken().load(), PROMPTS)


def test_what_is_no_adapter_is_told_what_it_lacks() -> None:
    with pytest.raises(AssertionError, match=r"object: lacks .*predict.* of LatentAdapter"):
        check_latent_adapter(object(), PROMPTS)
