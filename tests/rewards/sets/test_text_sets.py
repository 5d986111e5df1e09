"""Text encoders of real classes at toy size, and set rewards over what they make of texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.core.errors import CheckpointError, ConfigError, DataError
from mmalign.core.types import Prompt, Rollout
from mmalign.rewards.encoders import make_encoder
from tests.adapters.language.tiny_lm import word_tokenizer, write_tiny_lm
from tests.rewards.doubles import built, text_encoder

TEXTS = ["red cube", "two dogs asleep", "a b c d", "say good", "bad", "two red dogs"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel

    folder, words = tmp_path_factory.mktemp("bert"), word_tokenizer()
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = BertConfig(vocab_size=len(words), max_position_embeddings=16, initializer_range=0.5, **shape)
        BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def rollout(texts: list[str] = TEXTS) -> Rollout:
    return Rollout([Prompt("q")] * len(texts), list(texts), torch.zeros(len(texts), dtype=torch.long))


def alone(folder: Path, text: str, pooling: str, auto: str = "AutoModel") -> torch.Tensor:
    """One text by the model itself, no padding."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, auto).from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].double()
    row = {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pooling]
    return (row / row.norm()).float()


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_rows_are_the_models_own_pooled(bert: Path, pooling: str) -> None:
    embedded = make_encoder({"name": "text", "checkpoint": str(bert), "pooling": pooling}).embed(rollout())
    want = torch.stack([alone(bert, text, pooling) for text in TEXTS])
    torch.testing.assert_close(embedded, want, atol=1e-5, rtol=0)


def test_language_models_are_read_at_their_last_token(tmp_path: Path) -> None:
    folder = write_tiny_lm(tmp_path / "llama", "llama")
    encoder = text_encoder({"name": "text", "checkpoint": str(folder), "pooling": "last", "prefix": "say "})
    want = torch.stack([alone(folder, "say " + text, "last") for text in TEXTS])
    torch.testing.assert_close(encoder.texts(TEXTS), want, atol=1e-5, rtol=0)


def test_sentence_transformers_say_how_they_pool(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sentences"
    shutil.copytree(bert, folder)
    (folder / "1_Pooling").mkdir()

    def write(modules: list[str], modes: dict[str, Any]) -> None:
        listed = [{"type": f"sentence_transformers.models.{kind}"} for kind in modules]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))

    write(["Transformer", "Pooling", "Normalize"], {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    spec = {"name": "text", "checkpoint": str(folder)}
    torch.testing.assert_close(
        text_encoder(spec).texts(TEXTS[:1])[0], alone(bert, TEXTS[0], "first"), atol=1e-5, rtol=0
    )
    write(["Transformer", "Pooling"], {"pooling_mode_max_tokens": True})
    with pytest.raises(DataError, match="pools by pooling_mode_max_tokens; known: pooling_mode_mean_tokens"):
        make_encoder(spec).fingerprint()
    write(["Transformer", "Pooling", "Dense"], {"pooling_mode_mean_tokens": True})
    with pytest.raises(ConfigError, match="has a module Dense; only Transformer, Pooling, Normalize are read"):
        make_encoder(spec)


def test_long_texts_are_cut_and_names_tell_encoders_apart(bert: Path, tmp_path: Path) -> None:
    spec = {"name": "text", "checkpoint": str(bert)}
    rows = text_encoder(spec).texts(["red " * 100, "red " * 16, "red " * 8])
    torch.testing.assert_close(rows[0], rows[1])
    short = text_encoder({**spec, "tokens": 4})
    assert not torch.allclose(short.texts(["a b c d e f"]), text_encoder(spec).texts(["a b c d e f"]))
    assert len({make_encoder({**spec, **more}).fingerprint() for more in ({}, {"tokens": 4}, {"prefix": "x"})}) == 3
    with pytest.raises(ConfigError, match=r"encoder.tokens: 0 must be at least 1"):
        make_encoder({**spec, "tokens": 0})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no \*.safetensors weights"):
        text_encoder({**spec, "checkpoint": str(tmp_path)}).texts(["a"])


def test_frechet_over_texts_is_scipys_distance_and_credits_the_odd_one(bert: Path, tmp_path: Path) -> None:
    from scipy.linalg import sqrtm

    exemplars = tmp_path / "exemplars.txt"
    exemplars.write_text("\n".join(["red cube", "two red dogs", "a red cube", "red dogs", "two red cube"]) + "\n")
    spec = {"name": "text", "checkpoint": str(bert)}
    reward = built("frechet", reference=str(exemplars), encoder=spec, least_rows=5)
    assert reward.modalities == {"text"} and not reward.differentiable
    made = reward.embed(rollout())
    a, b = (x.double().numpy() for x in (made, text_encoder(spec).texts(exemplars.read_text().splitlines())))
    gap, (c, d) = a.mean(0) - b.mean(0), (np.cov(x, rowvar=False) for x in (a, b))
    want = gap @ gap + np.trace(c + d) - 2 * np.trace(sqrtm(c @ d)).real
    assert reward.score(made).item() == pytest.approx(-want, abs=1e-3)
    near = reward.embed(rollout(["red cube", "two red dogs", "a red cube", "two red cube", "bad bad asleep say"]))
    assert int(reward.credit(near).argmin()) == 4


def test_vendi_over_texts_counts_different_texts(bert: Path) -> None:
    reward = built("vendi", encoder={"name": "text", "checkpoint": str(bert)})
    same, two = (reward.score(reward.embed(rollout(t))).item() for t in (["red"] * 4, ["red", "red", "bad", "bad"]))
    cosine = float(reward.embed(rollout(["red"])) @ reward.embed(rollout(["bad"])).T)
    share = torch.tensor([(1 + cosine) / 2, (1 - cosine) / 2]).double()
    assert same == pytest.approx(1, abs=1e-5)
    assert two == pytest.approx(float((-(share * share.log()).sum()).exp()), abs=1e-4)
