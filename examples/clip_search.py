"""Search a folder of pictures by text or by picture, with CLIP embeddings.

python examples/clip_search.py pictures/ "a red fruit" -k 3
python examples/clip_search.py pictures/ --like apple.png
"""

import argparse
from pathlib import Path

import torch

import unclip

INPUTS = Path(__file__).parent.parent / "docs" / "images" / "inputs"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=INPUTS)
    parser.add_argument("query", nargs="?", default="a red fruit", help="what to look for, in words")
    parser.add_argument("--like", type=Path, help="look for pictures like this one instead")
    parser.add_argument("-k", type=int, default=3, help="results (default: 3)")
    args = parser.parse_args(argv)

    model = unclip.load("artwork")
    files = sorted(
        path for path in args.folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".webp")
    )
    batches = [files[start : start + 64] for start in range(0, len(files), 64)]
    index = torch.cat([model.embed_image(batch) for batch in batches])  # (n, d)
    query = model.embed_text(args.query) if args.like is None else model.embed_image(args.like)

    cosines = torch.nn.functional.cosine_similarity(index, query)
    for position in cosines.argsort(descending=True)[: args.k].tolist():
        print(f"{cosines[position]:.3f}  {files[position]}")


if __name__ == "__main__":
    main()
