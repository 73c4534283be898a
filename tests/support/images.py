"""Small images for tests that look at no pixels."""

import hashlib

import numpy as np

from bgpanet.data.readers.png import encode_png


def image_of(text: str) -> bytes:
    """A whole PNG whose pixels follow from a text: other texts, other images."""
    return encode_png(np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8).reshape(4, 8))
