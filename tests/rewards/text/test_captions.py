"""Rewards against reference texts: the libraries' own values, golden values, and what embeddings say."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from mmalign.core.errors import DataError, MissingExtra
from mmalign.core.types import Status
from mmalign.rewards import functional as F
from mmalign.rewards import load_reward
from tests.rewards.asking import one, rollout_of, scored

OK, FAIL, ERROR, NONE = Status.OK, Status.PARSE_FAIL, Status.ERROR, Status.NOT_APPLICABLE
CATS = {"references": ["the cat sat on the mat", "a cat is sitting on a mat"]}


# BLEU, chrF --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caption", ["the cat sat on the mat", "The cat sits on a mat.", "dogs", "cat", "x" * 300])
def test_bleu_and_chrf_are_sacrebleus(caption):
    sacrebleu = pytest.importorskip("sacrebleu")
    references = CATS["references"]
    expected = sacrebleu.sentence_bleu(caption, references, lowercase=True).score / 100
    assert one("bleu", caption, CATS) == (pytest.approx(min(1, expected), abs=1e-6), OK)
    expected = sacrebleu.sentence_chrf(caption.lower(), references).score / 100
    assert one("chrf", caption, CATS) == (pytest.approx(expected, abs=1e-6), OK)
    expected = sacrebleu.sentence_chrf(caption, references, word_order=2).score / 100
    assert one("chrf", caption, CATS, word_order=2, lowercase=False) == (pytest.approx(expected, abs=1e-6), OK)


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_captions_that_are_none(name):
    pytest.importorskip("sacrebleu")
    assert one(name, "", CATS) == one(name, "x" * 200_000, CATS) == one(name, "<think>hm", CATS) == (0, FAIL)
    assert one(name, "a", {"references": []})[1] is ERROR and one(name, "a")[1] is NONE


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    with pytest.raises(
        MissingExtra, match=r"reward 'bleu' needs the 'caption' extra: pip install 'mmalign\[caption\]'"
    ):
        load_reward("bleu")


# CIDEr-D -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("the cat sat on the mat\n\na dog runs in the park\n")
    return str(path)


A, B = {"references": "the cat sat on the mat"}, {"references": ["a dog runs in the park"]}


@pytest.mark.parametrize(
    "first, second, expected",
    [
        ("The cat sat on the mat.", "a dog runs in the park", (10.0, 10.0)),
        ("the cat sat on the sofa", "a dog sleeps", (7.416667, 1.836974)),
        ("cat " * 6, "dog " * 6, (0.208333, 0.186339)),
    ],
)
def test_cider_golden_values(first, second, expected, corpus):
    pytest.importorskip("pycocoevalcap")
    assert scored("cider", (first, A), (second, B), corpus=corpus).value.tolist() == pytest.approx(expected, abs=1e-5)


def test_cider_of_a_row_equals_the_whole_corpus_scored_by_the_library(tmp_path):
    """The library takes frequencies from the batch it is given; here the batch is the corpus."""
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    references = [
        ["a red cat", "one red cat here"],
        ["two dogs run", "dogs running"],
        ["a cat and a dog"],
        ["red dogs"],
    ]
    captions = ["a red cat here", "two dogs", "a dog and a cat", "blue birds"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"references": texts}) + "\n" for texts in references))
    _, expected = cider.Cider().compute_score(
        dict(enumerate(references)), {i: [text] for i, text in enumerate(captions)}
    )
    rows = [(text, {"references": texts}) for text, texts in zip(captions, references, strict=True)]
    scores = scored("cider", *rows, corpus=str(path))
    assert scores.value.tolist() == pytest.approx(list(expected), abs=1e-5)
    alone = torch.cat([scored("cider", row, corpus=str(path)).value for row in rows])
    assert torch.equal(scores.value, alone)


def test_a_corpus_that_says_nothing_is_refused(tmp_path):
    pytest.importorskip("pycocoevalcap")
    path = tmp_path / "one.txt"
    path.write_text("a cat\n")
    with pytest.raises(DataError, match=r"one\.txt: holds 1 pictures; of fewer than two every word is as common"):
        scored("cider", ("a cat", A), corpus=str(path))
    path.write_bytes(b"a cat\na caf\xe9\n")
    with pytest.raises(DataError, match=r"one\.txt:2: not UTF-8 text"):
        scored("cider", ("a cat", A), corpus=str(path))
    path = tmp_path / "bad.jsonl"
    path.write_text('{"references": ["a"]}\n{"caption": "b"}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl, row 1: expected an object with references in 'references'"):
        scored("cider", ("a cat", A), corpus=str(path))


# embeddings --------------------------------------------------------------------------------------------------------

WORDS = ["dog", "bites", "man", "hound", "red", "!", "[UNK]"]
ROWS = torch.eye(7)[:, :6] + 1.0  # what all share is 1
ROWS[3] = ROWS[0] + torch.tensor([0.0, 0.3, 0, 0, 0, 0])  # a hound is nearly a dog


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A folder as transformers saves one."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("table")
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["[UNK]"])
    made.save(str(folder / "tokenizer.json"))
    save_file({"model.embed_tokens.weight": ROWS, "lm_head.weight": torch.zeros(7, 6)}, folder / "model.safetensors")
    return folder


def test_bmas_in_a_table(table):
    options = {"checkpoint": str(table)}
    truth = {"references": "dog bites man"}
    assert one("bmas", "man bites dog !", truth, **options) == (pytest.approx(1), OK)  # order-blind, by construction
    near, far = (one("bmas", text, truth, **options)[0] for text in ("hound bites man", "red"))
    assert 1 > near > 0.8 > 0 > far
    assert one("bmas", "red", truth, centre=False, **options)[0] > 0.8  # why the mean is taken away
    assert one("bmas", "hound bites man", {"references": ["red", "dog bites man"]}, **options)[0] == pytest.approx(near)
    centre = ROWS.mean(0)
    by_hand = F.bmas(ROWS[[3, 1]], ROWS[[0, 1, 2]], centre, "f1").item()
    assert one("bmas", "hound bites", truth, reduce="f1", **options)[0] == pytest.approx(by_hand)
    repeated = one("bmas", "dog " * 40_00, truth, **options)[0]
    assert repeated < near
    for text in ("", "!!", "zzz", "x" * 200_000, "<think>"):
        assert one("bmas", text, truth, **options) == (-1, FAIL), text
    assert one("bmas", "dog", {"references": "!"}, **options)[1] is ERROR


def test_bmas_of_long_texts_is_computed_in_pieces():
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(5000, 8, generator=rng), torch.randn(30, 8, generator=rng)
    cosine = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=2)
    forth, back = cosine.amax(1).mean(), cosine.amax(0).mean()
    assert torch.allclose(F.bmas(first, second), (forth + back) / 2, atol=1e-6)
    assert torch.allclose(F.bmas(first, second, reduce="f1"), 2 / (1 / forth + 1 / back), atol=1e-6)


def test_tables_that_cannot_be_used(table, tmp_path):
    with pytest.raises(DataError, match=r"no tensor 'wte'; name one with `tensor`. It holds .*embed_tokens"):
        scored("bmas", ("dog", {"references": "dog"}), checkpoint=str(table), tensor="wte")
    with pytest.raises(DataError, match=r"no tokenizer\.json in it"):
        scored("bmas", ("dog", {"references": "dog"}), checkpoint=str(tmp_path))


def test_bmas_reads_an_open_clip_folder(tiny_clip):
    truth = {"references": "a red circle"}
    assert one("bmas", "a red circle", truth, checkpoint=str(tiny_clip))[0] == pytest.approx(1, abs=1e-6)
    assert one("bmas", "two blue star", truth, checkpoint=str(tiny_clip))[0] < 0.9


# contrast ----------------------------------------------------------------------------------------------------------


def test_contrastive_similarity_by_hand():
    own = torch.tensor([0.9, 0.5, 0.1])
    others = torch.tensor([[0.2, 0.4], [0.6, 0.8], [0.3, 0.3]])
    present = torch.tensor([[True, True], [True, False], [False, False]])
    assert F.contrastive_similarity(own, others, present)[:2].tolist() == pytest.approx([0.6, -0.1])
    assert F.contrastive_similarity(own, others, present, "max")[:2].tolist() == pytest.approx([0.5, -0.1])
    soft = F.contrastive_similarity(own, others, present, "logsumexp", 0.1)
    expected = 0.9 - 0.1 * torch.tensor([2.0, 4.0]).exp().mean().log().item()
    assert soft[:2].tolist() == pytest.approx([expected, -0.1])
    for kind in ("mean", "max", "logsumexp"):
        assert F.contrastive_similarity(own, others, present, kind)[2].isnan()
        assert F.contrastive_similarity(own, others[:, :0], present[:, :0], kind).isnan().all()


def test_contrastive_reward_against_the_batch_and_a_column(tiny_clip):
    options = {"encoder": str(tiny_clip)}
    truths = ["a red circle", "two blue star", "green square"]
    rows = [(text, {"answer": text}) for text in truths] + [("", {"answer": "a"}), ("a", {})]
    scores = scored("contrastive", *rows, group=[0, 1, 2, 0, 1], **options)
    assert scores.status.tolist() == [OK, OK, OK, FAIL, NONE] and scores.value[3] == -2
    features = load_reward("contrastive", **options).embedder.texts(truths)
    cosine = features @ features.T
    expected = [1 - (cosine[0, 1] + cosine[0, 2]) / 2, 1 - (cosine[1, 0] + cosine[1, 2]) / 2]
    assert scores.value[:2].tolist() == pytest.approx([float(e) for e in expected], abs=1e-5)
    columns = [(truths[0], {"answer": truths[0], "negatives": truths[1:]})]
    alone = scored("contrastive", *columns, negatives="column", **options)
    assert alone.value[0].item() == pytest.approx(float(expected[0]), abs=1e-5)
    assert scored("contrastive", *rows[:2], group=[4, 4], **options).status.tolist() == [NONE, NONE]
    query = ("```sql\nselect 1\n```", {"answer": "select 1", "negatives": "x"})
    sql = scored("contrastive", query, ("select", rows[0][1]), negatives="column", where="sql", **options)
    assert sql.status.tolist() == [OK, NONE] and sql.value[0] != 0


def test_a_batch_contrast_is_not_cached_or_split(tiny_clip):
    reward = load_reward("contrastive", encoder=str(tiny_clip))
    assert reward.batch_dependent and not reward.deterministic
    assert not load_reward("contrastive", encoder=str(tiny_clip), negatives="column").batch_dependent
    rollout = rollout_of(("a", {"answer": "a"}), ("b", {"answer": "b"}))
    assert torch.equal(reward(rollout).value.flip(0), reward(rollout[torch.tensor([1, 0])]).value)
