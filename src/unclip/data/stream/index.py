"""Writing the indexes of tar shards beside them, and shards.json, which lists them (`unclip data index`)."""

import json
import os

from unclip.data.stream.faults import CORRUPT, Faults
from unclip.data.stream.store import StoreOptions, open_store
from unclip.data.stream.tar import SUMMARY, scanned


def write_indexes(
    place: str | os.PathLike[str], *, faults: Faults | None = None, options: StoreOptions | None = None
) -> int:
    """Write every shard's index beside it, shards.json last; the number of samples.

    What the shards hold that cannot be used is counted in `faults` and bounded by its limit; then nothing is written to
    shards.json. Raises FileNotFoundError where there is no shard.
    """
    faults = faults if faults is not None else Faults()
    store = open_store(place, options)
    tars = sorted(one for one in store.files() if one.name.lower().endswith(".tar"))
    if not tars:
        raise FileNotFoundError(f"{store.url} holds no .tar file")
    shards = []
    for one in tars:
        try:
            index = scanned(store, one.name)
        except ValueError as error:
            faults.record(CORRUPT, one.name, str(error))
            continue
        faults.merge(index.counts, index.names)
        store.put(f"{one.name[:-4]}.index", index.to_bytes())
        shards.append((one.name, one.size, len(index)))
    count = sum(samples for _, _, samples in shards)
    faults.check(count, count)
    found = {
        "format": 1,
        "shards": shards,
        "faults": {"counts": faults.counts, "names": faults.names},
    }
    store.put(SUMMARY, json.dumps(found, separators=(",", ":")).encode())
    return count
