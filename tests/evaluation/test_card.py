"""The card's header is what the Hub reads, its table what was measured, its lines what loads the weights."""

import inspect
import json
from pathlib import Path

import pytest
import yaml

from mmalign.core.errors import DataError
from mmalign.evaluation import card as card_module
from mmalign.evaluation import run_record
from mmalign.evaluation.card import card
from tests.evaluation.runs import make_run


def test_card_does_not_import_the_report_which_imports_it() -> None:
    for module in (card_module, run_record):
        assert "evaluation.report" not in inspect.getsource(module)


def header(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_card_of_a_run(tmp_path: Path) -> None:
    text = card(make_run(tmp_path / "sunny"))
    assert header(text) == {
        "tags": ["mmalign", "grpo", "lora"],
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": "owner/tiny-model",
    }
    assert "# sunny" in text and "| truth | verifier | 0.333 | 0.833 | +0.500 |" in text
    assert "| clip | `clip` | 1.0 | prefix = a\\|b |" in text
    assert 'pipe.load_lora_weights(f"{run}/checkpoints/step_000040/adapter")' in text
    assert "https://arxiv.org/abs/2402.03300" in text
    assert "Made with mmalign 0.1.0, torch 2.11.0." in text


@pytest.mark.parametrize(
    ("files", "library", "line"),
    [
        ({"adapter_config.json": {}}, "peft", "PeftModel.from_pretrained(getattr(pipe, part), f"),
        (
            {"model_index.json": {}},
            "diffusers",
            'DiffusionPipeline.from_pretrained(f"{run}/checkpoints/step_000040/adapter")',
        ),
        (
            {"unet/config.json": {"_class_name": "UNet2DConditionModel"}},
            "diffusers",
            'pipe.unet = UNet2DConditionModel.from_pretrained(f"{run}/checkpoints/step_000040/adapter/unet")',
        ),
        ({"config.json": {"architectures": ["GPT2LMHeadModel"]}}, "transformers", "GPT2LMHeadModel.from_pretrained"),
    ],
)
def test_loading_lines_follow_the_files(tmp_path: Path, files: dict, library: str, line: str) -> None:
    run = make_run(tmp_path / "r", "text")
    adapter = run / "checkpoints" / "step_000040" / "adapter"
    (adapter / "pytorch_lora_weights.safetensors").unlink()
    for name, content in files.items():
        (adapter / name).parent.mkdir(exist_ok=True)
        (adapter / name).write_text(json.dumps(content))
    text = card(run)
    assert header(text)["library_name"] == library and line in text
    snippet = text.split("```python\n")[1].split("```")[0]
    compile(snippet, "card", "exec")


def test_local_bases_stay_out_of_the_header_and_empty_directories_have_a_card(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    (run / "run.yaml").write_text((run / "run.yaml").read_text().replace("owner/tiny-model", "assets/scenes"))
    assert "base_model" not in header(card(run)) and "`assets/scenes` aligned" in card(run)
    (tmp_path / "bare").mkdir()
    assert header(card(tmp_path / "bare")) == {"tags": ["mmalign"]}
    with pytest.raises(DataError, match="no such run directory"):
        card(tmp_path / "gone")
