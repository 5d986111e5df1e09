"""How small a picture is as a JPEG file: DDPO's first task, with a known answer and no model."""

from __future__ import annotations

import io

from jaxtyping import Float

from mmalign.core.options import JpegQuality
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import rule

__all__ = ["compressibility"]


@rule(modalities={"image"}, range=(float("-inf"), 0.0))
def compressibility(prompt: Prompt, output: Float[Tensor, "3 H W"], *, quality: JpegQuality = 95) -> float:
    """Minus the size in kilobytes (1000 bytes) as JPEG (Black et al. 2023, section 5). Negate its weight for detail.

    Args:
        quality: of the JPEG file, 1 to 100.
    """
    from mmalign.media.image import to_pil

    file = io.BytesIO()
    to_pil(output).save(file, format="JPEG", quality=quality)
    return -len(file.getvalue()) / 1000
