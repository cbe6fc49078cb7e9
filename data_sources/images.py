"""Reads picture files of any kind into the arrays that the models take, for predict.py."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from data_sources import conversion, geometry, jpeg, orientation, picture_files
from data_sources.picture_files import SUFFIXES, InMemory
from errors import UserError

INVERT = ('auto', 'yes', 'no')
_SEEN = 224  # pixels to which small images are enlarged for people


def read_image(
    path: str | Path | InMemory, height: int, width: int, channels: int, invert: str = 'auto'
) -> np.ndarray:
    """Reads one picture, fits it into the frame, and returns uint8 [height, width, channels].

    A picture that has the frame's size and 8 bits is used as it is. Any other is turned upright
    (EXIF), laid on black or white, whichever contrasts with it, if it is transparent anywhere, and
    resized (bicubic, aspect ratio kept). The rest of the frame gets the colour of the picture's
    edge.

    Args:
      path: a PNG, JPEG or other file that Pillow reads, or what would stand in one; an animation
        gives its first frame.
      height, width, channels: the frame; channels is 1 (grey, ITU-R 601 luma) or 3 (RGB).
      invert: 'yes', 'no', or 'auto', which inverts a grey picture with a bright edge: the data sets
        here show bright strokes on black, and people write with ink on paper.

    Raises:
      UserError: the file is missing, empty, damaged, no picture, or too large.
    """
    if invert not in INVERT or channels not in (1, 3):
        raise ValueError(f'invert={invert!r}, channels={channels}: not supported')
    return fitted(open_picture(path, 'L' if channels == 1 else 'RGB'), height, width, invert)


def fitted(picture: Image.Image, height: int, width: int, invert: str) -> np.ndarray:
    """Fits an upright, opaque picture of mode 'L' or 'RGB' into the frame, as `read_image` does."""
    edge = _edge_colour(picture)
    pixels = np.asarray(_fit(picture, height, width, edge)).reshape(height, width, -1)
    paper = picture.mode == 'L' and edge[0] > conversion.BRIGHT
    return 255 - pixels if invert == 'yes' or (invert == 'auto' and paper) else pixels.copy()


def fit_matrix(size: tuple[int, int], height: int, width: int) -> np.ndarray:
    """Returns the matrix by which `fitted` takes a picture of (height, width) into the frame.

    See data_sources/geometry.py.
    """
    top, left, scaled_height, scaled_width = _place(*size, height, width)
    down, right = size[0] / scaled_height, size[1] / scaled_width
    box = (-top * down, -left * right, height * down, width * right)
    return geometry.resized(*box, (height, width))


def write_enlarged(image: np.ndarray, path: Path) -> None:
    """Writes an image as PNG to a file that must not exist yet; small ones get larger pixels.

    Args:
      image: uint8 [height, width, 1 or 3].
      path: the file; its folder is made.

    Raises:
      UserError: the file exists or cannot be written.
    """
    factor = max(1, _SEEN // max(image.shape[:2]))
    pixels = image.repeat(factor, 0).repeat(factor, 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('xb') as file:
            Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, 'PNG')
    except FileExistsError as error:
        raise UserError(f'{path} exists already: remove it, or choose another folder.') from error
    except OSError as error:
        raise UserError(f'Cannot write {path}: {error.strerror or error}.') from error


def list_images(paths: Iterable[str | Path]) -> list[Path]:
    """Returns the paths, each folder replaced by the pictures below it, sorted.

    Hidden files, and what systems leave in folders (`picture_files.system_kind`), are left out.

    Raises:
      UserError: a path does not exist, or a folder has no pictures.
    """
    files = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f'{path} does not exist.')
        if not path.is_dir():
            files.append(path)
            continue
        below = sorted(p for p in path.rglob('*') if _is_named_like_one(p.relative_to(path)))
        below = [picture for picture in below if picture.is_file()]
        if not below:
            raise UserError(f'{path} has no pictures ({" ".join(sorted(SUFFIXES))}).')
        files.extend(below)
    return files


def _is_named_like_one(path: Path) -> bool:
    own = not any(map(picture_files.system_kind, path.parts))
    return own and path.suffix.lower() in SUFFIXES


def open_picture(path: str | Path | InMemory, mode: str) -> Image.Image:
    """Returns a whole picture, upright, opaque, in mode 'L' or 'RGB'; an error names the file."""
    encoded = picture_files.read(path)
    try:
        with picture_files.opened(jpeg.examined(encoded).data) as picture:
            number = orientation.of(picture)
            return orientation.turned(conversion.to_mode(picture, mode), number)
    except picture_files.TooLargeError as error:
        raise UserError(
            f'{path} is too large to be read safely ({error}): scale it down first.'
        ) from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f'{path} is not a picture that can be read: {error}.') from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise UserError(f'{path} cannot be read as a picture: {error}.') from error


def _edge_colour(picture: Image.Image) -> tuple[int, ...]:
    """Returns the median, channel by channel, of the pixels along the four sides."""
    right, bottom = picture.size
    sides = (
        (0, 0, right, 1),
        (0, bottom - 1, right, bottom),
        (0, 0, 1, bottom),
        (right - 1, 0, right, bottom),
    )
    bands = len(picture.getbands())
    edge = np.concatenate([np.asarray(picture.crop(side)).reshape(-1, bands) for side in sides])
    return tuple(int(value) for value in np.median(edge, axis=0))


def _fit(picture: Image.Image, height: int, width: int, edge: tuple[int, ...]) -> Image.Image:
    """Returns the picture at the largest size that fits, centred on the colour `edge`."""
    if picture.size == (width, height):
        return picture
    top, left, *sides = _place(picture.height, picture.width, height, width)
    frame = Image.new(picture.mode, (width, height), edge)
    frame.paste(picture.resize(sides[::-1], Image.Resampling.BICUBIC), (left, top))
    return frame


def _place(
    picture_height: int, picture_width: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """Returns where a picture lies in the frame: (top, left, height, width)."""
    scale = min(width / picture_width, height / picture_height)
    scaled_height = min(max(1, round(picture_height * scale)), height)
    scaled_width = min(max(1, round(picture_width * scale)), width)
    corner = (height - scaled_height) // 2, (width - scaled_width) // 2
    return (*corner, scaled_height, scaled_width)
