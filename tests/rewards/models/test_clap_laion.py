"""LAION's own weights against laion-clap itself: real sizes, random weights, no download."""

import importlib.util
import random

import numpy as np
import pytest
import torch

from mmalign.core.errors import DataError
from mmalign.core.types import Audio, Prompt, Rollout
from mmalign.rewards import load_reward

pytestmark = [
    pytest.mark.every_extra,
    pytest.mark.skipif(
        importlib.util.find_spec("laion_clap") is None,
        reason="laion-clap is not installed (extra laion; it wants numpy below 2)",
    ),
]
TEXTS = ["a dog barks twice in the distance", "slow solo piano", "rain", "a crowd cheers " * 40]  # the last is cut
RATE = 48_000


def roberta_tokenizer():
    """A byte-level tokenizer of RoBERTa's class: every byte is a word."""
    from tokenizers import pre_tokenizers
    from transformers import RobertaTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    return RobertaTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])


@pytest.fixture(scope="module")
def laion():
    """laion-clap, whose import and modules would read RoBERTa and others from the Hub."""
    import transformers
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=261,
        num_hidden_layers=2,
        intermediate_size=256,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,  # as roberta-base
    )
    tokenizer = roberta_tokenizer()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
            patch.setattr(getattr(transformers, name), "from_pretrained", lambda *_, **__: tokenizer)
        patch.setattr(RobertaModel, "from_pretrained", lambda *_, **__: RobertaModel(config))
        import laion_clap

        yield laion_clap


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def checkpoint(request, laion, tmp_path_factory):
    """laion-clap's module with random weights, and its file; beside it the *other* variant's processor."""
    from transformers import ClapFeatureExtractor

    folder = tmp_path_factory.mktemp("laion")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = laion.CLAP_Module(enable_fusion=request.param, device="cpu", amodel="HTSAT-tiny").eval()
        for name, weight in module.model.text_branch.named_parameters():  # else all texts are nearly alike
            weight.data *= 4 if weight.ndim == 2 and "embedding" not in name else 1
    torch.save({"epoch": 1, "state_dict": module.model.state_dict()}, folder / "clap.pt")
    roberta_tokenizer().save_pretrained(folder / "processor")
    other = "rand_trunc" if request.param else "fusion"
    ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation=other).save_pretrained(folder / "processor")
    return module, folder


def sounds(seconds: float) -> Rollout:
    time = torch.arange(int(seconds * RATE)) / RATE
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(1))
    waves = [torch.sin(2 * torch.pi * pitch * time) for pitch in (220, 1760)]
    waves += [0.3 * noise, torch.sin(2 * torch.pi * (200 + 900 * time) * time)]
    samples = 0.5 * torch.stack(waves)[:, None]
    return Rollout([Prompt(text) for text in TEXTS], Audio(samples, RATE), torch.arange(4))


def own_score(module, rows: Rollout) -> torch.Tensor:
    with torch.no_grad():
        of_sounds = module.get_audio_embedding_from_data(rows.output.samples[:, 0], use_tensor=True)
        of_texts = module.get_text_embedding([prompt.text for prompt in rows.prompts], use_tensor=True)
    return (of_sounds * of_texts).sum(1)


@pytest.mark.parametrize("seconds", [2.3, 10.0])
def test_original_weights_score_as_laion_clap_itself(checkpoint, seconds, monkeypatch):
    monkeypatch.setattr("mmalign.rewards.models.clap_towers._COLLAPSED", 1.1)  # nothing is trained
    module, folder = checkpoint
    rows = sounds(seconds)
    want = own_score(module, rows)
    for options in ({"processor": str(folder / "processor")}, {"backend": "laion"}):
        value = load_reward("clap", checkpoint=str(folder / "clap.pt"), **options)(rows).value
        torch.testing.assert_close(value, want, atol=1e-4, rtol=0)


def test_a_long_sound_is_the_mean_of_laion_claps_windows(checkpoint, monkeypatch):
    monkeypatch.setattr("mmalign.rewards.models.clap_towers._COLLAPSED", 1.1)
    module, folder = checkpoint
    rows = sounds(14.0)
    wave = rows.output.samples[:, 0]
    with torch.no_grad():
        parts = [
            module.get_audio_embedding_from_data(part, use_tensor=True)
            for part in (wave[:, :480_000], wave[:, -480_000:])
        ]
        of_texts = module.get_text_embedding(TEXTS, use_tensor=True)
    want = (torch.nn.functional.normalize(sum(parts) / 2, dim=1) * of_texts).sum(1)
    value = load_reward("clap", checkpoint=str(folder / "clap.pt"), processor=str(folder / "processor"))(rows).value
    torch.testing.assert_close(value, want, atol=1e-4, rtol=0)


def test_its_random_crop_is_not_met_and_gradient_reaches_the_samples(checkpoint, monkeypatch):
    monkeypatch.setattr("mmalign.rewards.models.clap_towers._COLLAPSED", 1.1)
    reward = load_reward("clap", checkpoint=str(checkpoint[1] / "clap.pt"), backend="laion")
    rows = sounds(14.0)
    first = reward(rows).value
    random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    assert torch.equal(first, reward(rows).value)
    short = sounds(2.3)
    short.output.samples.requires_grad_()
    reward(short).value.sum().backward()
    assert short.output.samples.grad.abs().sum() > 0


def test_weights_that_are_not_its_own_are_refused(checkpoint, tmp_path):
    module, _ = checkpoint
    state = module.model.state_dict()
    torch.save({**state, "audio_branch.extra": torch.ones(1)}, tmp_path / "odd.pt")
    with pytest.raises(DataError, match=r"1 names differ from laion-clap's HTSAT-tiny, first audio_branch\.extra"):
        load_reward("clap", checkpoint=str(tmp_path / "odd.pt"), backend="laion")(sounds(2.3))
