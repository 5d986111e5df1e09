"""Boxes in answers against torchvision, scipy-free brute force and golden values."""

import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops

from mmalign.core.errors import DataError
from mmalign.core.types import Prompt, Status
from mmalign.rewards import functional as F
from mmalign.rewards import load_reward
from mmalign.rewards.boxes.iou import Iou
from mmalign.rewards.engine.traits import require_columns
from mmalign.rewards.parsing import Unreadable, boxes_in
from tests.rewards.asking import one, rollout_of, scored

OK, FAIL, ERROR, NONE = Status.OK, Status.PARSE_FAIL, Status.ERROR, Status.NOT_APPLICABLE


def boxes(rng, count):
    corner = torch.rand(count, 2, generator=rng, dtype=torch.float64) * 60
    return torch.cat([corner, corner + 1 + 39 * torch.rand(count, 2, generator=rng, dtype=torch.float64)], 1)


# matching ----------------------------------------------------------------------------------------------------------


def test_the_best_assignment_is_not_the_greedy_one():
    quality = torch.tensor([[0.8, 0.7], [0.75, 0.1]])
    assert sorted(F.assign(quality)) == [(0, 1), (1, 0)]
    assert sum(float(quality[i, j]) for i, j in F.assign(quality)) == pytest.approx(1.45)


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10_000))
def test_assignment_equals_trying_everything(n, m, seed):
    rng = torch.Generator().manual_seed(seed)
    quality = torch.rand(n, m, generator=rng, dtype=torch.float64)
    allowed = torch.rand(n, m, generator=rng) > 0.4
    pairs = F.assign(quality, allowed)
    assert all(allowed[i, j] for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    tall = [*range(n), *[None] * m]
    ways = [
        [(i, j) for j, i in enumerate(order) if i is not None and allowed[i, j]]
        for order in set(itertools.permutations(tall, m))
    ]
    best = max(sum(float(quality[i, j]) for i, j in way) for way in ways)
    assert sum(float(quality[i, j]) for i, j in pairs) == pytest.approx(best)


def test_a_pair_that_comes_to_count_never_lowers_the_score():
    """Two poor pairs above the threshold must not push out a good one."""
    quality = torch.tensor([[0.9, 0.3], [0.3, 0.0]])
    assert F.assign(quality, quality >= 0.5) == F.assign(quality, quality >= 0.25) == [(0, 0)]
    predicted = torch.tensor([[0.0, 0, 10, 10], [0, 0, 3.5, 10]], dtype=torch.float64)
    truth = torch.tensor([[0.0, 0, 10, 9], [6.5, 0, 10, 10]], dtype=torch.float64)
    scores = [F.match_boxes(predicted, truth, threshold=t).score for t in (0.6, 0.5, 0.3)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_matched_score_equals_torchvision_and_brute_force(kind):
    peer = {
        "iou": ops.box_iou,
        "giou": ops.generalized_box_iou,
        "diou": ops.distance_box_iou,
        "ciou": ops.complete_box_iou,
    }
    lowest = {"iou": 0, "giou": -1, "diou": -1, "ciou": -1.5}[kind]
    rng = torch.Generator().manual_seed(5)
    for n, m in ((1, 1), (2, 3), (4, 3)):
        first, second = boxes(rng, n), boxes(rng, m)
        quality = (peer[kind](first, second) - lowest) / (1 - lowest)
        small, large = (quality, m) if n <= m else (quality.T, n)
        best = max(
            sum(float(small[i, j]) for i, j in enumerate(order))
            for order in itertools.permutations(range(large), len(small))
        )
        assert F.match_boxes(first, second, kind).score == pytest.approx(best / max(n, m), abs=1e-6)


def test_misses_extras_duplicates_and_nothing():
    a, b = torch.tensor([[0.0, 0, 1, 1], [5, 5, 6, 6]], dtype=torch.float64).split(1)
    both, none = torch.cat([a, b]), a[:0]
    assert F.match_boxes(both, both.flip(0)).score == 1
    assert F.match_boxes(a, both).score == F.match_boxes(both, a).score == 0.5
    assert F.match_boxes(torch.cat([a, a, a]), a).score == pytest.approx(1 / 3)
    assert F.match_boxes(none, none).score == 1 and F.match_boxes(none, a).score == F.match_boxes(a, none).score == 0
    labels = torch.tensor([[False, True], [True, False]])
    assert (
        F.match_boxes(both, both, same_label=labels).score == 0 and F.match_boxes(both, both, threshold=0.5).score == 1
    )


# the reward --------------------------------------------------------------------------------------------------------

GOLDEN = [([0, 0, 2, 2], [1, 1, 3, 3], 0.142857, -0.079365), ([0, 0, 1, 1], [2, 0, 3, 1], 0, -0.333333)]
GOLDEN += [([10, 10, 20, 20], [12, 12, 18, 18], 0.36, 0.36), ([0, 0, 100, 100], [50, 50, 150, 150], 0.142857, None)]


@pytest.mark.parametrize("answer, truth, iou, giou", GOLDEN)
def test_golden_values_of_one_box(answer, truth, iou, giou):
    assert one("iou", json.dumps(answer), {"boxes": truth}) == (pytest.approx(iou, abs=1e-6), OK)
    if giou is not None:
        assert one("iou", json.dumps(answer), {"boxes": truth}, kind="giou")[0] == pytest.approx(
            (giou + 1) / 2, abs=1e-6
        )


@pytest.mark.parametrize("answer", ["[.5,.5,.1,.1]", "[1,1,0,0]", "[2,2,0,0]", "[10,10,0,0]"])
@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_inverted_boxes_are_never_paid(answer, kind):
    """Unchecked, GIoU pays the last one 625 times the perfect score."""
    options = {"frame": "unit", "truth_frame": "unit", "kind": kind}
    assert one("iou", answer, {"boxes": [0.1, 0.1, 0.5, 0.5]}, **options) == (0, FAIL)


@pytest.mark.parametrize(
    "answer",
    [
        "", "nothing", "[nan, 0, 1, 1]", "[NaN, 0, 1, 1]", "[0, 0, inf, 1]", "[0, 0, 1e999, 1]", "[0,0,0,1]", "[1,2,3]",
        "[[", "[" * 1_000_000, "[0,0,2,2]" * 1_000, "<box>1,2</box>", "[-5, 0, 1, 1]", "[0, 0, 101, 50.6]",
    ],
)  # fmt: skip
def test_what_is_no_box_in_the_picture_fails(answer):
    value, status = one("iou", answer, {"boxes": [0, 0, 2, 2], "size": [100, 50]}, tolerance=0.0)
    assert (value, status) == (0, FAIL)


@settings(max_examples=40)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["pixel", "unit", "per_mille"]),
    st.sampled_from(["xyxy", "xywh", "cxcywh", "yxyx"]),
)
def test_every_convention_says_the_same(seed, frame, layout):
    rng = torch.Generator().manual_seed(seed)
    truth, predicted = boxes(rng, 3), boxes(rng, 2)
    size = torch.tensor([100.0, 200.0], dtype=torch.float64)
    whole = {"pixel": size, "unit": torch.ones(2), "per_mille": torch.full((2,), 1000.0)}[frame].repeat(2)
    scaled = predicted / size.repeat(2) * whole
    written = ops.box_convert(scaled, "xyxy", layout) if layout != "yxyx" else scaled[:, [1, 0, 3, 2]]
    meta = {"boxes": truth.tolist(), "size": [100, 200]}
    result = Iou(frame=frame, layout=layout, kind="ciou")(rollout_of((json.dumps(written.tolist()), meta)))
    expected = F.match_boxes(predicted, truth, "ciou").score
    assert result.status.item() == OK and result.value.item() == pytest.approx(expected, abs=1e-5)
    prompt = Prompt("where?", media={"image": torch.zeros(3, 200, 100)}, meta={"boxes": truth.tolist()})
    drawn = Iou(frame=frame, layout=layout).marked(prompt, json.dumps(written.tolist()))
    for boxes_drawn, exact in zip(drawn, (truth, predicted), strict=True):
        torch.testing.assert_close(boxes_drawn, exact / size.repeat(2), atol=1e-9, rtol=0)


def test_nothing_is_drawn_of_an_answer_that_names_no_box():
    prompt = Prompt("where?", media={"image": torch.zeros(3, 64, 64)}, meta={"boxes": [[0, 0, 32, 64]]})
    for answer in ("there", "[ 9 , 9 , 2 , 2 ]"):
        true, predicted = Iou().marked(prompt, answer)
        assert true.tolist() == [[0, 0, 0.5, 1]] and not len(predicted)


def test_other_writings_and_frames():
    meta = {"boxes": [{"bbox": [25, 50, 50, 100], "label": "Cat"}], "size": [100, 200], "seen": [200, 400]}
    loc = "<loc0256><loc0256><loc0512><loc0512> cat"
    assert one("iou", loc, meta, labels=True) == (1, OK)
    assert one("iou", loc.replace("cat", "dog"), meta, labels=True) == (0, OK)
    assert one("iou", "<box>[[250,250,500,500]]</box>", meta, frame="per_mille") == (1, OK)
    assert one("iou", '[{"bbox_2d": [50, 100, 100, 200]}]', meta, seen_size="seen") == (1, OK)
    truth = {"boxes": [0.25, 0.25, 0.25, 0.25]}
    assert one("iou", "[250,250,500,500]", truth, frame="per_mille", truth_frame="unit", truth_layout="xywh") == (1, OK)


# A picture of 2000 × 1000 with the box [500, 250, 1000, 500], as each family writes it; the documented options.
FAMILIES = {
    "Qwen2-VL": ("<|box_start|>(250,250),(500,500)<|box_end|>", {"frame": "per_mille"}),
    "Qwen2.5-VL": ('[{"bbox_2d": [350, 175, 700, 350], "label": "cat"}]', {"frame": "pixel", "seen_size": "seen"}),
    "Qwen3-VL": ('[{"bbox_2d": [250, 250, 500, 500], "label": "cat"}]', {"frame": "per_mille"}),
    "InternVL": ("<ref>cat</ref><box>[[250, 250, 500, 500]]</box>", {"frame": "per_mille"}),
    "Gemini": ('[{"box_2d": [250, 250, 500, 500], "label": "cat"}]', {"frame": "per_mille", "layout": "yxyx"}),
    "PaliGemma": ("<loc0256><loc0256><loc0512><loc0512> cat", {}),
    "Florence-2": ("cat<loc_250><loc_250><loc_500><loc_500>", {}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_documented_options_of_a_family_read_its_boxes(family):
    answer, options = FAMILIES[family]
    meta = {"boxes": [500, 250, 1000, 500], "size": [2000, 1000], "seen": [1400, 700]}
    # Florence-2 means the middle of a bin, half a thousandth on.
    expected = pytest.approx(1, abs=0.01) if family == "Florence-2" else 1
    assert one("iou", answer, meta, labels=False, **options) == (expected, OK)

    row = next(
        line for line in Iou.__doc__.splitlines() if line.strip().startswith("|") and family in line.split("|")[1]
    )
    written = row.split("|")[2]
    for option, value in options.items():
        assert f"{option}: {'column' if option == 'seen_size' else value}" in written


def test_the_tall_box_of_a_family_that_writes_y_first():
    meta = {"boxes": [200, 500, 400, 1000], "size": [2000, 1000]}
    for family, answer in (
        ("Gemini", '{"box_2d": [500, 100, 1000, 200]}'),
        ("PaliGemma", "<loc0512><loc0102><loc1023><loc0205>"),
    ):
        assert one("iou", answer, meta, **FAMILIES[family][1])[0] > 0.97
    assert one("iou", "x<loc_100><loc_500><loc_200><loc_999>", meta)[0] > 0.97


def test_qwen2_5_vl_sees_the_size_that_its_processor_makes():
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(1000, 2000, factor=28)
    meta = {"boxes": [500, 250, 1000, 500], "size": [2000, 1000], "seen": [width, height]}
    answer = json.dumps([width / 4, height / 4, width / 2, height / 2])
    assert one("iou", answer, meta, seen_size="seen") == (1, OK)


def test_florence_tokens_as_transformers_reads_them():
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

    peer = object.__new__(Florence2PostProcessor)
    peer.quantize_bins = (1000, 1000)
    bins = [[52, 332, 932, 774], [0, 0, 999, 999]]
    text = "a car<loc_52><loc_332><loc_932><loc_774>, all<loc_0><loc_0><loc_999><loc_999>"
    read = boxes_in(text)
    exact = peer.dequantize(torch.tensor(bins), (2_000_000, 1_000_000)) / torch.tensor([2e6, 1e6, 2e6, 1e6])
    torch.testing.assert_close(torch.tensor([box.values for box in read]), exact.float(), atol=1e-6, rtol=0)
    assert [box.label for box in read] == ["a car", "all"]
    with pytest.raises(Unreadable, match="four <loc_…> tokens, found 3"):
        boxes_in("x<loc_1><loc_2><loc_3>")


def test_boxes_and_sizes_as_text_from_csv():
    meta = {"boxes": "[[0, 0, 10, 10]]", "size": "[100, 100]"}
    for boxes in ("[0, 0, 10, 10]", '[{"bbox": [0, 0, 10, 10], "label": "cat"}]', '{"bbox_2d": [0, 0, 10, 10]}'):
        assert one("iou", "[0,0,100,100]", meta | {"boxes": boxes}, frame="per_mille") == (1, OK)


@pytest.mark.parametrize(
    "meta, why",
    [
        ({"boxes": "0 0 10 10"}, "a text that is no JSON"), ({"boxes": [5, 5, 1, 1]}, "invalid box for its frame"),
        ({"boxes": [0, 0, 1]}, "a true box is four numbers"), ({"boxes": ["0", "0", "1",
        "1"]}, "a true box is four numbers"),
        ({"boxes": 7}, "holds boxes, found '7'"), ({"boxes": [None]}, "a true box is four numbers"),
        ({"boxes": [{"x": 1}]}, "an object with one of bbox_2d"), ({"boxes": [0, 0, 1, 1], "size": "big"}, "no JSON"),
        ({"boxes": [0, 0, 1, 1], "size": [0, 5]}, "both positive"), ({"boxes": [0, 0, 1, float("nan")]}, "invalid box"),
        ({"boxes": [0, 0, 999, 999], "size": [640, 480]}, "invalid box for its frame"), ({"boxes": 4.5}, "holds boxes"),
        ({"boxes": [0, 0, True, 1]}, "a true box is four numbers"), ({"boxes": "[" * 100_000}, "no JSON"),
    ],
)  # fmt: skip
def test_true_boxes_that_cannot_be_read_stop_the_run(meta, why):
    with pytest.raises(DataError, match=f"rewards.a: Prompt.meta.*{why}"):
        require_columns({"rewards.a": load_reward("iou")}, rollout_of(("", meta)).prompts)
    assert one("iou", "[0,0,1,1]", meta)[1] is ERROR


def test_a_wrong_frame_says_so():
    """The classic: answers in pixels, scored as 0 to 1, all near zero without a word."""
    result = scored("iou", ("[10, 20, 30, 40]", {"boxes": [0.1, 0.2, 0.3, 0.4]}), frame="unit", truth_frame="unit")
    assert result.info == ["box 0, [10.0, 20.0, 30.0, 40.0], is not ordered or not inside the unit frame"]


def test_parts_and_invalid_boxes_as_misses():
    truth = {"boxes": [[0, 0, 10, 10], [20, 20, 30, 30]]}
    rows = [
        ("[[0,0,10,10],[20,20,30,29],[40,40,50,50]]", truth),
        ("[[0,0,10,10],[9,9,1,1]]", truth),
        ("[]", {"boxes": []}),
    ]
    result = scored("iou", *rows, invalid="miss")
    assert result.value.tolist() == pytest.approx([1.9 / 3, 0.5, 1])
    assert result.parts["iou"].tolist() == pytest.approx([0.95, 1, 0])
    assert result.parts["precision"].tolist() == pytest.approx([2 / 3, 0.5, 1])
    assert result.parts["recall"].tolist() == pytest.approx([1, 0.5, 1])
    assert result.parts["surplus"].tolist() == [1, 0, 0]
    assert scored("iou", ("[9,9,1,1]", {"boxes": []}), invalid="miss").value.item() == 0


def test_data_that_does_not_fit():
    result = scored("iou", ("[0,0,1,1]", {"boxes": [5, 5, 1, 1]}), ("[0,0,1,1]", {"boxes": [1, 2]}))
    assert result.status.tolist() == [ERROR] * 2 and "invalid box for its frame" in result.info[0]
    result = scored("iou", ("[0,0,1,1]", {"boxes": [0, 0, 1, 1]}), frame="unit")
    assert result.status.item() == NONE and "has no 'size'" in result.info[0]
    assert one("iou", "[0,0,1,1]", {"boxes": [0, 0, 1, 1], "size": [0, 5]})[1] is ERROR
    assert one("iou", "<loc0000><loc0000><loc0512><loc0512>", {"boxes": [0, 0, 1, 1]})[1] is ERROR
