"""A user's own images: `folder:PATH`.

    pets/cat/1.jpg  pets/cat/2.png  pets/dog/1.jpg      two classes: the folders directly below PATH
    pets/1.jpg      pets/2.png                          no classes: labels are None
    pets/train/cat/1.jpg  pets/test/cat/9.jpg           splits of your own, and classes below them

Images become RGB (grey repeated, what is transparent white) and square. Splits that the folder does
not make are made by `splits.split_indices` of the paths: 20 % of every class is test, 10 %
validation, so that a copy of the folder on another machine has the same test images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from jaxcon.data.pixels import Shape, default_side, fit, to_rgb
from jaxcon.data.splits import (
    TEST_SHARE,
    VALIDATION_SHARE,
    DataError,
    Dataset,
    Split,
    split_indices,
)

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_SPLIT_FOLDERS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def load_folder(path: str, *, image_size: int | None, memory_limit: int) -> Dataset:
    """Loads the images below `path`; see `sources.load`."""
    root = Path(path).expanduser()
    files = _find_images(root)
    own_splits = _own_splits(files)
    class_names, labels = _classes(root, files, depth=1 if own_splits else 0)
    parts = _parts(files, labels, own_splits)
    if image_size is None:
        first = read_image(root / files[0], None)
        image_size = default_side(*first.shape[:2])
    shape = (image_size, image_size, 3)
    small = len(files) * np.prod(shape) <= memory_limit

    def split(indices: np.ndarray) -> Split:
        images = FolderImages([str(root / files[i]) for i in indices], shape)
        return Split(
            images.read_all() if small else images,
            None if labels is None else labels[indices],
            names=tuple(files[i].as_posix() for i in indices.tolist()),
        )

    return Dataset(
        name=f"folder:{path}",
        class_names=class_names,
        **{part: split(indices) for part, indices in parts.items()},
    )


def read_image(path: str | os.PathLike[str], side: int | None) -> np.ndarray:
    """One image file as uint8 `[height, width, 3]`, upright, fitted to a square if `side` is given.

    Raises:
      DataError: naming the file, if it cannot be decoded.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = to_rgb(ImageOps.exif_transpose(opened))
    except Exception as error:  # pillow's decoders raise anything on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify" in reason:
            reason = "not an image that pillow can read"
        damaged = DataError(
            f"cannot read the image {path} ({reason}); repair it, or remove it from the folder"
        )
        damaged.path = path
        raise damaged from error
    return np.asarray(image if side is None else fit(image, side))


class FolderImages:
    """Image files that are read when asked for, as an `ImageSource`."""

    def __init__(self, paths: Sequence[str], shape: Shape) -> None:
        self.paths = tuple(paths)
        self.shape = shape

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return read_image(self.paths[index], self.shape[0])

    def read_all(self) -> np.ndarray:
        """uint8 `[n, side, side, 3]`."""
        images = np.empty((len(self), *self.shape), np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases the GIL
            for row, image in enumerate(pool.map(self.__getitem__, range(len(self)))):
                images[row] = image
        return images


def _find_images(root: Path) -> list[Path]:
    """Paths below `root` in an order that does not depend on the file system."""
    if not root.exists():
        raise DataError(f"there is no folder {root}; folder: takes the path of a folder of images")
    if not root.is_dir():
        raise DataError(f"{root} is a file; folder: takes the path of a folder of images")
    found = [
        Path(folder, name).relative_to(root)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    ]
    if not found:
        raise DataError(
            f"there are no images in {root} or below it (looked for {' '.join(EXTENSIONS)})"
        )
    return sorted(found, key=Path.as_posix)


def _own_splits(files: Sequence[Path]) -> bool:
    """Whether the folders directly below are train, validation (or val) and test."""
    top = {file.parts[0] for file in files}
    return "train" in top and len(top) > 1 and top <= set(_SPLIT_FOLDERS)


def _classes(
    root: Path, files: Sequence[Path], *, depth: int
) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Class names and int32 labels by the folder at `depth`; None without two such folders."""
    folders = [file.parts[depth] if len(file.parts) > depth + 1 else None for file in files]
    names = sorted({folder for folder in folders if folder is not None})
    if len(names) < 2:
        return None, None
    if None in folders:
        stray = root / files[folders.index(None)]
        raise DataError(
            f"the folders in {root} are classes, but {stray} lies in none of them; move it"
        )
    numbers = {name: number for number, name in enumerate(names)}
    return tuple(names), np.array([numbers[folder] for folder in folders if folder], np.int32)


def _parts(
    files: Sequence[Path], labels: np.ndarray | None, own_splits: bool
) -> dict[str, np.ndarray]:
    homes = [_SPLIT_FOLDERS[file.parts[0]] if own_splits else "train" for file in files]
    train = np.flatnonzero([home == "train" for home in homes])
    parts = {
        part: np.flatnonzero([home == part for home in homes]) for part in ("validation", "test")
    }
    carved = split_indices(
        [files[i].as_posix() for i in train.tolist()],
        None if labels is None else labels[train],
        test_share=0.0 if len(parts["test"]) else TEST_SHARE,
        validation_share=0.0 if len(parts["validation"]) else VALIDATION_SHARE,
    )
    for part, positions in carved.items():
        if part not in parts or not len(parts[part]):
            parts[part] = train[positions]
    return parts
