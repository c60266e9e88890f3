"""Two random resized crops of photographs, in images a second, beside torchvision's DataLoader.

    python -m benchmarks.input_pipeline         # ten minutes; torch and torchvision beside jaxcon

JPEGs of 500 x 375 and of 2,000 x 1,500 pixels (`benchmarks/photographs.py`, quality 90) are read,
cropped twice to 224 x 224 pixels, mirrored at random, and come as batches of uint8: by
`jaxcon.data.batching`, on a CPU device, and by torchvision's `RandomResizedCrop` and
`RandomHorizontalFlip` on Pillow images in a `DataLoader`, with its default, bilinear, and with bicubic
interpolation. Each runs in a process of its own, takes turns with the others, and is timed after its
first batches; the median of the turns counts. Then the pixels: the mean absolute difference of crops
to Pillow's bicubic ones of the same boxes. Written to `--out`: `input_pipeline.json` and
`input_pipeline.md`.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.photographs import jpeg

SIDE, BATCH = 224, 32
SIZES = {(500, 375): 64, (2000, 1500): 16}  # how many pictures of each
READERS = ("jaxcon", "torchvision, bilinear", "torchvision, bicubic")


def paths_in(folder: Path) -> list[str]:
    """Returns the pictures of a folder, repeated to at least 20 batches."""
    paths = sorted(str(path) for path in folder.glob("*.jpg"))
    return list(itertools.islice(itertools.cycle(paths), 20 * BATCH))


def jaxcon_batches(folder: Path, workers: int) -> Iterator[Any]:
    """Returns an endless stream of batches."""
    from jaxcon.data.batching import batches
    from jaxcon.data.crops import Crops
    from jaxcon.data.photographs import Photographs
    from jaxcon.data.splits import Split
    from jaxcon.data.stored import StoredFiles

    stored = StoredFiles(paths_in(folder))
    split = Split(Photographs(stored, (SIDE, SIDE, 3)), originals=stored)
    return batches(split, seed=0, batch_size=BATCH, crops=Crops(SIDE), num_workers=workers)


class Pictures:
    """A dataset in torch's sense, with two views of a picture."""

    def __init__(self, paths: list[str], interpolation: str) -> None:
        from torchvision import transforms
        from torchvision.transforms import InterpolationMode

        mode = InterpolationMode(interpolation)
        self.paths = paths
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(SIDE, interpolation=mode),
                transforms.RandomHorizontalFlip(),
                transforms.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        import torch
        from PIL import Image

        with open(self.paths[index], "rb") as file:
            picture = Image.open(file).convert("RGB")
        return torch.stack([self.view(picture), self.view(picture)])


def torchvision_batches(folder: Path, workers: int, interpolation: str) -> Iterator[Any]:
    """Returns an endless stream of batches."""
    from torch.utils.data import DataLoader

    pictures: Any = Pictures(paths_in(folder), interpolation)
    loader = DataLoader(
        pictures, BATCH, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def measure(reader: str, folder: Path, workers: int, seconds: float) -> dict[str, float]:
    """Times one reader in this process; resident memory (PSS) is that of it and of its workers."""
    name, _, interpolation = reader.partition(", ")
    stream = (
        torchvision_batches(folder, workers, interpolation)
        if interpolation
        else jaxcon_batches(folder, workers)
    )
    for batch in itertools.islice(stream, 2 * workers + 2):
        np.asarray(batch["image"] if name == "jaxcon" else batch)
    began, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        batch = next(stream)
        count += len(np.asarray(batch["image"] if name == "jaxcon" else batch))
    children = [pid for pid in _descendants(os.getpid()) if pid != os.getpid()]
    return {
        "images_per_second": count / passed,
        "main_mib": _resident_mib(os.getpid()),
        "workers_mib": sum(map(_resident_mib, children)),
    }


def _descendants(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text(encoding="utf-8").split()]
    return [pid, *(found for child in children for found in _descendants(child))]


def _resident_mib(pid: int) -> float:
    """Resident memory, shared pages divided among those that share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def differences(folder: Path, count: int = 24) -> tuple[float, float]:
    """Returns the mean and the largest mean absolute difference of crops to Pillow's, of 255."""
    import io

    from PIL import Image

    from jaxcon.data.crops import Box, Crops
    from jaxcon.data.decode import crop_views

    values = []
    for row, path in enumerate(paths_in(folder)[:count]):
        content = Path(path).read_bytes()
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        width, height = picture.size
        box = Crops(SIDE, flip=False).box((height, width), seed=0, step=0, row=row, view=0)
        top, left, tall, wide = (8 * round(edge / 8) for edge in box[:4])
        box = Box(top, left, min(tall, height - top), min(wide, width - left), False)
        (view,) = crop_views(content, lambda size, box=box: [box], side=SIDE)
        edges = (box.left, box.top, box.left + box.width, box.top + box.height)
        expected = picture.crop(edges).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        values.append(np.abs(view.astype(int) - np.asarray(expected).astype(int)).mean())
    return float(np.mean(values)), float(np.max(values))


def write(found: list[dict[str, Any]], pixels: list[dict[str, Any]], out: Path, facts: str) -> None:
    """Writes the figures and the page."""
    out.mkdir(parents=True, exist_ok=True)
    record = {"machine": facts, "rates": found, "pixels": pixels}
    (out / "input_pipeline.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    head = (
        "JPEG",
        "workers",
        "reader",
        "images/s",
        "least to greatest",
        "of torchvision's default",
    )
    head += ("main process, MiB", "workers, MiB")
    lines = [
        "# Reading photographs",
        "",
        "Two random resized crops of 224 x 224 pixels of every picture, mirrored at random, in",
        "images (of two views) a second: `jaxcon.data.batching` beside torchvision on Pillow images in",
        f"torch's `DataLoader`. {facts}",
        "By `python -m benchmarks.input_pipeline`, whose first lines say how: the median of turns that",
        "alternate, and the least and the greatest of them.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for row in found:
        width, height = row["size"]
        low, high = min(row["turns"]), max(row["turns"])
        lines.append(
            f"| {width:,} x {height:,} | {row['workers']} | {row['reader']} | {row['rate']:.0f} | "
            f"{low:.0f} to {high:.0f} | {row['ratio']:.2f} | {row['main_mib']:.0f} | "
            f"{row['workers_mib']:.0f} |"
        )
    lines += [
        "",
        "Memory is resident (PSS: shared pages are divided), and includes jax or torch.",
        "",
        "Pixels: the absolute difference, of 255, to those of Pillow, which decodes everything, crops",
        "and resizes bicubically, of the same boxes; the mean over crops, and the greatest of a crop.",
        "",
        "| JPEG | mean | greatest |",
        "|---|---|---|",
    ]
    for row in pixels:
        width, height = row["size"]
        lines.append(f"| {width:,} x {height:,} | {row['mean']:.2f} | {row['most']:.2f} |")
    (out / "input_pipeline.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=READERS)
    parser.add_argument("--note", default="", help="what else is to be said of the machine")
    parser.add_argument("--only", nargs=3, help="reader, folder, workers: one turn, as JSON")
    given = parser.parse_args()
    if given.only:
        reader, folder, workers = given.only
        print(json.dumps(measure(reader, Path(folder), int(workers), given.seconds)), flush=True)
        os._exit(0)  # the workers of both end with their parent
    found, pixels = [], []
    with tempfile.TemporaryDirectory() as top:
        for (width, height), count in SIZES.items():
            folder = Path(top) / f"{width}"
            folder.mkdir()
            for number in range(count):
                (folder / f"{number:03}.jpg").write_bytes(jpeg(width, height, number))
            mean, most = differences(folder)
            pixels.append({"size": (width, height), "mean": mean, "most": most})
            print(pixels[-1], flush=True)
            for workers in given.workers:
                turns: dict[str, list[dict[str, float]]] = {reader: [] for reader in given.readers}
                for _, reader in itertools.product(range(given.turns), given.readers):
                    command = [sys.executable, "-m", "benchmarks.input_pipeline"]
                    command += [f"--seconds={given.seconds}", "--only", reader, str(folder)]
                    done = subprocess.run(
                        [*command, str(workers)], stdout=subprocess.PIPE, check=True, text=True
                    )
                    turns[reader].append(json.loads(done.stdout.splitlines()[-1]))
                    print(width, height, workers, reader, turns[reader][-1], flush=True)
                found += _rows((width, height), workers, turns)
    cores = len(os.sched_getaffinity(0))
    facts = f"On {cores} cores of a CPU, files in memory (page cache). {given.note}".strip()
    write(found, pixels, given.out, facts)


def _rows(size: tuple[int, int], workers: int, turns: dict[str, list[dict[str, float]]]) -> Any:
    rates = {r: [turn["images_per_second"] for turn in some] for r, some in turns.items()}
    usual = rates.get(READERS[1], rates[next(iter(rates))])
    for reader, some in turns.items():
        yield {
            "size": size,
            "workers": workers,
            "reader": reader,
            "rate": float(np.median(rates[reader])),
            "turns": rates[reader],
            "ratio": float(np.median(rates[reader]) / np.median(usual)),
            **{kind: max(turn[kind] for turn in some) for kind in ("main_mib", "workers_mib")},
        }


if __name__ == "__main__":
    main()
