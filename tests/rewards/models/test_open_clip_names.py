"""The names that are read without open_clip are open_clip's own."""

from __future__ import annotations

import json
import subprocess
import sys

import open_clip
import pytest

from mmalign.core.errors import ConfigError
from mmalign.rewards.models.open_clip_names import architectures, require_known, weights


def test_architectures_and_weights_are_open_clips() -> None:
    assert set(architectures()) == set(open_clip.list_models())
    for name in architectures():
        assert list(weights(name)) == open_clip.list_pretrained_tags_by_model(name)
        assert json.loads(architectures()[name].read_text()) == open_clip.get_model_config(name)
        for tag in weights(name):
            assert weights(name)[tag] == open_clip.get_pretrained_cfg(name, tag)


def test_near_names_are_offered() -> None:
    with pytest.raises(ConfigError, match=r"no 'ViT-L14'\. Did you mean 'ViT-L-14'"):
        require_known("ViT-L14", "openai")
    with pytest.raises(ConfigError, match=r"no tag 'opena'\. Did you mean 'openai'"):
        require_known("ViT-L-14-quickgelu", "opena")
    require_known("ViT-L-14-quickgelu", "openai")


def test_checking_a_name_does_not_import_open_clip() -> None:
    code = (
        "import sys; from mmalign import load_reward\n"
        "load_reward('clip', model='ViT-L-14-quickgelu', pretrained='openai')\n"
        "print(*(m for m in ('open_clip', 'timm', 'torchvision', 'transformers', 'torch._dynamo') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
