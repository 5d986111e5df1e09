"""Judges of real classes at toy size; transformers' own forward, one question at a time, is what they are held to."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mmalign
from mmalign.core.errors import CapabilityError, ConfigError, DataError, ScoreError
from mmalign.core.types import Audio, Prompt, Rollout, Status
from mmalign.rewards import Guarded, ScoreCache
from mmalign.rewards.engine.cache import identity
from mmalign.rewards.functional import yes_no_margin, yes_probability
from mmalign.rewards.models.answer_words import answer_words
from mmalign.rewards.models.shared_prefix import behind_prefixes
from mmalign.rewards.models.template import Template
from tests.adapters.language.tiny_alm import RATE, write_tiny_alm
from tests.adapters.language.tiny_lm import letter_tokenizer, word_tokenizer, write_tiny_lm
from tests.adapters.language.tiny_vlm import write_tiny_vlm
from tests.rewards.doubles import noting

SAID = {"yes": "good", "no": "bad", "least_mass": 0.0}  # two words that the toys know


def picture(seed: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    root = tmp_path_factory.mktemp("judges")

    def made(kind: str) -> str:
        path = root / kind
        if not path.exists():
            if kind == "qwen2_audio":
                write_tiny_alm(path, kind)
            else:
                (write_tiny_lm if kind in ("llama", "qwen2") else write_tiny_vlm)(path, kind, chat=True)
        return str(path)

    return made


@pytest.fixture
def judge(folder: Callable[[str], str]) -> Callable[..., Any]:
    def made(kind: str = "llava", **options: Any) -> Any:
        return mmalign.load_reward("yes_no", checkpoint=folder(kind), **{"judge": SAID, **options})

    return made


def shown(*texts: str, group: list[int] | None = None) -> Rollout:
    images = torch.stack([picture(i) for i in range(len(texts))])
    return Rollout([Prompt(text) for text in texts], images, torch.tensor(group or list(range(len(texts)))))


def written(*rows: tuple[str, Prompt]) -> Rollout:
    return Rollout([prompt for _, prompt in rows], [text for text, _ in rows], torch.arange(len(rows)))


@torch.no_grad()
def plain(reward: Any, text: str, *pictures: Any) -> float:
    """log P(good) - log P(bad) by the model itself: the processor's output for one question, no padding, no cache."""
    model = reward.ask.model
    question = Prompt(text, {f"p{i}": picture for i, picture in enumerate(pictures)})
    inputs = {n: v[None] if v.dim() == 1 else v for n, v in model.encode([question])[0].items()}
    logits = model.network.model(**inputs, use_cache=False).logits[0, -1].double()
    good, bad = model.texts.tokenizer.convert_tokens_to_ids(["good", "bad"])
    return float(logits[good] - logits[bad])


# the numbers -------------------------------------------------------------------------------------------------------


def test_golden_values_of_two_answers() -> None:
    log_probs = torch.full((1, 4), -20.0)
    log_probs[0, 1], log_probs[0, 2] = -0.1, -2.5
    margin, mass = yes_no_margin(log_probs, [1], [2])
    assert yes_probability(margin).item() == pytest.approx(0.916827, abs=1e-6)
    assert yes_probability(margin, 2.0).item() == pytest.approx(0.768525, abs=1e-6)
    total = math.exp(-0.1) + math.exp(-2.5)
    assert mass.item() == pytest.approx(total / (total + 2 * math.exp(-20)), abs=1e-6)


def test_probabilities_of_variants_add_up_and_are_float32() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5, -1.0, 3.0]]).bfloat16()
    margin, mass = yes_no_margin(logits, [0, 1], [3])
    p = logits.double().softmax(1)[0]
    assert margin.dtype == torch.float32
    assert margin.item() == pytest.approx(math.log(p[0] + p[1]) - math.log(p[3]), abs=1e-6)
    assert mass.item() == pytest.approx(float(p[0] + p[1] + p[3]), abs=1e-6)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "idefics3", "gemma3"])
def test_pictures_are_judged_as_the_model_judges_one_alone(judge: Callable[..., Any], kind: str) -> None:
    reward = judge(kind, question="say {prompt}")
    rollout = shown("a b", "red cube", "a", "two dogs asleep")
    scores = reward(rollout)
    want = [plain(reward, f"say {p.text}", image) for p, image in zip(rollout.prompts, rollout.output, strict=True)]
    assert scores.parts["margin"].tolist() == pytest.approx(want, abs=1e-4)
    assert scores.value.tolist() == pytest.approx([1 / (1 + math.exp(-m)) for m in want], abs=1e-5)
    assert scores.confidence.tolist() == pytest.approx([abs(2 * v - 1) for v in scores.value.tolist()], abs=1e-6)
    assert max(want) - min(want) > 0.05 and scores.status.tolist() == [0] * 4


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "idefics3", "gemma3"])
def test_questions_about_one_picture_share_its_forward_and_keep_their_answers(
    judge: Callable[..., Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pictures with several questions each, one with one, one question without a picture; two batches."""
    asking = judge(kind, judge={**SAID, "rows": 5}).ask
    one, two, three = picture(1), picture(2), picture(3)
    questions = [
        Prompt("say red cube", {"image": one}),
        Prompt("say red", {"image": one}),
        Prompt("two dogs asleep", {"image": one}),
        Prompt("a b"),
        Prompt("say red cube", {"image": two}),
        Prompt("say a", {"image": two}),
        Prompt("b", {"image": three}),
        Prompt("say red", {"image": one.clone()}),
    ]
    seen: list[int] = []
    features = noting(asking.model.features, lambda inputs: seen.append(len(inputs)))
    monkeypatch.setattr(asking.model, "features", features)
    answers = asking(questions)
    want = [plain(type("R", (), {"ask": asking}), q.text, *q.media.values()) for q in questions]
    assert answers.margin.tolist() == pytest.approx(want, abs=1e-4)
    assert answers.margin[1] == answers.margin[7]  # the same question about the same pixels is asked once
    assert seen == [3]  # five questions of the first batch: three beginnings; in the second nothing is shared


def test_questions_behind_one_text_share_it(judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asking = judge("llama", question="{output}").ask
    text = "red cube two dogs asleep " * 8
    questions = [Prompt(f"{text} a say b"), Prompt(f"{text} a b"), Prompt("a b"), Prompt(f"{text} say two")]
    seen: list[int] = []
    features = noting(asking.model.features, lambda inputs: seen.append(len(inputs)))
    monkeypatch.setattr(asking.model, "features", features)
    want = [plain(type("R", (), {"ask": asking}), question.text) for question in questions]
    assert asking(questions).margin.tolist() == pytest.approx(want, abs=1e-4) and seen == [2]


def test_what_fits_alone_is_answered_beside_anything(judge: Callable[..., Any]) -> None:
    """A long question and long ends behind a shared picture: each fits the context of 128, cut together they do not."""
    asking = judge("llava", question="{prompt}").ask
    shared = [Prompt("red cube " * 30 + end, {"image": picture(1)}) for end in ("a", "b")]
    shared.append(Prompt("two dogs " * 30, {"image": picture(1)}))
    questions = [*shared, Prompt("say a " * 55)]
    answers = asking(questions)
    want = [plain(type("R", (), {"ask": asking}), q.text, *q.media.values()) for q in questions]
    assert answers.margin.tolist() == pytest.approx(want, abs=1e-4) and not any(answers.why)


def test_texts_of_a_language_model_and_captions_of_a_picture(judge: Callable[..., Any]) -> None:
    spoken = judge("llama", question="say {prompt} : {output}")
    scores = spoken(written(("two dogs", Prompt("a")), ("red cube a b", Prompt("b"))))
    want = [plain(spoken, "say a : two dogs"), plain(spoken, "say b : red cube a b")]
    assert scores.parts["margin"].tolist() == pytest.approx(want, abs=1e-4)
    seeing = judge("llava", question="say {output}", media="required")
    scores = seeing(written(("two dogs", Prompt("a", {"image": picture(5)})), ("red", Prompt("a"))))
    assert scores.parts["margin"][0].item() == pytest.approx(plain(seeing, "say two dogs", picture(5)), abs=1e-4)
    assert scores.status.tolist() == [Status.OK, Status.NOT_APPLICABLE] and scores.value[1].isnan()
    with pytest.raises(
        CapabilityError, match=r"question: shows the judge none of the text it is about; name \{output\}"
    ):
        judge("llama", question="say {prompt}")(written(("two dogs", Prompt("a"))))


def test_sounds_are_judged_and_what_is_said_of_them(judge: Callable[..., Any]) -> None:
    rng, mask = torch.Generator().manual_seed(3), torch.ones(3, 8000, dtype=torch.bool)
    mask[1, 5000:] = False
    sounds = Audio(0.3 * torch.randn(3, 1, 8000, generator=rng), RATE, mask)
    reward = judge("qwen2_audio", question="say {prompt}")
    made = Rollout([Prompt("a b"), Prompt("red"), Prompt("two dogs")], sounds, torch.arange(3))
    scores = reward(made)
    want = [plain(reward, f"say {p.text}", sounds[i : i + 1]) for i, p in enumerate(made.prompts)]
    assert scores.parts["margin"].tolist() == pytest.approx(want, abs=1e-4) and max(want) - min(want) > 0.05
    listening = judge("qwen2_audio", question="say {output}", media="required")
    spoken = listening(written(("two dogs", Prompt("a", {"audio": sounds[1:2]})), ("red", Prompt("a"))))
    assert spoken.parts["margin"][0].item() == pytest.approx(plain(listening, "say two dogs", sounds[1:2]), abs=1e-4)
    assert spoken.status.tolist() == [Status.OK, Status.NOT_APPLICABLE]
    assert "sound match" in judge("qwen2_audio")._about(made.prompts[0], {"audio": sounds[:1]}).text
    silent = Audio(torch.full((2, 1, 8000), float("nan")), RATE)
    lost = Guarded("j", reward, failed_share=1.0)(Rollout(made.prompts[:2], silent, torch.arange(2)))
    assert lost.status.tolist() == [Status.ERROR] * 2 and "not finite" in lost.info[0]


def test_no_is_the_good_answer_where_it_is_said_so(judge: Callable[..., Any]) -> None:
    rollout = shown("a b", "red cube")
    yes, no = (judge(question="say {prompt}", good=good)(rollout).value for good in ("yes", "no"))
    torch.testing.assert_close(yes + no, torch.ones(2))
    calm = judge(question="say {prompt}", temperature=4.0)(rollout)
    torch.testing.assert_close(calm.value, (calm.parts["margin"] / 4).sigmoid())


def test_nothing_is_asked_about_an_empty_prompt(judge: Callable[..., Any]) -> None:
    rows = written(("two dogs", Prompt("a")), ("two dogs", Prompt(" ")))
    scores = judge("llama", question="say {prompt} : {output}")(rows)
    assert scores.status.tolist() == [Status.OK, Status.NOT_APPLICABLE] and scores.value[1].isnan()
    assert judge("llama", question="say {output}")(rows).status.tolist() == [Status.OK, Status.OK]


def test_a_column_may_stand_in_the_question(judge: Callable[..., Any]) -> None:
    reward = judge("llama", question="say {hint} {output}")
    assert reward.needs == ("hint",)
    scores = reward(written(("red", Prompt("a", meta={"hint": "two"})), ("red", Prompt("a"))))
    assert scores.parts["margin"][0].item() == pytest.approx(plain(reward, "say two red"), abs=1e-4)
    assert scores.status[1] == Status.NOT_APPLICABLE and "no 'hint'" in scores.info[1]


# what goes wrong ---------------------------------------------------------------------------------------------------


def test_bad_texts_are_the_writers_fault_and_bad_pictures_are_not(judge: Callable[..., Any], tmp_path: Path) -> None:
    from mmalign.data.lazy_media import LazyMedia
    from mmalign.media.image import write_image

    for name in ("lost.png", "torn.png"):
        write_image(picture(0), tmp_path / name)
    missing, torn = (Prompt("a", LazyMedia({"image": name}, tmp_path, "row 1")) for name in ("lost.png", "torn.png"))
    (tmp_path / "lost.png").unlink()
    (tmp_path / "torn.png").write_bytes(b"\x89PNG and no more")
    reward = Guarded("judge", judge(question="say {output}"), failed_share=1.0)
    sound = Prompt("a", {"image": picture(1)})
    scores = reward(written(("  ", sound), ("red", missing), ("red", torn), ("red " * 200, sound), ("red", sound)))
    wanted = [Status.PARSE_FAIL, Status.ERROR, Status.ERROR, Status.PARSE_FAIL, Status.OK]
    assert scores.status.tolist() == wanted
    assert scores.value[0] == 0 and scores.value[3] == 0 and scores.value[1:3].isnan().all()
    assert "lost.png" in scores.info[1] and "torn.png" in scores.info[2]
    assert "tokens long and the judge reads 128" in scores.info[3]
    alone = judge(question="say {output}")(written(("red", sound)))
    assert scores.value[4].item() == pytest.approx(alone.value.item(), abs=1e-5)


def test_a_judge_that_says_neither_is_an_error_that_ends_the_run(judge: Callable[..., Any]) -> None:
    mute = judge(judge={**SAID, "least_mass": 0.99})
    scores = mute(shown("a", "b"))
    assert scores.status.tolist() == [Status.ERROR] * 2 and scores.value.isnan().all()
    assert "least_mass 0.99" in scores.info[0] and "it would begin with" in scores.info[0]
    with pytest.raises(ScoreError, match=r"reward 'judge' failed on 8 of the last 8 rows.*good and bad together"):
        Guarded("judge", mute)(shown(*"abcdefab"))


def test_a_prompt_too_long_for_the_judge_is_no_fault_of_the_picture(judge: Callable[..., Any]) -> None:
    scores = judge()(shown("a", "red " * 200))
    assert scores.status.tolist() == [Status.OK, Status.ERROR]


def test_every_fault_of_the_options_is_told(folder: Callable[[str], str], judge: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)temperature: must be above 0.*question: asks the same of every"):
        judge(question="is it good?", temperature=0.0)
    with pytest.raises(ConfigError, match=r"(?s)judge.rows: must be at least 1.*judge.least_mass: 1.5"):
        judge(judge={"rows": 0, "least_mass": 1.5})
    with pytest.raises(ConfigError, match=r"yes_no.checkpoint: missing"):
        mmalign.load_reward("yes_no")
    assert mmalign.load_reward is mmalign.rewards.load_reward  # one, which builds the judge, too
    with pytest.raises(ConfigError, match=r"judge.adapter.name: no adapter is called 'image_txt'. Did you mean"):
        judge(judge={"adapter": {"name": "image_txt"}})
    with pytest.raises(CapabilityError, match=r"names \{output\}, but pictures are shown"):
        judge(question="{output}?")(shown("a"))
    with pytest.raises(ConfigError, match="no: this tokenizer has no token for 'nay'"):
        judge(judge={"yes": "good", "no": "nay"})(shown("a"))


# words -------------------------------------------------------------------------------------------------------------


def test_every_spelling_of_the_words_is_found() -> None:
    from tests.adapters.language.tiny_tokens import qwen_tokenizer

    tokenizer = qwen_tokenizer(["yes Yes  yes no No no YES no"] * 50)
    words = answer_words(tokenizer, "yes", "no")
    texts = {tokenizer.decode([i]) for i in words.yes}
    assert {" yes", " Yes"} <= texts and {t.strip().casefold() for t in texts} == {"yes"} and not words.doubts
    assert not set(words.yes) & set(words.no)


def test_words_in_pieces_are_doubtful_and_words_alike_are_refused() -> None:
    letters = letter_tokenizer()
    words = answer_words(letters, "zest", "quiet")
    assert len(words.doubts) == 2 and "'zest' is no token of its own; it is known by its first: " in words.doubts[0]
    with pytest.raises(ConfigError, match="'zest' and 'zeal' begin with the same token"):
        answer_words(letters, "zest", "zeal")
    with pytest.raises(ConfigError, match="yes: this tokenizer has no token for 'oui'"):
        answer_words(word_tokenizer(), "oui", "bad")


def test_a_doubt_is_told_once(judge: Callable[..., Any]) -> None:
    reward = judge("qwen2", question="{output}", judge={"yes": "zest", "no": "quiet", "least_mass": 0.0})
    with pytest.warns(UserWarning, match="no token of its own"):
        reward(written(("a b", Prompt(""))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reward(written(("a", Prompt(""))))


@settings(max_examples=200)
@given(st.text(), st.text(), st.text(max_size=8))
def test_templates_fill_any_text_and_look_no_further(prompt: str, output: str, name: str) -> None:
    template = Template("<{prompt}|{output}|{x}|{ }>")
    row = Prompt(prompt, meta={"x": name})
    assert template.columns == ("x",)
    assert template.filled(row, output) == f"<{prompt}|{output}|{name}|{{ }}>"


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.sampled_from([b"", b"x", b"y"])), max_size=6
    )
)
def test_cut_prompts_are_the_prompts(rows: list[tuple[list[int], bytes]]) -> None:
    """Beginning and rest together are each prompt; ids of a picture (3) are never in a rest that is shared."""
    if not rows:
        return
    inputs = [{"input_ids": torch.tensor(ids), "pixels": torch.ones(1, 2)} for ids, _ in rows]
    cut = behind_prefixes(inputs, [p for _, p in rows], {3})
    for n, (ids, _) in enumerate(rows):
        rest = cut.tokens[n][cut.mask[n]].tolist()
        assert len(rest) == cut.lengths[n] + 1 >= 2
        beginning = cut.prefixes[int(cut.rows[n])]
        assert beginning["input_ids"].tolist() + rest[:-1] == ids and "pixels" in beginning
        alone = cut.rows.tolist().count(int(cut.rows[n])) == 1
        assert alone or 3 not in rest[:-1]


# loading, caching, processes ---------------------------------------------------------------------------------------


def test_equal_judges_share_one_model_and_nothing_trains(judge: Callable[..., Any]) -> None:
    first, second = judge(), judge(temperature=2.0)
    first.prepare(), second.prepare()
    assert first.ask.model is second.ask.model
    assert not first.ask.model.trainable()
    assert not any(p.requires_grad for p in first.ask.model.module.parameters())
    with pytest.raises(CapabilityError, match="train: frozen trains nothing, so there is nothing to save"):
        first.ask.model.save(Path("nowhere"))


def test_scores_are_cached_by_judge_and_question(judge: Callable[..., Any], tmp_path: Path) -> None:
    cache, rollout = ScoreCache(tmp_path / "s.sqlite"), shown("a", "b")
    first = Guarded("j", judge(), cache=cache)(rollout)
    again = Guarded("j", judge(), cache=cache)
    torch.testing.assert_close(again(rollout).value, first.value)
    assert again.metrics()["cached"] == 1
    names = [identity(judge(**options)) for options in ({}, {"good": "no"}, {"question": "say {prompt}"})]
    assert len(set(names)) == 3 and identity(judge()) == names[0] and names[0] != identity(judge("gemma3"))


def test_a_judge_goes_to_another_process_without_its_model(judge: Callable[..., Any]) -> None:
    reward = judge(judge={**SAID, "isolated": True})
    value = reward(shown("a")).value
    sent = pickle.dumps(reward)
    there = pickle.loads(sent)  # noqa: S301
    assert len(sent) < 20_000 and "model" not in vars(there.ask)
    torch.testing.assert_close(there(shown("a")).value, value)


@pytest.mark.slow
def test_a_judge_that_takes_too_long_is_a_timeout(judge: Callable[..., Any]) -> None:
    guarded = Guarded("slow", judge(judge={**SAID, "isolated": True}), timeout=1e-4, failed_share=1.0)
    try:
        scores = guarded(shown("a"))
    finally:
        guarded.close()
    assert scores.status.tolist() == [Status.TIMEOUT] and scores.value.isnan().all()
    assert "no answer within 0.0001 s" in scores.info[0]


def test_a_run_refuses_to_train_a_frozen_model() -> None:
    from mmalign.core.config import RunFile
    from mmalign.run.build import build

    run = RunFile(
        adapter={"name": "causal_lm", "model": "x/y", "train": "frozen"},
        policy={"name": "tokens"},
        rewards={"short": {"name": "length"}},
        objective={"name": "grpo"},
        data={"name": "prompts", "path": "assets/prompts/scenes_train.txt"},
    )
    with pytest.raises(CapabilityError, match=r"adapter.train: frozen trains nothing; set it to lora or full"):
        build(run)


def test_the_model_refusing_a_picture_is_that_rows_error(
    judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = judge()
    real = reward.ask.model.encode

    def refuse(prompts: list[Prompt]) -> Any:
        if "cube" in prompts[0].text:
            raise DataError("the processor refused a prompt with 1 pictures: too thin")
        return real(prompts)

    monkeypatch.setattr(reward.ask.model, "encode", refuse)
    scores = reward(shown("a", "cube"))
    assert scores.status.tolist() == [Status.OK, Status.ERROR] and "too thin" in scores.info[1]
