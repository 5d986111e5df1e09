"""Checkpoints that are complete or ignored, and resume that continues exactly.

    checkpoints/step_000100/
      adapter/                 what plain diffusers / peft / transformers loads
      state/weights.safetensors, random.safetensors, state.json
      files.json, done         written last; see `mmalign.core.checkpoints`

The folder is written under another name and renamed when all of it is on the disk, so a full disk, a crash or a power
loss leaves the previous one. `state.json` names its version: one that a later mmalign wrote in another way is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmalign.core.checkpoints import complete, folder_of, latest, step_of, write_done
from mmalign.core.errors import CheckpointError, MmalignError
from mmalign.core.files import remove_folder, write_folder_beside
from mmalign.core.protocols import Adapter
from mmalign.core.tensor import Tensor
from mmalign.training.session import Session

log = logging.getLogger("mmalign")
VERSION = 1  # of state.json; 0 is what was written before it named one
KEPT = "stateful.safetensors"  # long tensors of what has a state besides weights
_LONG = 256  # numbers of a tensor that JSON still holds
_KEYS = {"step": int, "updates": int, "batches": dict, "stateful": dict}


def save_checkpoint(
    folder: Path, session: Session, adapter: Adapter, stateful: Mapping[str, Any] | None = None, spared: int = 0
) -> Path:
    """Write `folder/step_<n>`, then drop the oldest beyond `trainer.keep`; every process calls it, the main one writes.

    That of the step `spared` stays, beyond `trainer.keep`.

    `stateful` holds what else must survive by name (reward, policy): anything with `state_dict`/`load_state_dict`.

    Raises:
        CheckpointError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    path = folder_of(folder, session.step)
    random = session.random_states()
    if not session.is_main:
        return path
    try:
        with write_folder_beside(path) as beside:
            with session.update_rule.averaged():
                adapter.save(beside / "adapter")
            _write_state(beside / "state", session, random, stateful or {})
            write_done(beside, session.step)
    except (OSError, RuntimeError) as error:
        raise _unwritable(path, folder, error) from error
    counted = [other for other in complete(folder) if step_of(other) != spared]
    for old in counted[: -session.trainer.keep]:
        try:
            remove_folder(old)
        except OSError as error:
            log.warning("%s: could not be removed (%s); trainer.keep is %d.", old, error, session.trainer.keep)
    return path


def load_checkpoint(path: Path, session: Session, stateful: Mapping[str, Any] | None = None) -> None:
    """Restore weights, optimizer, average, random streams, data position, stateful rewards and seconds from `path`.

    Raises:
        CheckpointError: a file is missing or damaged, of a later version, or the weights belong to another model.
    """
    from safetensors.torch import load_file

    try:
        plain = json.loads((path / "state" / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "state" / "weights.safetensors")
        random = load_file(path / "state" / "random.safetensors")
        kept = load_file(path / "state" / KEPT) if (path / "state" / KEPT).exists() else {}
    except Exception as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    _check_plain(path, plain)
    expected = {f"{i}.weight": tuple(p.shape) for i, p in enumerate(session.update_rule.parameters)}
    actual = {name: tuple(value.shape) for name, value in tensors.items() if name.endswith(".weight")}
    if expected != actual:
        raise CheckpointError(
            f"{path}: holds {len(actual)} trained tensors, the run has {len(expected)}, or their shapes differ; "
            "resume with the run file that wrote it."
        )
    try:
        session.update_rule.load_state_dict(
            {
                "tensors": tensors,
                "count": plain["updates"],
                "scale": plain.get("scale"),
                "optimizer": plain.get("optimizer"),
            }
        )
        session.streams.load_state_dict(_of_rank(random, session.streams.rank))
        session.batches.load_state_dict(plain["batches"])
        for name, part in (stateful or {}).items():
            if plain["stateful"].get(name) is not None:
                part.load_state_dict(_unfold(plain["stateful"][name], kept))
    except MmalignError:
        raise
    except Exception as error:  # values of another kind than were written
        raise _damaged(path, f"holds what was not written there ({type(error).__name__}: {error})") from error
    session.step = plain["step"]
    session.seconds_before = float(plain.get("seconds", 0.0))


def _check_plain(path: Path, plain: Any) -> None:
    """Is `state.json` of a version that is understood, with everything in it?"""
    version = plain.get("version", 0) if isinstance(plain, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise CheckpointError(
            f"{path}: its state is of version {version}, and this mmalign reads up to {VERSION}; resume with the "
            "mmalign that wrote it, or a newer one."
        )
    unusable = [name for name, kind in _KEYS.items() if version is None or not isinstance(plain.get(name), kind)]
    if unusable:
        raise _damaged(path, f"state/state.json has no usable {', '.join(unusable)}")
    if plain["step"] != step_of(path):
        raise _damaged(path, f"state/state.json is of step {plain['step']}")


def _damaged(path: Path, what: str) -> CheckpointError:
    """The error of a damaged checkpoint, with the way on: the next older checkpoint, if there is one."""
    older = [other for other in complete(path.parent) if step_of(other) < step_of(path)]
    run = path.parent.parent
    way = f"resume from an earlier one with --resume {run}@{step_of(older[-1])}" if older else "start the run again"
    return CheckpointError(f"{path}: {what}; {way}.")


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
    kept: dict[str, Tensor] = {}
    plain = {
        "version": VERSION,
        "step": session.step,
        "seconds": round(session.seconds, 3),
        "updates": update["count"],
        "scale": update["scale"],
        "optimizer": update["optimizer"],
        "batches": session.batches.state_dict(),
        "stateful": {name: _fold(p.state_dict(), kept) for name, p in stateful.items() if hasattr(p, "state_dict")},
    }
    if kept:
        save_file(kept, folder / KEPT)
    (folder / "state.json").write_text(json.dumps(plain), encoding="utf-8")


def _fold(value: object, kept: dict[str, Tensor]) -> Any:
    """State as JSON: float32 and integers survive the round trip exactly; long tensors go to `kept`, by number."""
    if isinstance(value, Tensor) and value.numel() > _LONG:
        name = str(len(kept))
        kept[name] = value.detach().cpu().contiguous()
        return {"kept": name}
    if isinstance(value, Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {str(k): _fold(v, kept) for k, v in value.items()}
    return [_fold(v, kept) for v in value] if isinstance(value, list | tuple) else value


def _unfold(value: object, kept: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict) and set(value) == {"kept"}:
        return kept[value["kept"]]
    if isinstance(value, dict) and set(value) == {"tensor", "dtype"}:
        return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
    if isinstance(value, dict):
        return {k: _unfold(v, kept) for k, v in value.items()}
    return [_unfold(v, kept) for v in value] if isinstance(value, list) else value


def _unwritable(path: Path, folder: Path, error: Exception) -> CheckpointError:
    checkpoints = [p.name for p in complete(folder)]
    safe = f"still whole: {', '.join(checkpoints)}" if checkpoints else "no earlier checkpoint exists"
    way = "free some space and resume" if checkpoints else "free some space and start again"
    return CheckpointError(f"{path}: could not be written ({error}); {safe}: {way}.")


__all__ = ["VERSION", "complete", "latest", "load_checkpoint", "save_checkpoint", "step_of"]
