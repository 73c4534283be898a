"""An encoded image without anything but its pixels: no EXIF, GPS, comments, XMP, thumbnails, or data after its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cleaned:
    """content: what may be stored; empty where nothing of it could be used. notes: what was done, for people."""

    content: bytes
    notes: tuple[str, ...]


def clean(content: bytes) -> Cleaned:
    """An encoded image reduced to what its pixels need. Clean content comes back unchanged. Never raises.

    JPEG and PNG lose what is no pixels, losslessly; one that lies on its side by its header, and other formats, are
    written anew as upright PNG.
    """
    raise NotImplementedError
