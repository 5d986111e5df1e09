"""CLIPScore and RefCLIPScore from cosines (Hessel et al. 2021, eqs. 1 and 2)."""

from __future__ import annotations

from jaxtyping import Float

from mmalign.core.tensor import Tensor


def clip_score(cosine: Float[Tensor, " B"], scale: float = 2.5) -> Float[Tensor, " B"]:
    """CLIP-S = scale × max(cosine, 0), in [0, scale]. Other tools multiply by 1 or 100: compare equal scales only."""
    return scale * cosine.clamp_min(0)


def ref_clip_score(
    image_text: Float[Tensor, " B"], text_references: Float[Tensor, "B R"], scale: float = 2.5
) -> Float[Tensor, " B"]:
    """RefCLIP-S: the harmonic mean of CLIP-S and the best cosine with a reference, per row.

    Args:
        image_text: cosine of image and caption.
        text_references: cosines of the caption with its R references; NaN where a row has fewer.
        scale: of the image term only; the reference term is neither scaled nor, in the authors' code, clipped at 0.
            We clip it as the paper writes it: the harmonic mean of a negative number means nothing.
    """
    image = clip_score(image_text, scale)
    reference = text_references.nan_to_num(nan=float("-inf")).amax(1).clamp_min(0)
    both = image + reference
    return 2 * image * reference / both.where(both > 0, both.new_ones(()))
