"""Offline, deterministic, and with every annotated shape checked at run time."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as mmalign itself

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

from tests.typecheck import CHECKED

install_import_hook(CHECKED, "tests.typecheck.checked")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_warn_always(True)  # else what warns once a process fails the first test that meets it, whichever that is

# No test is about time: a busy machine takes as long as it takes.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What runs keep for later runs goes to a folder of the tests."""
    os.environ["MMALIGN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny language model by kind, written when first asked for; `chat` gives it a template."""
    from tests.adapters.language.tiny_lm import write_tiny_lm

    root = tmp_path_factory.mktemp("language")

    def folder(kind: str = "llama", chat: bool = False) -> Path:
        path = root / (f"{kind}-chat" if chat else kind)
        return path if path.exists() else write_tiny_lm(path, kind, chat)

    return folder


@pytest.fixture
def lm(lm_folder: Callable[..., Path]) -> Callable[..., Any]:
    """`lm("llama", train="full")` is the loaded adapter of a tiny language model on the CPU."""
    from mmalign.adapters.language.causal_lm import CausalLM

    def adapter(kind: str = "llama", **options: Any) -> Any:
        from mmalign.adapters.weights.lora import LoRA

        folder = lm_folder(kind, chat=options.get("chat", False) is not False)
        return CausalLM(**{"model": str(folder), "device": "cpu", "lora": LoRA(rank=4, alpha=8), **options}).load()

    return adapter


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by how many they are: some hold the time, and every worker must collect the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU say so instead of failing where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="skipped: no GPU"))
