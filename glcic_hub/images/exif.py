"""EXIF: the orientation, and what of the rest is kept."""

from __future__ import annotations

import struct
import warnings
from typing import Any

from PIL import ExifTags, Image, TiffTags

BLOCKS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
"""Tags that lead to further tags, which are kept, too."""

_ORIENTATION = ExifTags.Base.Orientation
# Description, make, model, orientation, software, date, artist, copyright, rating, and what Windows adds (title,
# comment, author, keywords, subject): what speaks of the photograph. The other tags speak of the file that it was in,
# and would break the one that it goes to.
_KEPT_TAGS = frozenset(
    {0x010E, 0x010F, 0x0110, _ORIENTATION, 0x0131, 0x0132, 0x013B, 0x8298, 0x4746, 0x4749, *range(0x9C9B, 0x9CA0)}
)
# How a TIFF's pixels are stored, its resolution and its ICC profile: what its copy has of its own.
_LAYOUT_TAGS = frozenset(
    {*range(254, 260), *range(262, 267), 273, *range(277, 285), *range(290, 294), 296, 297, 317, *range(320, 326)}
    | {332, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533), 34675}
)


def orientation_of(image: Image.Image) -> int:
    """Reads the EXIF orientation of a loaded image, 1 to 8; 1 is upright.

    TIFF files are turned upright when their pixels are loaded, so load them first.
    """
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # whatever a broken block makes Pillow raise
        orientation = None
    if orientation is None:
        orientation = _stored_orientation(image.info.get("exif", b""))
    return int(orientation) if orientation in range(1, 9) else 1


def _stored_orientation(exif: bytes) -> int:
    """Reads the orientation from the entries alone: Pillow reads none after one whose value is missing."""
    content = exif.removeprefix(b"Exif\0\0")
    order = ">" if content[:2] == b"MM" else "<"
    try:
        (begin,) = struct.unpack_from(f"{order}I", content, 4)
        (entries,) = struct.unpack_from(f"{order}H", content, begin)
        for entry in range(entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", content, begin + 2 + 12 * entry)
            if (tag, kind) == (_ORIENTATION, TiffTags.SHORT):
                return int(value)
    except struct.error:  # there is no such place
        pass
    return 1


class _Text(str):
    """A tag's text; Pillow reads its bytes as Latin-1, and would write all that is not ASCII as question marks."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        try:
            return super().encode("latin-1")
        except UnicodeEncodeError:  # it was not read from a file
            return super().encode("utf-8")


def read_exif(image: Image.Image) -> Image.Exif:
    """Keeps the EXIF tags of the photograph, not of its file; not the thumbnail, which shows the removed object.

    Empty if there is none, or nothing of it can be read. A `UserWarning` names the tags and blocks that are broken,
    and of a TIFF all tags that are not kept but for those of its layout. Load the image first.
    """
    kept, broken = sort_exif(image)
    lost = set(getattr(image, "tag_v2", ())) - _KEPT_TAGS - _LAYOUT_TAGS - set(BLOCKS)
    if broken:
        warnings.warn(f"not kept of the EXIF, as it is broken: {', '.join(broken)}", stacklevel=2)
    if lost:
        names = [f"{TiffTags.lookup(tag).name} ({tag})" for tag in sorted(lost)]
        warnings.warn(f"not kept of the TIFF's tags: {', '.join(names)}", stacklevel=2)
    return kept


def sort_exif(image: Image.Image) -> tuple[Image.Exif, list[str]]:
    """Gives what `read_exif` gives, and the names of what is broken instead of a warning."""
    kept = Image.Exif()
    broken: list[str] = []
    try:
        exif = image.getexif()
    except Exception:  # whatever a broken block makes Pillow raise
        exif = Image.Exif()
    if _ORIENTATION in exif or orientation_of(image) != 1:
        kept[_ORIENTATION] = orientation_of(image)
    for tag in sorted(_KEPT_TAGS & set(exif) - {_ORIENTATION}):
        if (value := _writable(exif[tag], tag)) is not None:
            kept[tag] = value
        else:
            broken.append(_name(tag))
    for block in (block for block in BLOCKS if block in exif):
        try:
            entries = dict(exif.get_ifd(block))
        except Exception:  # whatever a broken block makes Pillow raise
            entries = {}
        if not entries:
            broken.append(f"the block {block.name}")
        entries.pop(ExifTags.IFD.Interop, None)  # says which rule the old file follows
        values = {tag: _writable(value, tag, block) for tag, value in entries.items()}
        broken += [_name(tag, block) for tag, value in values.items() if value is None]
        if values := {tag: value for tag, value in values.items() if value is not None}:
            kept[block] = values
    return kept, broken


def _writable(value: Any, tag: int, block: int | None = None) -> Any:
    """Returns a tag's value as it is written; None if Pillow can only read it, as it has another type than the tag."""
    value = _Text(value) if isinstance(value, str) else value
    exif = Image.Exif()
    exif.update({tag: value} if block is None else {block: {tag: value}})
    try:
        exif.tobytes()
    except Exception:  # whatever a value of another type makes Pillow raise
        return None
    return value


def _name(tag: int, block: int | None = None) -> str:
    names = ExifTags.GPSTAGS if block == ExifTags.IFD.GPSInfo else ExifTags.TAGS
    return f"{names.get(tag, 'tag')} ({tag:#06x})"
