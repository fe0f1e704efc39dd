"""Time and memory of large sets, from raw photos to a trained network: writes docs/large-sets.md.

python benchmarks/large_sets.py --sizes 1000 10000 100000
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pages import markdown
from PIL import Image

from helpers import catalog, compute, dialog, images, session, splits, training
from helpers.archives import Archive, write_zip
from helpers.recipes import Phase, Recipe

SIZE = 64
RECIPE = Recipe([Phase("head", "head", 1), Phase("last", "last stage", 1, 1e-4)], 64, seed=0, copies=1)
PAGE = """# Large sets

Synthetic photos of {size} x {size} px, from a raw zip to a trained network: prepared (checked, split, stored), decoded,
and trained (ResNet-18 from random weights: the frozen part run once, the head solved, one epoch of the last stage).
Arrays of more than {limit} MiB are kept in files. This limit is set low here, so that the larger sets exceed it: pixels
and activations are streamed, and only the table and the thumbnails used to find look-alikes grow with the set. Each
size runs in a process of its own.

{table}

Made by `make bench-large`.
"""
LIMIT_BYTES = 64 * 2**20


def draw(count: int) -> Iterator[tuple[str, bytes]]:
    """Photos of two classes that are not alike: random blotches, warmer in one class."""
    for number in range(count):
        generator = np.random.default_rng(number)
        blotches = generator.integers(0, 200, (8, 8, 3), np.uint8)
        blotches[..., 0] += 55 * np.uint8(number % 2)
        buffer = io.BytesIO()
        Image.fromarray(blotches).resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=90)
        yield f"{'cold' if number % 2 == 0 else 'warm'}/{number:06d}.jpg", buffer.getvalue()


def measure(raw: Path, folder: Path) -> dict[str, float]:
    """Seconds of each step, and the largest resident memory of this process in MiB."""
    compute.keep_memory()
    times = [time.perf_counter()]
    with Archive(raw) as archive:
        photos, _ = catalog.scan(archive)
        photos, _ = splits.assign_splits(photos, validation_fraction=0.1, test_fraction=0.1, seed=0)
        how = {"name": "drawn", "height": SIZE, "width": SIZE, "seed": 0}
        dataset = catalog.save(archive, photos, folder / "data.zip", **how)
    times.append(time.perf_counter())
    pixels = images.load_images(dataset, SIZE, SIZE, memory_bytes=LIMIT_BYTES)
    times.append(time.perf_counter())
    model = training.fit(
        "resnet18", "none", dataset, pixels, [""], RECIPE, torch.device("cpu"), folder=folder, report=dialog.quiet
    )
    times.append(time.perf_counter())
    steps = dict(zip(("preparing (s)", "decoding (s)", "training (s)"), np.diff(times).tolist(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    accuracy = model.card["history"][-1]["validation_accuracy"]
    return {"images": len(dataset.catalog), **steps, "memory (MiB)": peak, "validation accuracy": accuracy}


def main() -> None:
    """Measure each size in a process of its own, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--one", type=Path, nargs=2, help="internal: a raw archive and a folder to measure in")
    wanted = parser.parse_args()
    if wanted.one:
        print(json.dumps(measure(*wanted.one)))
        return
    rows = []
    for size in wanted.sizes:
        with tempfile.TemporaryDirectory() as folder:
            raw = write_zip(Path(folder) / "raw.zip", draw(size))
            command = [sys.executable, __file__, "--one", str(raw), folder]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(printed.splitlines()[-1]))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    seconds = table[["preparing (s)", "decoding (s)", "training (s)"]].sum(axis=1)
    table["ms an image"] = 1000 * seconds / table["images"]
    page = PAGE.format(size=SIZE, limit=LIMIT_BYTES // 2**20, table=markdown(table.round(2).set_index("images")))
    (session.root() / "docs" / "large-sets.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
