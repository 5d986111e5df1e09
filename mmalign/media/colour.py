"""Colours by the profile that a picture embeds: CMYK of a printer, Display P3 of a telephone, Adobe RGB of a camera."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from mmalign.core.errors import MmalignWarning

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["in_srgb"]


def in_srgb(picture: Image) -> Image:
    """`picture` in sRGB, 8 bits, with its transparency; as it is where it embeds no profile, or sRGB itself.

    LittleCMS converts, relative to the white point with black point compensation. A profile that does not belong to
    the picture, or is damaged, is left out with a warning.
    """
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    from PIL import ImageCms

    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return picture
        flat = picture.convert("RGBA" if picture.has_transparency_data else "RGB") if picture.mode == "P" else picture
        alpha = flat.getchannel("A") if flat.mode in ("RGBA", "LA") else None
        colours = flat.convert(flat.mode[:-1]) if alpha else flat
        made = ImageCms.profileToProfile(
            colours,
            own,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warnings.warn(f"a picture's colour profile is left out: {error}", MmalignWarning, stacklevel=2)
        return picture
    if made is None:
        return picture
    if alpha:
        made.putalpha(alpha)
    made.info.pop("icc_profile", None)
    return made
