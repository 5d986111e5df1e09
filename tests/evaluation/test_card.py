"""The card's header is what the Hub reads, its table what was measured, its lines what loads the weights."""

import inspect
import json
from pathlib import Path

import pytest
import yaml

from mmalign.core.errors import DataError
from mmalign.evaluation import card as card_module
from mmalign.evaluation import run_record
from mmalign.evaluation.card import card, weights_card, write_cards
from mmalign.evaluation.card_sections import licence_of
from mmalign.evaluation.run_record import read_run
from tests.evaluation.runs import make_run


def test_card_does_not_import_the_report_which_imports_it() -> None:
    for module in (card_module, run_record):
        assert "evaluation.report" not in inspect.getsource(module)


def header(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_card_of_a_run(tmp_path: Path) -> None:
    text = card(make_run(tmp_path / "sunny"))
    top = header(text)
    shown, index = top.pop("widget"), top.pop("model-index")
    assert top == {
        "tags": ["mmalign", "grpo", "lora"],
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": "owner/tiny-model",
        "base_model_relation": "adapter",
    }
    assert shown[1] == {"text": "prompt 1", "output": {"url": "evaluation/after/outputs/0001.png"}}
    (result,) = index[0]["results"]
    assert (index[0]["name"], result["task"]["type"]) == ("sunny", "text-to-image")
    assert {m["type"]: m["value"] for m in result["metrics"]}["truth"] == pytest.approx(5 / 6, abs=1e-6)
    assert "- base model `owner/tiny-model`: not stated here" in text and "- data `p.txt`: not stated here" in text
    assert "## Intended use" in text and "Measured on 6 held-out rows" in text
    assert "- The trained reward rose, the truth did not move beyond chance" in text and "- No alarm was raised" in text
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


def test_the_weights_have_a_card_of_their_own_with_the_files_that_it_shows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "sunny")
    (run / "alarms.jsonl").write_text('{"step": 20, "kind": "turned", "about": "truth", "text": "truth fell."}\n')
    write_cards(run)
    folder = run / "checkpoints" / "step_000040" / "adapter"
    text = (folder / "README.md").read_text()
    assert (run / "README.md").read_text() == card(run)
    assert all((folder / one["output"]["url"]).is_file() for one in header(text)["widget"])
    assert "pipe.load_lora_weights(run)" in text and "report.html" not in text
    assert "- Alarm at step 20: truth fell." in text and "| ![0001_before](gallery/0001_before.png) |" in text
    (folder / "unet").mkdir()
    (folder / "pytorch_lora_weights.safetensors").unlink()
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    assert 'from_pretrained(f"{run}/unet")' in weights_card(read_run(run))[0]
    assert 'run = "me/shapes"\n' in weights_card(read_run(run), "me/shapes")[0]


def test_texts_stand_in_the_table_and_a_full_model_is_a_finetune(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", "text")
    adapter = run / "checkpoints" / "step_000040" / "adapter"
    (adapter / "pytorch_lora_weights.safetensors").unlink()
    (adapter / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    text = card(run)
    assert header(text)["base_model_relation"] == "finetune" and "widget" not in header(text)
    assert "| prompt 3 | \\<b\\>answer\\</b\\> 3 | \\<b\\>answer\\</b\\> 3 |" in text


def test_licences_are_those_that_models_and_data_state(tmp_path: Path) -> None:
    assert licence_of("assets/scenes_sd3") == "apache-2.0" and licence_of("owner/nowhere-cached") == ""
    for front, said in (
        ("---\nlicense: openrail++\n---\n", "openrail++"),
        ("---\r\nlicense: mit\r\n---\r\n# x", "mit"),
        ("---\nlicense: [mit]\n---\n", ""),
        ("---\nlicense: a b\n---\n", ""),
        ("---\n{\n---\n", ""),
        ("# no header", ""),
    ):
        (tmp_path / "README.md").write_bytes(front.encode())
        assert licence_of(str(tmp_path)) == said
