"""`@rule`: a function becomes a component."""

import pickle

import pytest
import torch

from mmalign.core.errors import ConfigError
from mmalign.core.registry import construct
from mmalign.core.types import Audio, Prompt, Rollout, Status
from mmalign.rewards import load_reward, rule
from tests.rewards.doubles import answers, pictures, troubled


def test_statuses_of_rows():
    found = troubled()(answers("0.5", "decline", "fail", "raise", "nan"))
    states = [Status.OK, Status.NOT_APPLICABLE, Status.PARSE_FAIL, Status.ERROR, Status.ERROR]
    assert found.status.tolist() == states
    assert found.value[[0, 2]].tolist() == [0.5, -1] and found.value[[1, 3, 4]].isnan().all()
    assert "ZeroDivisionError" in found.info[3] and found.info[4] == "the value is nan"


def test_options_are_fields_and_are_checked():
    made = construct(troubled, {"nap": 3}, "rewards.t")
    assert made.nap == 3.0 and made.isolated and troubled.__doc__.startswith("Does what")
    with pytest.raises(ConfigError, match=r"rewards\.t\.npa: unknown option\. Did you mean 'nap'\?"):
        construct(troubled, {"npa": 3}, "rewards.t")
    assert pickle.loads(pickle.dumps(made)).nap == 3.0  # noqa: S301  # so that a process can be given it


def test_other_signatures_are_refused():
    with pytest.raises(TypeError, match=r"@rule bad: write \(prompt, output, \*, options…\)"):

        @rule(modalities={"text"}, range=(0.0, 1.0))
        def bad(output):
            return 1.0

    with pytest.raises(TypeError, match="immutable defaults; not so: words"):

        @rule(modalities={"text"}, range=(0.0, 1.0))
        def worse(prompt: Prompt, output: str, *, words: list = []) -> float:  # noqa: B006
            return 1.0


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
    found = load_reward("compressibility", quality=80)(rollout)
    file = io.BytesIO()
    pixels = (rollout.output[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    assert found.value[0].item() == pytest.approx(-len(file.getvalue()) / 1000)
    assert found.value[1] > 2 * found.value[0]  # a flat picture is far smaller
    broken = pictures(size=16)
    broken.output[2, 0, 0, 0] = torch.nan
    assert load_reward("compressibility")(broken).status.tolist() == [0, 0, Status.ERROR, 0]
