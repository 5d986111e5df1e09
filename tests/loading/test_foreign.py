"""Code, pickles and endless files of a checkpoint: never run, never opened, never read."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mmalign
from mmalign.adapters import load_adapter
from mmalign.core.errors import CheckpointError, MmalignError
from mmalign.core.files import assets_root
from mmalign.loading import files
from mmalign.loading.clip import open_clip_folder, open_clip_model
from mmalign.loading.files import check_folder, read_json
from mmalign.loading.texts import open_tokenizer
from mmalign.rewards.encoders.text import TextEncoder
from tests.adapters import tiny
from tests.adapters.language import tiny_lm
from tests.loading.damage import told

PACKAGE = Path(mmalign.__file__).parent
CODE = "import pathlib\npathlib.Path({mark!r}).write_text('ran')\nclass Own:\n    pass\n"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that code of a checkpoint would write; no question is asked meanwhile."""

    def asked(prompt: str = "") -> str:
        raise AssertionError(f"a question on stdin: {prompt}")

    monkeypatch.setattr("builtins.input", asked)
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists(), "code of the checkpoint was run"


def with_code(folder: Path, mark: Path, file: str = "tokenizer_config.json", key: str = "AutoTokenizer") -> Path:
    """Make `folder` ask for a class of its own that no library has."""
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    own = {"AutoTokenizer": ["own.Own", None]}.get(key, "own.Own")
    kind = {"model_type": "own"} if file == "config.json" else {"tokenizer_class": "Own"}
    told(folder / file, auto_map={key: own}, **kind)
    return folder


def clip_asset(tmp_path: Path) -> Path:
    return shutil.copytree(assets_root() / "scenes_clip", tmp_path / "clip")


def test_an_open_clip_folder_cannot_ask_for_code(mark: Path, tmp_path: Path) -> None:
    folder = clip_asset(tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with_code(folder, mark)
    with pytest.raises(CheckpointError, match=r"tokenizer_kwargs.trust_remote_code asks to run code"):
        open_clip_folder(str(folder))


OPENERS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "clip": ("scenes_clip", "tokenizer_config.json", lambda f: open_clip_model(open_clip_folder(str(f)))),
    "clap": ("tunes_clap", "tokenizer_config.json", lambda f: mmalign.load_reward("clap", checkpoint=str(f)).towers),
    "clap model": ("tunes_clap", "config.json", lambda f: mmalign.load_reward("clap", checkpoint=str(f)).towers),
    "speaker": ("scenes_rewriter", "tokenizer_config.json", lambda f: load_adapter("causal_lm", model=str(f))),
    "speaker model": ("scenes_rewriter", "config.json", lambda f: load_adapter("causal_lm", model=str(f))),
    "processor": ("scenes_captioner", "processor_config.json", lambda f: load_adapter("image_text", model=str(f))),
    "pipeline": ("scenes_sd3", "tokenizer/tokenizer_config.json", lambda f: load_adapter("sd3", model=str(f))),
    "encoder": ("scenes_sd3", "text_encoder/config.json", lambda f: load_adapter("sd3", model=str(f))),
    "texts": ("scenes_rewriter", "tokenizer_config.json", lambda f: TextEncoder(str(f)).kept),
    "reward model": ("scenes_rewriter", "config.json", lambda f: load_adapter("reward_model", model=str(f))),
}


@pytest.mark.parametrize("name", OPENERS)
def test_an_auto_map_is_refused_before_anything_is_built(name: str, mark: Path, tmp_path: Path) -> None:
    asset, file, opens = OPENERS[name]
    folder = shutil.copytree(assets_root() / asset, tmp_path / "model")
    key = "AutoModel" if file.endswith("/config.json") or file == "config.json" else "AutoTokenizer"
    place = folder / file
    if name == "processor":
        told(place, auto_map={"AutoProcessor": "own.Own"}, processor_class="Own")
        (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    else:
        with_code(place.parent, mark, place.name, key)
    with pytest.raises(CheckpointError, match=r"needs code that comes with the checkpoint \(auto_map: .*never run"):
        opens(folder)


def test_what_transformers_has_itself_is_read_without_the_folders_code(mark: Path, tmp_path: Path) -> None:
    folder = tiny_lm.write_tiny_lm(tmp_path / "lm")
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    told(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"})
    with pytest.warns(UserWarning, match=r"names code of its own \(auto_map: own.Own, own.Own\), which is not run"):
        load_adapter("causal_lm", model=str(folder), device="cpu", train="frozen")


def test_a_pipelines_own_module_is_not_imported(mark: Path, tmp_path: Path) -> None:
    folder = tiny.write_tiny_sd(tmp_path / "sd")
    for library in ("own", "antigravity", "os"):
        (folder / "unet" / f"{library}.py").write_text(CODE.format(mark=str(mark)))
        told(folder / "model_index.json", unet=[library, "Own"])
        with pytest.raises(CheckpointError, match=rf"model_index.json: lists {library}.Own, which diffusers and"):
            load_adapter("sd", model=str(folder), device="cpu")
    assert "antigravity" not in sys.modules


def test_a_pickle_is_not_preferred_to_safetensors(tmp_path: Path) -> None:
    folder = clip_asset(tmp_path)
    (folder / "open_clip_model.safetensors").rename(folder / "weights.safetensors")
    open_clip_model(open_clip_folder(str(folder)))
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"rename weights.safetensors to open_clip_model.safetensors"):
        open_clip_folder(str(folder))
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has only pickled weights \(open_clip_pytorch_model.bin\)"):
        open_clip_folder(str(folder))


def test_what_is_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_lm.write_tiny_lm(tmp_path / "lm")
    monkeypatch.setattr(files, "LONGEST_CONFIG", 100)
    with pytest.raises(CheckpointError, match=r"config.json: has [\d,]+ bytes, more than the 100 that are read"):
        load_adapter("causal_lm", model=str(folder), device="cpu")
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match=r"config.json: is no plain file"):
        check_folder(tmp_path)
    monkeypatch.undo()
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match=r"deep.json: cannot be read"):
        read_json(tmp_path / "deep.json", "copy it")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"list.json: holds a list, not an object; copy it"):
        read_json(tmp_path / "list.json", "copy it")


def test_shards_lie_in_their_own_folder(tmp_path: Path) -> None:
    folder = tiny_lm.write_tiny_lm(tmp_path / "lm")
    told(folder / "model.safetensors.index.json", weight_map={"a": "../../elsewhere.safetensors"})
    with pytest.raises(CheckpointError, match=r"lists '../../elsewhere.safetensors', which is no file of its own"):
        load_adapter("causal_lm", model=str(folder), device="cpu")


def test_a_folder_without_a_tokenizer_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(MmalignError, match="no tokenizer could be built from it"):
        open_tokenizer(tmp_path)


# What builds a model or reads one's files. `from_config` of a scheduler reads none.
BUILDERS = {
    *("from_pretrained", "from_single_file", "create_model", "create_model_and_transforms", "get_tokenizer"),
    *("create_model_from_pretrained", "snapshot_download", "hf_hub_download", "cached_file"),
}
# Pickles: torch's restricted reader takes tensors out of laion-clap's files and nothing else; the command that converts
# a file opens it because its user said that it is to be trusted.
APART = {"rewards/models/pickled.py": {"torch.load"}, "cli/convert.py": {"torch.load"}}


def test_nothing_loads_a_model_beside_the_one_loader() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        if place.startswith("loading/"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            if (last in BUILDERS or called in ("torch.load", "pickle.load")) and called not in APART.get(place, ()):
                found.append(f"{place}:{node.lineno}: {called}")
    assert not found, "\n".join(found)
