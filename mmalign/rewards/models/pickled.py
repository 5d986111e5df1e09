"""Weights in `.pt`, `.pth`, `.bin` and `.ckpt` files, read without running any code that is in them.

torch's restricted reader takes tensors and plain values. Beside them training scripts leave NumPy's numbers (a best
score as `np.float64`), which are data too: they are let through by name. Everything else is refused, and so are files
pickled by another protocol than torch's own, which that reader does not know (LAION's published CLAP files have 4).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.core.errors import DataError
from mmalign.core.tensor import Tensor

_NUMBERS = (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_)


def read_pickled(file: Path) -> Any:
    """What `file` holds, by the restricted reader.

    Raises:
        DataError: no such file, damaged, or holding more than tensors and plain values, with the command that converts.
    """
    try:
        with torch.serialization.safe_globals(_plain_numpy()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{file}: cannot be opened ({error.strerror or type(error).__name__}).") from None
    except Exception:  # whatever the bytes are: torch's own words are a page long and advise to run what is in the file
        raise DataError(
            f"{file}: cannot be read as plain weights: it is damaged, or pickled so that reading it could run code. If "
            f"you trust whoever made it, convert it once: {conversion(file)} --trust; then name that file."
        ) from None


def conversion(file: Path) -> str:
    """The command that writes pickled weights as safetensors beside them."""
    return f"mmalign convert {shlex.quote(str(file))} {shlex.quote(str(file.with_suffix('.safetensors')))}"


def tensors_of(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in what a file holds, and what lies beside its tensors, by name.

    Looks for it under the keys that training scripts use (`state_dict`, `model_state_dict`, `model`). DataError if
    there is none.
    """
    left: list[str] = []
    state = content
    if isinstance(content, Mapping):
        inside = [key for key in ("state_dict", "model_state_dict", "model") if isinstance(content.get(key), Mapping)]
        if inside:
            left, state = [str(key) for key in content if key != inside[0]], content[inside[0]]
    if not isinstance(state, Mapping):
        raise DataError(f"no state dict in it, but a {type(content).__name__}.")
    tensors = {str(key): value.detach() for key, value in state.items() if isinstance(value, Tensor)}
    left += [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if not tensors:
        raise DataError(f"no tensors in it; it holds {', '.join(map(str, list(content)[:8])) or 'nothing'}.")
    return tensors, left


def _plain_numpy() -> list[Any]:
    """NumPy's scalars, as files of its versions 1 and 2 call them."""
    scalar = np.float64(0).__reduce__()[0]
    places = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*places, np.dtype, *{type(np.dtype(kind)) for kind in _NUMBERS}, *_NUMBERS]
