"""Input drawings of the figures: six that are not in the bundled model's training set (splits `val`, `heldout-style`).

    python docs/inputs.py artwork/node_modules     # writes docs/images/inputs/*.png; needs `npm ci --prefix artwork`

They are from Noto (Apache-2.0) and Fluent (MIT), rasterised at 256 px and otherwise unchanged: see NOTICE.
"""

import sys
from pathlib import Path

from unclip.datasets.artwork.canvas import Placement, document, encode_png, rasterise
from unclip.datasets.artwork.drawings import load_drawings
from unclip.images import write_atomically

FOLDER = Path(__file__).parent / "images" / "inputs"
INPUTS = {
    "apple": "noto/red-apple",
    "car": "flat/automobile",
    "cat": "noto/black-cat",
    "face": "noto/smiling-face-with-smiling-eyes",
    "fox": "flat/fox",
    "tree": "noto/deciduous-tree",
}
"""Keys of the drawings (style and icon name) by file name."""


def write(packages: Path) -> None:
    """Write every input, rasterised from the npm packages in the folder `packages`."""
    drawings = {drawing.key: drawing for drawing in load_drawings(packages)}
    for name, key in INPUTS.items():
        picture = rasterise(document([(drawings[key], drawings[key].body, Placement())]), 256)
        write_atomically(FOLDER / f"{name}.png", encode_png(picture), force=True)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    write(Path(sys.argv[1]))
