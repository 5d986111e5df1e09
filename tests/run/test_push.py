"""A run on its way to the Hub: what would be sent, what is sent, and what the Hub's refusals say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from mmalign.core.errors import CheckpointError, ConfigError
from mmalign.run.push import prepared, require_repository, upload
from tests.cli.conftest import *  # noqa: F403
from tests.evaluation.runs import make_run
from tests.run.stand_in_hub import StandIn, stand_in

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")  # within huggingface_hub
WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    run = make_run(tmp_path / "sunny")
    save_file({"a": torch.arange(3.0)}, run / "checkpoints" / "step_000040" / "adapter" / WEIGHTS)
    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # which speaks no HTTP of its own
    with stand_in() as made:
        yield made


def test_what_is_sent_is_weights_card_and_run(trained: Path) -> None:
    with prepared(trained, "me/shapes") as sent:
        readme = sent.files["README.md"].read_text()
        assert set(sent.files) >= {WEIGHTS, "README.md", "run/run.yaml", "run/metrics.jsonl", "gallery/0000_after.png"}
        assert "checkpoints" not in " ".join(sent.files) and "environment.json" not in " ".join(sent.files)
        assert sent.bytes == sum(path.stat().st_size for path in sent.files.values())
        assert 'run = "me/shapes"' in readme and "pipe.load_lora_weights(run)" in readme
        header = yaml.safe_load(readme.split("---")[1])
        assert header["base_model_relation"] == "adapter"
        assert all(one["output"]["url"] in sent.files for one in header["widget"])
        assert sent.places == {}
    assert not sent.files["README.md"].exists()


def test_it_arrives_private_and_whole(trained: Path, hub: StandIn) -> None:
    with prepared(trained, "me/shapes") as sent:
        expected = {place: path.read_bytes() for place, path in sent.files.items()}
        assert upload(sent, "me/shapes", endpoint=hub.url, token="hf_made_up") == f"{hub.url}/me/shapes"
    assert hub.files == expected and hub.tokens >= {"Bearer hf_made_up"}
    assert [(made["name"], made["organization"], made["visibility"]) for made in hub.created] == [
        ("shapes", "me", "private")
    ]


def test_refusals_are_sentences(trained: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuse = 403
    with prepared(trained, "me/shapes") as sent:
        with pytest.raises(ConfigError, match=r"me/shapes: the Hub refused \(403\).* Log in by `hf auth login`"):
            upload(sent, "me/shapes", endpoint=hub.url, token="hf_made_up")
        with pytest.raises(ConfigError, match="the Hub cannot be reached"):
            upload(sent, "me/shapes", endpoint="http://127.0.0.1:9", token="hf_made_up")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set: nothing is sent"):
            upload(sent, "me/shapes", endpoint=hub.url, token="hf_made_up")
    (trained / "checkpoints" / "step_000040" / "done").unlink()
    with pytest.raises(CheckpointError, match="no complete checkpoint"), prepared(trained, "me/shapes"):
        pass


@pytest.mark.parametrize("name", ["shapes", "me/", "me/a/b", "../x", "me/a b", "me/a--b"])
def test_names_that_no_repository_has(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a repository; write ORG/NAME"):
        require_repository(name)


def test_the_command_lists_first_and_sends_when_told(
    trained: Path,
    hub: StandIn,
    call: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (trained / "summary.json").write_text(
        (trained / "summary.json").read_text().replace('"report.html"', '"/home/me/runs/sunny/report.html"')
    )
    code, out, _ = call("push", trained, "me/shapes")
    assert code == 0 and f"  {WEIGHTS}" in out and "Nothing was sent; --yes sends it." in out
    assert "run/summary.json   names /home/me/runs/sunny/report.html" in out and hub.asked == []
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", hub.url, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    code, out, err = call("push", trained, "me/shapes", "--yes", "--public")
    assert code == 0 and f"{hub.url}/me/shapes" in out, err
    assert hub.created[0]["visibility"] == "public" and WEIGHTS in hub.files
