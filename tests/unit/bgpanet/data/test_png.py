"""PNG files of our own making, read by Pillow."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgpanet.data.readers.png import encode_png


@given(st.integers(1, 300), st.integers(1, 300), st.booleans(), st.integers(0, 2**32 - 1))
def test_another_decoder_reads_the_same_pixels(height: int, width: int, rgb: bool, seed: int) -> None:
    shape = (height, width, 3) if rgb else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        image.load()
        assert np.array_equal(np.asarray(image), pixels)


def test_nothing_is_compressed_so_that_no_library_decides_the_bytes() -> None:
    """The zlib stream of one grey pixel 7, worked out by hand: header, a stored block of filter and pixel, Adler-32."""
    stream = bytes.fromhex("7801 01 0200 fdff 0007 00090008")
    assert stream in encode_png(np.array([[7]], np.uint8))
