"""Arrays of other byte orders, and masked ones."""

import numpy as np
import pytest

from unclip.images import open_picture
from unclip.images.errors import PictureError


@pytest.mark.parametrize("kind", ["u2", "f4", "f8"])
def test_the_order_of_bytes_changes_nothing(kind):
    values = np.linspace(0, 1, 48).reshape(4, 4, 3) * (65535 if kind == "u2" else 1)
    values = values[:, :, 0] if kind == "u2" else values
    found = [np.asarray(open_picture(values.astype(order + kind))) for order in "<>"]
    assert np.array_equal(*found)
    assert len(np.unique(found[0])) > 10


def test_masked_pixels_are_refused():
    pixels = np.full((4, 4, 3), 9, np.uint8)
    assert open_picture(np.ma.masked_array(pixels)).getpixel((0, 0)) == (9, 9, 9)
    mask = np.zeros(pixels.shape, bool)
    mask[1] = True
    with pytest.raises(PictureError, match=r"shape \(4, 4, 3\) and a mask"):
        open_picture(np.ma.masked_array(pixels, mask))
