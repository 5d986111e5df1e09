"""`@rule`: a function becomes a component."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.core.errors import CapabilityError, ConfigError, MediaError
from mmalign.core.registry import construct
from mmalign.core.types import Audio, Prompt, Rollout, Status
from mmalign.rewards import Guarded, load_reward, rule
from mmalign.rewards.by_row import check_declared
from tests.rewards.doubles import answers, pictures, troubled


def test_statuses_of_rows():
    scores = troubled()(answers("0.5", "decline", "fail", "raise", "nan"))
    states = [Status.OK, Status.NOT_APPLICABLE, Status.PARSE_FAIL, Status.ERROR, Status.ERROR]
    assert scores.status.tolist() == states
    assert scores.value[[0, 2]].tolist() == [0.5, -1] and scores.value[[1, 3, 4]].isnan().all()
    assert "ZeroDivisionError" in scores.info[3] and scores.info[4] == "the value is nan"


def test_options_are_fields_and_are_checked():
    made = construct(troubled, {"nap": 3}, "rewards.t")
    assert made.nap == 3.0 and made.isolated and troubled.__doc__.startswith("Does what")
    with pytest.raises(ConfigError, match=r"rewards\.t\.npa: unknown option\. Did you mean 'nap'\?"):
        construct(troubled, {"npa": 3}, "rewards.t")
    assert pickle.loads(pickle.dumps(made)).nap == 3.0  # noqa: S301  # so that a process can be given it


def made_of(function, modalities=("text",), bounds=(0.0, 1.0), **options):
    return rule(modalities=modalities, range=bounds)(function)(**options)


def test_arguments_are_given_by_their_names():
    def turned(output: str, prompt: Prompt) -> float:
        return float(output == prompt.text)

    def alone(output):
        return 0.25

    def texts(prompt: str, output: str) -> float:
        return float(prompt.upper() == output)

    def column(output, answer, unit="cm"):
        return float(output == f"{answer} {unit}")

    rollout = answers("q0", "x")
    assert made_of(turned)(rollout).value.tolist() == [1, 0] and made_of(alone)(rollout).value.tolist() == [0.25, 0.25]
    assert made_of(texts)(answers("Q0", "q1")).value.tolist() == [1, 0]
    rows: list[dict[str, Any]] = [{"answer": 3}, {"answer": 3, "unit": "m"}, {"answer": None}, {}]
    rows_of_units = Rollout([Prompt("q", meta=meta) for meta in rows], ["3 cm", "3 m", "3 cm", "3 cm"], torch.arange(4))
    made = made_of(column)
    scores = made(rows_of_units)
    assert scores.value[:2].tolist() == [1, 1] and scores.status.tolist() == [0, 0, *[Status.NOT_APPLICABLE] * 2]
    assert made.needs == ("answer",) and "Prompt.meta has no 'answer'" in scores.info[3]


async def later(output):
    return 1.0


def yields(output):
    yield 1.0


def silent(output):
    """Computes and forgets."""
    len(output)


def nothing(output):
    if output:
        return
    return


def posit(prompt, answer):
    return 1.0


def starred(output, **others):
    return 1.0


def bare(output, *, words=[]):  # noqa: B006
    return 1.0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (later, "is async"),
        (yields, "yields, and a rule returns one value"),
        (silent, "returns nothing, so that it would apply to no row; return a number"),
        (nothing, "returns nothing"),
        (posit, r"has no argument called output, .* \(it has prompt, answer\)"),
        (starred, r"takes \*arguments or \*\*arguments"),
        (bare, r".* with immutable defaults; not so: words"),
    ],
)
def test_functions_that_can_be_no_rule_are_refused(function, message):
    with pytest.raises(ConfigError, match=f"@rule {function.__name__}: {message}"):
        made_of(function)


def test_functions_that_return_sometimes_are_rules():
    def some(output):
        if output == "a":
            return 1.0
        return None

    def either(output):
        return {"a": 1.0}.get(output) or None

    def falls(output):  # noqa: RET503
        if output == "a":
            return 1.0

    for function in (some, either, falls):
        assert made_of(function)(answers("a", "b")).status.tolist() == [Status.OK, Status.NOT_APPLICABLE]


@pytest.mark.parametrize(
    ("modalities", "bounds", "message"),
    [
        ("text", (0.0, 1.0), "modalities: 'text'; name them as a set"),
        ((), (0.0, 1.0), "modalities"),
        (("pictures",), (0.0, 1.0), "of text, image, audio"),
        (("text",), (1.0, 0.0), r"range: \(1\.0, 0\.0\); give the least and the largest"),
        (("text",), (0.0, float("nan")), "range"),
        (("text",), 1.0, "range: 1.0"),
        (("text",), (0.0, 1.0, 2.0), "range"),
    ],
)
def test_declarations_that_make_no_sense_are_refused(modalities, bounds, message):
    with pytest.raises(ConfigError, match=message):
        check_declared("it", modalities, bounds)


def test_a_decorator_without_its_declaration_says_how():
    with pytest.raises(ConfigError, match=r"@rule plain: say what it judges, as @rule\(modalities={'text'}"):

        @rule
        def plain(output):
            return 1.0

    with pytest.raises(ConfigError, match="say what it judges"):
        rule(modalities={"text"})


def test_values_are_numbers_of_any_kind_within_the_range_and_never_clipped():
    kinds = {
        "float32": np.float32(0.5),
        "array": np.array([0.5]),
        "tensor": torch.tensor(0.5),
        "bool": True,
        "parts": (np.float64(0.5), {"inner": torch.tensor([2.0])}),
        "seven": 7.0,
        "below": -0.1,
        "two": np.array([0.5, 0.6]),
        "words": "0.5",
        "complex": 0.5j,
        "picture": Image.new("RGB", (4, 4)),
        "triple": (0.5, {}, 1),
        "rounded": 1.0 + 1e-6,
    }

    def look(output):
        return kinds[output]

    scores = made_of(look)(answers(*kinds))
    status = dict(zip(kinds, scores.status.tolist(), strict=True))
    accepted = {"float32", "array", "tensor", "bool", "parts", "rounded"}
    assert {name for name, code in status.items() if code == Status.OK} == accepted
    assert {code for name, code in status.items() if name not in accepted} == {Status.ERROR}
    info = dict(zip(kinds, scores.info, strict=True))
    assert info["seven"] == "the value 7 is outside the declared range (0.0, 1.0)"
    assert "a rule returns one number, not Image" in info["picture"] and "not str" in info["words"]
    assert scores.parts["inner"][list(kinds).index("parts")] == 2


def test_pictures_are_floats_of_which_a_rule_has_its_own_copy():
    def spoil(output):
        assert output.shape == (3, 8, 8) and float(output.min()) >= 0 and float(output.max()) <= 1
        output.mul_(0)
        output.numpy()[:] = 9
        return 1.0

    rollout = pictures()
    before = rollout.output.clone()
    assert made_of(spoil, ("image",))(rollout).value.tolist() == [1] * 4 and torch.equal(rollout.output, before)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"these are torch\.uint8 of shape"),
        (torch.full((1, 3, 4, 4), 255.0), "these reach 255; divide them by 255"),
        (torch.zeros(3, 4, 4), r"floats \(B, 3, H, W\)"),
        (
            [Image.new("RGB", (4, 4))],
            r"not Image; a picture of Pillow's becomes a tensor by mmalign\.media\.image\.from_pil",
        ),
        ([np.zeros((4, 4, 3))], "not ndarray"),
        (np.zeros((1, 4, 4, 3)), "not ndarray"),
        ("text", "not str"),
    ],
)
def test_outputs_of_other_kinds_are_refused_with_the_way(output, message):
    with pytest.raises(MediaError, match=message):
        Rollout.of(["a"], output)


def test_outputs_of_other_kinds_reach_no_reward():
    with pytest.raises(CapabilityError, match=r"these are torch\.uint8: divide them by 255"):
        Guarded("it", load_reward("sharpness"))(Rollout([Prompt("a")], torch.zeros(1, 3, 4, 4).byte(), torch.arange(1)))
    with pytest.raises(CapabilityError, match=r"a list of strings; these are PIL\.Image\.Image"):
        Guarded("it", load_reward("length", high=3.0))(
            Rollout([Prompt("a")], [Image.new("L", (1, 1))], torch.arange(1))
        )


def test_sound_comes_row_by_row():
    @rule(modalities={"audio"}, range=(0.0, 1.0))
    def loudness(prompt: Prompt, output: Audio) -> float:
        assert len(output) == 1 and output.rate == 8000
        return float(output.samples.square().mean())

    sound = Audio(torch.tensor([[[0.5, -0.5]], [[0.0, 1.0]]]), 8000)
    rollout = Rollout([Prompt("a"), Prompt("b")], sound, torch.arange(2))
    assert loudness()(rollout).value.tolist() == [0.25, 0.5]


def test_compressibility_is_the_size_of_the_jpeg():
    import io

    from PIL import Image

    rollout = pictures(size=64)
    rollout.output[1] = 0.5
    scores = load_reward("compressibility", quality=80)(rollout)
    file = io.BytesIO()
    pixels = (rollout.output[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    assert scores.value[0].item() == pytest.approx(-len(file.getvalue()) / 1000)
    assert scores.value[1] > 2 * scores.value[0]  # a flat picture is far smaller
    broken = pictures(size=16)
    broken.output[2, 0, 0, 0] = torch.nan
    assert load_reward("compressibility")(broken).status.tolist() == [0, 0, Status.ERROR, 0]
