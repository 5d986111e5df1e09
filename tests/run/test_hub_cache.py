"""Where the Hub may not be asked, an id that is not in its cache is told with the other faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.core.config import draft
from mmalign.core.errors import ConfigError
from mmalign.run.build import examine

CHANGES = [
    "adapter.model=acme/generator",
    "rewards.likes={name: pickscore}",
    "rewards.near={name: frechet, reference: assets/reference/scenes_judge.safetensors, encoder: acme/encoder}",
    "rewards.pleasing={name: laion_aesthetic, head: HEAD}",
    "evaluation.judges.asked={name: yes_no, checkpoint: acme/judge}",
    "trainer.tracker=none",
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache: Path, name: str, commit: str = "abc", revision: str = "main") -> None:
    """As the Hub's client leaves a file of the model `name`."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / revision).write_text(commit)


def faults(path: Path, changes: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        examine(draft(path, changes))
    return [fault for fault in caught.value.faults if "HF_HUB_OFFLINE forbids to download it" in fault]


def test_every_id_that_is_not_there_is_named(
    run_file: Callable[..., Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"0.weight": zeros(1, 768), "0.bias": zeros(1)}, tmp_path / "head.safetensors")
    changes = [change.replace("HEAD", str(tmp_path / "head.safetensors")) for change in CHANGES]
    found = faults(run_file(), changes)
    for place, name in (
        ("adapter: model", "acme/generator"),
        ("rewards.likes: checkpoint", "yuvalkirstain/PickScore_v1"),
        ("rewards.near: checkpoint", "acme/encoder"),
        ("rewards.pleasing: pretrained", "timm/vit_large_patch14_clip_224.openai"),
        ("evaluation.judges.asked: checkpoint", "acme/judge"),
    ):
        assert any(f"{place} {name} is not on this machine" in fault for fault in found), (place, found)
    put(cache, "acme/generator")
    assert not any("acme/generator" in fault for fault in faults(run_file(), changes))
    assert any("acme/generator" in fault for fault in faults(run_file(), [*changes, "adapter.revision=v2"]))
    put(cache, "acme/generator", "def", "v2")
    assert not any("acme/generator" in fault for fault in faults(run_file(), [*changes, "adapter.revision=v2"]))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    examine(draft(run_file(), ["adapter.model=acme/generator"]))
