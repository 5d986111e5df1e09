"""Checkpoints that are complete or ignored, and resume that continues exactly.

    checkpoints/step_000100/
      adapter/                 what plain diffusers / peft / transformers loads
      state/weights.safetensors, random.safetensors, state.json
      done                     written last; a folder without it is not a checkpoint

The folder is written under another name and renamed when whole, so a full disk or a crash leaves the previous one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmalign.core.errors import CheckpointError
from mmalign.core.files import write_folder_beside
from mmalign.training.session import Session

DONE = "done"


def save(folder: Path, session: Session, adapter: Any, stateful: Mapping[str, Any] | None = None) -> Path:
    """Write `folder/step_<n>`, then drop the oldest beyond `trainer.keep`; every process calls it, the main one writes.

    `stateful` holds what else must survive by name (reward, policy): anything with `state_dict`/`load_state_dict`.

    Raises:
        CheckpointError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    path = folder / f"step_{session.step:06d}"
    random = session.random_states()
    if not session.is_main:
        return path
    try:
        with write_folder_beside(path) as beside:
            with session.update_rule.averaged():
                adapter.save(beside / "adapter")
            _write_state(beside / "state", session, random, stateful or {})
            (beside / DONE).write_text(f"{session.step}\n")
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, folder, error) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # safetensors has its own type for a failed write
            raise
        raise _unwritable(path, folder, error) from error
    for old in complete(folder)[: -session.trainer.keep or None]:
        shutil.rmtree(old)
    return path


def complete(folder: Path) -> list[Path]:
    """The finished checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step_*/{DONE}"))


def step_of(path: Path) -> int:
    """The step after which a finished checkpoint was written."""
    return int((path / DONE).read_text())


def latest(folder: Path) -> Path:
    """The newest finished checkpoint.

    Raises:
        CheckpointError: there is none; unfinished folders are named.
    """
    if found := complete(folder):
        return found[-1]
    broken = sorted(path.name for path in folder.glob("*step_*"))
    extra = f" (without their '{DONE}' file, so incomplete: {', '.join(broken)})" if broken else ""
    raise CheckpointError(f"{folder}: no complete checkpoint{extra}; start the run without --resume.")


def load(path: Path, session: Session, stateful: Mapping[str, Any] | None = None) -> None:
    """Restore weights, optimizer, average, random streams, data position and stateful rewards from `path`.

    Raises:
        CheckpointError: a file is missing or truncated, or the weights belong to another model.
    """
    from safetensors.torch import load_file

    try:
        plain = json.loads((path / "state" / "state.json").read_text())
        tensors = load_file(path / "state" / "weights.safetensors")
        random = load_file(path / "state" / "random.safetensors")
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); resume from an earlier checkpoint.") from error
    expected = {f"{i}.weight": tuple(p.shape) for i, p in enumerate(session.update_rule.parameters)}
    found = {name: tuple(value.shape) for name, value in tensors.items() if name.endswith(".weight")}
    if expected != found:
        raise CheckpointError(
            f"{path}: holds {len(found)} trained tensors, the run has {len(expected)}, or their shapes differ; "
            "resume with the run file that wrote it."
        )
    session.update_rule.load_state_dict({"tensors": tensors, "count": plain["updates"], "scale": plain.get("scale")})
    session.streams.load_state_dict(_of_rank(random, session.streams.rank))
    session.batches.load_state_dict(plain["batches"])
    session.step = plain["step"]
    for name, part in (stateful or {}).items():
        if plain["stateful"].get(name) is not None:
            part.load_state_dict(_unfold(plain["stateful"][name]))


def _of_rank(random: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The states of one process's streams, by their own names; a process that was not there starts afresh."""
    named = {name.rpartition("/")[::2]: value for name, value in random.items()}
    return {name: value for (of, name), value in named.items() if int(of or 0) == rank}


def _write_state(folder: Path, session: Session, random: dict[str, Tensor], stateful: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    folder.mkdir()
    update = session.update_rule.state_dict()
    save_file({k: v.contiguous() for k, v in update["tensors"].items()}, folder / "weights.safetensors")
    save_file(random, folder / "random.safetensors")
    plain = {
        "step": session.step,
        "updates": update["count"],
        "scale": update["scale"],
        "batches": session.batches.state_dict(),
        "stateful": {name: _fold(p.state_dict()) for name, p in stateful.items() if hasattr(p, "state_dict")},
    }
    (folder / "state.json").write_text(json.dumps(plain))


def _fold(value: Any) -> Any:
    """State as JSON: float32 and integers survive the round trip exactly."""
    if isinstance(value, Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {str(k): _fold(v) for k, v in value.items()}
    return [_fold(v) for v in value] if isinstance(value, list | tuple) else value


def _unfold(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"tensor", "dtype"}:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if isinstance(value, dict):
        return {k: _unfold(v) for k, v in value.items()}
    return [_unfold(v) for v in value] if isinstance(value, list) else value


def _unwritable(path: Path, folder: Path, error: Exception) -> CheckpointError:
    kept = [p.name for p in complete(folder)]
    safe = f"still whole: {', '.join(kept)}" if kept else "no earlier checkpoint exists"
    return CheckpointError(f"{path}: could not be written ({error}); {safe}. Free some space and resume.")
