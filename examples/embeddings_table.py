"""CLIP embeddings of a folder of pictures as a table: one row per file, csv or parquet (which needs pyarrow).

python examples/embeddings_table.py pictures/ --out embeddings.parquet
"""

import argparse
import csv
from pathlib import Path

import torch

import unclip

INPUTS = Path(__file__).parent.parent / "docs" / "images" / "inputs"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=INPUTS)
    parser.add_argument(
        "--out", type=Path, default=Path("out/embeddings.csv"), help="a .csv or .parquet file"
    )
    args = parser.parse_args(argv)

    model = unclip.load("artwork")
    files = sorted(
        path for path in args.folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".webp")
    )
    batches = [files[start : start + 64] for start in range(0, len(files), 64)]
    embeddings = torch.cat([model.embed_image(batch) for batch in batches])
    names = [path.relative_to(args.folder).as_posix() for path in files]

    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        column = pyarrow.array(embeddings.tolist(), pyarrow.list_(pyarrow.float32(), embeddings.shape[1]))
        # The digest says which CLIP the numbers are from: those of another one cannot be compared with them.
        table = pyarrow.table({"file": names, "embedding": column})
        pyarrow.parquet.write_table(table.replace_schema_metadata({"clip": model.digest}), args.out)
    else:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *(f"z{index}" for index in range(embeddings.shape[1]))])
            writer.writerows([name, *row] for name, row in zip(names, embeddings.tolist()))
    print(f"{args.out}: {len(names)} pictures, {embeddings.shape[1]} numbers each")


if __name__ == "__main__":
    main()
