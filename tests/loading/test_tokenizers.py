"""A tokenizer opened without the model's configuration is the one that AutoTokenizer itself opens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer

from mmalign.adapters.language._reader import context_in
from mmalign.loading.texts import open_tokenizer

ASSETS = Path(__file__).parents[2] / "assets"

FOLDERS = sorted(file.parent for file in ASSETS.rglob("tokenizer_config.json"))
TEXTS = ("a red circle above a blue square", "Ünïcode\n  and <|end|> twice", "")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ASSETS)))
def test_embedded_tokenizers_are_those_of_auto_tokenizer(folder: Path) -> None:
    require_same(folder)


@pytest.mark.parametrize(
    "model_type", ["llama", "qwen2", "gpt2", "llava", "mistral", "bert", "deepseek_v3", "of_nobody"]
)
@pytest.mark.parametrize(
    "tokenizer_class",
    [
        None,
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
        "LlamaTokenizerFast",
        "Qwen2Tokenizer",
        "GPT2Tokenizer",
        "OfNobody",
    ],
)
def test_whatever_class_the_files_name(model_type: str, tokenizer_class: str | None, tmp_path: Path) -> None:
    """Families with a wrong class on the Hub (`llava`, `deepseek_v3`) are among them."""
    folder = tmp_path / "model"
    shutil.copytree(ASSETS / "scenes_rewriter", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    rewrite(folder / "config.json", model_type=model_type, tokenizer_class=None)
    rewrite(folder / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    require_same(folder)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen2_vl"])
@pytest.mark.parametrize(
    "entries", [{}, {"max_position_embeddings": 77}, {"text_config": {"max_position_embeddings": 55}}]
)
def test_the_context_is_that_of_the_model_s_configuration(model_type: str, entries: dict, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **entries}))
    config = AutoConfig.from_pretrained(tmp_path).get_text_config()
    assert context_in(tmp_path) == getattr(config, "max_position_embeddings", None)


def require_same(folder: Path) -> None:
    try:
        expected = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, AttributeError, KeyError, TypeError) as error:
        with pytest.raises(Exception, match="no tokenizer could be built"):
            open_tokenizer(folder)
        pytest.skip(f"transformers opens none: {error}")
    tokenizer = open_tokenizer(folder)
    assert type(tokenizer) is type(expected)
    assert [tokenizer(text)["input_ids"] for text in TEXTS] == [expected(text)["input_ids"] for text in TEXTS]
    assert tokenizer.special_tokens_map == expected.special_tokens_map
    assert (tokenizer.chat_template, tokenizer.model_max_length) == (expected.chat_template, expected.model_max_length)


def rewrite(file: Path, **entries: str | None) -> None:
    """Set `entries` in a JSON file; None takes one out."""
    whole = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))
