"""Photographs as evaluation sees them: upright, resized and cropped, one at a time.

>>> import tempfile
>>> from PIL import Image
>>> from jaxcon.data.stored import StoredFiles
>>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
...     Image.new("L", (60, 40), 7).save(file.name)
...     photographs = Photographs(StoredFiles([file.name]), (28, 28, 3))
...     len(photographs), photographs[0].shape, photographs[0].max().item()
(1, (28, 28, 3), 7)
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from jaxcon.data.encoded import array_picture, upright
from jaxcon.data.image_files import read_each
from jaxcon.data.pixels import ZOOM, Shape, fit
from jaxcon.data.splits import DataError, StoredImages
from jaxcon.data.stored import decoded


class Photographs:
    """The evaluation views of stored pictures, as an `ImageSource`.

    Args:
      stored: the pictures, as training crops them.
      shape: (side, side, channels) of the views, with 1 or 3 channels.
      rows: which of `stored`, int `[n]`; None: all.
      zoom: share of the shorter side that a view shows, in (0, 1]; 1 for small pictures.
    """

    def __init__(
        self,
        stored: StoredImages,
        shape: Shape,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        zoom: float = ZOOM,
    ) -> None:
        if shape[0] != shape[1] or shape[2] not in (1, 3):
            raise DataError(f"expected a shape (side, side, 1 or 3), got {shape}")
        if not 0 < zoom <= 1:
            raise DataError(f"zoom must be above 0 and at most 1, got {zoom}")
        self.stored, self.shape, self.zoom = stored, shape, zoom
        self.rows = np.arange(len(stored)) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return decoded(self.stored, int(self.rows[index]), self._view)

    def _view(self, content: bytes | np.ndarray) -> np.ndarray:
        encoded = isinstance(content, bytes)
        picture = upright(io.BytesIO(content)) if encoded else array_picture(content)
        view = fit(picture, self.shape[0], self.zoom)
        return np.asarray(view if self.shape[2] == 3 else view.convert("L")).reshape(self.shape)

    def read_all(self) -> np.ndarray:
        """Reads all views into one uint8 array `[n, side, side, channels]`.

        Raises:
          DataError: if pictures cannot be read; names the first few, with their reasons.
        """
        images = np.empty((len(self), *self.shape), np.uint8)

        def read(index: int) -> None:
            images[index] = self[index]

        read_each(read, range(len(self)))
        return images
