"""Whether a caption of a scene is true and says everything: the truth that learned captioning rewards are held to."""

from __future__ import annotations

from typing import Any, Literal

from mmalign.core.errors import CapabilityError
from mmalign.core.tensor import Tensor
from mmalign.core.types import Prompt
from mmalign.rewards.by_row import Verdict, media_of, rule
from mmalign.rewards.parsing import LONG, Unreadable, Where, answer_of, bounded

__all__ = ["caption_truth"]


@rule(modalities={"text"}, range=(0.0, 1.0))
def caption_truth(
    prompt: Prompt, output: str, *, measure: Literal["clauses", "whole"] = "clauses", where: Where = "whole"
) -> Verdict:
    """Compares a caption with the fullest description of the scene that the picture shows (read by the verifier).

    `clauses`: of the clauses of both (so many things of a kind, so many altogether, one beside the other), the share
    that both have: shared / max(of the caption, of the description). Leaving something out costs as much as inventing
    something. `whole`: 1 where that is all of them. `parts`: `true`, the share of the caption's own clauses that hold,
    which saying little keeps high; `told`, the share of the description's clauses that the caption holds; `whole`.

    A text that is no caption of the world's grammar is PARSE_FAIL. A prompt without `media["image"]`, or with a picture
    that no caption can describe, is NOT_APPLICABLE.

    Args:
        measure: "clauses", the share of clauses that both have, or "whole", whether that is all of them.
        where: in an output the answer stands, see `parsing.answer_of`.
    """
    from mmalign.miniworld.descriptions import agreement, describe
    from mmalign.miniworld.language import CaptionError, parse

    scene = _scene(media_of(prompt)["image"]) if "image" in list(prompt.media) else None  # `in` alone would decode it
    description = describe(scene) if scene else None
    if scene is None or description is None:
        return None
    try:
        caption = parse(bounded(answer_of(output, where), LONG))
    except CaptionError as error:
        raise Unreadable(str(error)[:200]) from None
    shares = agreement(caption, scene, description)
    whole = float(shares.right == 1)
    parts = {"true": shares.true, "told": shares.covered, "whole": whole}
    return (shares.right if measure == "clauses" else whole), parts


def _scene(picture: Tensor) -> Any:
    from mmalign.miniworld.scenes import IMAGE_SIZE
    from mmalign.miniworld.verifier import read_scene

    if tuple(picture.shape) != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise CapabilityError(
            f"caption_truth reads pictures (3, {IMAGE_SIZE}, {IMAGE_SIZE}) of scenes; this is {tuple(picture.shape)}."
        )
    return read_scene(picture.detach().float().cpu().numpy())
