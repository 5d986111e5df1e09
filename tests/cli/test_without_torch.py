"""Looking at run files, and saying what is wrong with one, imports none of what takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mmalign.cli import _later
from mmalign.cli._later import import_later
from mmalign.cli.listing import configs
from mmalign.run.registries import REGISTRIES
from tests.evaluation.runs import make_run

HEAVY = (
    "torch.nn",
    "torchaudio",
    "torchvision",
    "transformers",
    "diffusers",
    "open_clip",
    "peft",
    "accelerate",
    "scipy",
)
CODE = """
import contextlib, io, sys, traceback
from mmalign.cli import _later
from mmalign.cli.main import main
wanted, execute, heavy = [], _later._execute, sys.argv[1:]
def told(module):
    wanted.extend(traceback.format_stack()[-14:-3])
    execute(module)
_later._execute = told
for line in sys.stdin.read().splitlines():
    sys.argv = ["mmalign", *line.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    if code not in (None, 0, 2) or (code == 2 and "broken" not in line):
        print(line, "ended with", code, said.getvalue())
    if loaded := [name for name in heavy if name in sys.modules]:
        print(line, "imported", *loaded, *wanted)
        break
"""


def test_showing_checking_and_refusing_import_no_package_that_takes_seconds(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("adapter: {name: sd3, device: 5}\npolicy: {name: flow, window_size: 99}\ndata: {name: nosuch}\n")
    lines = [
        "--help",
        "list",
        f"train {broken} --dry-run",
        "train quickstart/image --dry-run",
        "train scenes/r0_clip --dry-run",
        *(f"show {kind}/{name}" for kind, registry in REGISTRIES.items() for name in registry.built_in()),
        *(f"show {name}" for name in configs() if name != "text_to_audio/stable_audio_dragon"),  # needs a folder
    ]
    require_light(lines, HEAVY)


def test_texts_are_measured_with_their_tokenizer_alone() -> None:
    """A model that reads media has a processor besides, which imports torch and torchvision."""
    lines = ["train quickstart/text/rewriter --dry-run", "train scenes/rewriter_imitate --dry-run"]
    require_light(lines, [name for name in HEAVY if name != "transformers"])


def test_looking_at_runs_imports_no_package_that_takes_seconds(tmp_path: Path) -> None:
    """Runs of pictures, sounds and texts; intervals need scipy's special functions."""
    runs = {
        modality: [make_run(tmp_path / f"{modality}_{name}", modality) for name in "ab"]
        for modality in ("image", "audio", "text")
    }
    lines = [line for one, other in runs.values() for line in (f"report {one}", f"compare {one} {other}")]
    require_light(lines, [name for name in HEAVY if name != "scipy"])
    assert all((one / "report.html").stat().st_size > 10_000 for one, _ in runs.values())


def require_light(lines: Sequence[str], heavy: Sequence[str]) -> None:
    """Run each line as a command, one after the other in one process, which imports none of `heavy`."""
    command = [sys.executable, "-c", CODE, *heavy]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, input="\n".join(lines), capture_output=True, text=True, check=False, env=environment, timeout=280
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with a submodule, which says when it is loaded."""
    package = tmp_path / "a_slow_package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import time\nfrom a_slow_package import part\nfirst = 1\ntime.sleep(0.3)\nlast = 2\n"
        "def __getattr__(name):\n    if name == 'made': return 3\n    raise AttributeError(name)\n"
    )
    (package / "part.py").write_text(
        "import sys\nimport a_slow_package\nheld = a_slow_package\n"
        "count = sys.__dict__.setdefault('_a_count', [0])\ncount[0] += 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import_later("a_slow_package")
    yield "a_slow_package"
    vars(sys).pop("_a_count", None)
    for name in ("a_slow_package", "a_slow_package.part"):
        sys.modules.pop(name, None)


def test_a_package_is_loaded_by_its_first_attribute_and_is_then_a_module_like_others(slow: str) -> None:
    import a_slow_package

    again = __import__(slow)
    assert again is a_slow_package and "first" not in vars(again) and "a_slow_package.part" not in sys.modules
    assert a_slow_package.made == 3 and a_slow_package.last == 2 and type(again) is type(sys)
    from a_slow_package import part

    assert part.held is a_slow_package
    with pytest.raises(AttributeError):
        _ = a_slow_package.nothing
    import_later(slow)
    assert sys.modules[slow] is a_slow_package


def test_its_submodule_loads_it_first(slow: str) -> None:
    import a_slow_package.part as part

    assert part.held.last == 2
    assert part is sys.modules["a_slow_package"].part and part.__spec__.loader.name == "a_slow_package.part"


def test_a_submodule_that_the_package_imports_itself_is_executed_once(slow: str) -> None:
    """Python looks for it, reads the package's path, for which that is executed, and does not look again."""
    import a_slow_package.part

    assert a_slow_package.part.count == [1]


def test_torch_is_whole_after_whatever_submodule_came_first() -> None:
    code = "from mmalign.cli._later import import_later; import_later('torch'); import torch.utils.hooks, torch; "
    code += "import torch._dynamo; assert torch.utils is __import__('sys').modules['torch.utils']"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_threads_that_ask_while_it_is_loaded_wait_for_all_of_it(slow: str) -> None:
    import a_slow_package

    found: list[int] = []
    asking = [threading.Thread(target=lambda: found.append(a_slow_package.last)) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert found == [2] * 4


def test_one_that_does_not_load_says_so_whenever_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_broken_module.py").write_text("raise OSError('a library is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_later("a_broken_module")
    import a_broken_module

    for _ in range(2):
        with pytest.raises(OSError, match="a library is missing"):
            _ = a_broken_module.something
    import_later("there_is_no_such_module")
    assert "there_is_no_such_module" not in sys.modules and _later._LOCK.acquire(blocking=False)
    _later._LOCK.release()
