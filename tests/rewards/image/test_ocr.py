"""Text in pictures: what is refused without the package, and what PP-OCR reads of drawn words where it is installed."""

import sys

import pytest
import torch

from mmalign.core.errors import MissingExtra
from mmalign.core.types import Prompt, Rollout, Status
from mmalign.rewards import load_reward
from mmalign.rewards.image.ocr import _quoted, _reading_order
from mmalign.testing import check_reward
from pipelines.real.senses import DRAWN, SIGN, drawn, fonts


def pictures(*prompts: Prompt, lines=("OPEN", "DAILY"), font=None) -> Rollout:
    return Rollout(list(prompts), drawn(lines, font).expand(len(prompts), -1, -1, -1), torch.arange(len(prompts)))


def test_without_the_package_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(MissingExtra, match=r"rapidocr\) needs the 'ocr' extra: pip install 'mmalign\[ocr\]'"):
        load_reward("ocr").prepare()


def test_what_is_asked_and_the_order_of_reading() -> None:
    assert _quoted('a sign "OPEN" over “DAILY” and «X»') == ["OPEN DAILY X"] and _quoted("a sign") == []
    assert _reading_order([(90, 11, 10), (10, 50, 10), (10, 10, 10), (60, 52, 10)]) == [2, 0, 1, 3]


@pytest.mark.real
def test_drawn_words_are_told_from_wrong_ones_in_every_font() -> None:
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    reward, anyhow = load_reward("ocr", side=256), load_reward("ocr", side=256, order="any")
    for font in fonts()[:3]:
        rows = torch.cat([drawn(lines, font) for lines in DRAWN.values()])
        rollout = Rollout([Prompt(f'a sign "{SIGN}"')] * len(rows), rows, torch.arange(len(rows)))
        scores = reward(rollout)
        right, letter, turned, other, none = scores.value.tolist()
        assert right == 1 and letter == pytest.approx(8 / 9) and none == 0 and max(turned, other) < 0.5
        assert anyhow(rollout).value.tolist()[2] == 1


@pytest.mark.real
def test_columns_statuses_and_the_contract() -> None:
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    texts = pictures(Prompt("a sign", meta={"text": ["closed", "open daily!"]}), Prompt("a sign"))
    scores = load_reward("ocr", column="text", side=256)(texts)
    assert scores.value[0] == 1 and scores.status.tolist() == [Status.OK, Status.NOT_APPLICABLE]
    assert load_reward("ocr", side=256)(texts).status.tolist() == [Status.NOT_APPLICABLE] * 2
    check_reward(load_reward("ocr", side=256), pictures(*[Prompt(f'a sign "{SIGN}"')] * 2))
