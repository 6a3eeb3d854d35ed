"""Single pictures: where a data file may name them, reading, resizing, and the kept JPEG form."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

from PIL import Image, ImageOps

from joyvl_train.video import MAX_PIXELS, FrameError, regular_file

Size = tuple[int, int] | int | None
"""Width and height, or the longest side (never enlarged), or None: as it is."""

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is opened as a picture; formats that run a program (EPS) are not."""

MAX_SIDE = 8192


def target_size(width: int, height: int, size: Size, multiple: int = 1) -> tuple[int, int]:
    """Width and height of the kept picture, each a multiple of `multiple`.

    >>> target_size(1280, 720, 448, 32)
    (448, 256)
    """
    if isinstance(size, tuple):
        wanted: tuple[float, float] = size
    else:
        shrink = 1.0 if size is None else min(1.0, size / max(width, height))
        wanted = (width * shrink, height * shrink)
    fitted = [max(1, round(side / multiple)) * multiple for side in wanted]
    return (fitted[0], fitted[1])


def inside(root: str | os.PathLike[str], path: str) -> Path:
    """`path`, relative to `root`, as an absolute path that lies inside it.

    What a data file names may not reach out of its folder ("../../etc/passwd"); links that
    somebody put into the folder are followed. `FrameError` otherwise.
    """
    base = os.path.abspath(root)
    full = os.path.normpath(os.path.join(base, path))
    if not path or "\0" in path or os.path.commonpath([base, full]) != base:
        raise FrameError("outside the folder", f"{path!r} under {base!r}")
    return Path(full)


def encode(image: Image.Image, quality: int = 90) -> bytes:
    """A compact JPEG; pictures below 128 pixels keep their colours at full resolution."""
    out = io.BytesIO()
    subsampling = 0 if min(image.size) < 128 else 2
    image.save(out, "JPEG", quality=quality, subsampling=subsampling)
    return out.getvalue()


def encode_lossless(image: Image.Image) -> bytes:
    """A PNG, of which a model sees what it would see of the picture itself."""
    out = io.BytesIO()
    image.convert("RGB").save(out, "PNG", compress_level=1)
    return out.getvalue()


def decode(data: bytes | memoryview) -> Image.Image:
    """The RGB picture of a JPEG that `encode` wrote."""
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.load()
    return image


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGB at `size`, (width, height), by the bicubic filter of Qwen's processors."""
    image = image.convert("RGB")
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def read_picture(path: str | os.PathLike[str], size: Size = None, multiple: int = 1) -> Image.Image:
    """One picture file as RGB, upright, resized. `FrameError` where it can't be read."""
    full = regular_file(path)
    try:
        with Image.open(full, formats=PICTURE_FORMATS) as image:
            _check_pixels(image, full)
            image.load()
            upright = ImageOps.exif_transpose(image)
            return resized(upright, target_size(*upright.size, size, multiple))
    except FrameError:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise FrameError("unreadable picture", f"{str(full)!r}: {error}") from None


_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of EXIF


def picture_size(
    path: str | os.PathLike[str], size: Size = None, multiple: int = 1
) -> tuple[int, int]:
    """Width and height of what `read_picture` gives, from the file's head. `FrameError` alike."""
    full = regular_file(path)
    try:
        with Image.open(full, formats=PICTURE_FORMATS) as image:
            _check_pixels(image, full)
            width, height = image.size
            if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
                width, height = height, width
    except FrameError:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise FrameError("unreadable picture", f"{str(full)!r}: {error}") from None
    return target_size(width, height, size, multiple)


def _check_pixels(image: Image.Image, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise FrameError("too many pixels", f"{str(path)!r}: {image.width}x{image.height}")
