"""The handwritten digits bundled with scikit-learn, as a TFDS dataset: no download, no TensorFlow.

1797 grey images of 8 x 8 pixels in ten classes, the test part of the UCI set "Optical Recognition
of Handwritten Digits". Prepared once (a second or two), then read like any other TFDS name:

    >>> from jaxcon.data.sources import load
    >>> digits = load("digits")
    >>> len(digits.train), len(digits.validation), len(digits.test)
    (1259, 179, 359)

scikit-learn defines no split. Ours is `splits.split_indices` of the position in the bundled order:
a fifth of every class is test, a tenth validation, chosen by hash. Test images are for the final
table only; settings are chosen on validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcon.data.splits import split_indices


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Maps pixel counts 0..16 to 0..255 by `(255 v + 8) // 16`: rounded, so both ends are reached.

    Example:
      >>> to_uint8(np.array([0, 1, 8, 16])).tolist()
      [0, 16, 128, 255]
    """
    return ((values.astype(np.int32) * 255 + 8) // 16).astype(np.uint8)


class JaxconDigits(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits, 8 x 8 x 1."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "1259 train, 179 validation, 359 test."}  # noqa: RUF012
    # Nothing is downloaded. Looking for checksums would need importlib_resources, which TFDS
    # uses without declaring it.
    url_infos = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits bundled with scikit-learn, 8 x 8 grey pixels.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "position": np.int64,  # in scikit-learn's order
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: Any, /) -> dict[str, Any]:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = to_uint8(np.asarray(pixels)).reshape(-1, 8, 8)
        parts = split_indices([str(position) for position in range(len(images))], labels)
        return {
            name: self._generate_examples(images, labels, positions)
            for name, positions in parts.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, positions: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        for position in positions.tolist():
            # TFDS encodes a PIL image with pillow, but an array with TensorFlow.
            image = Image.fromarray(images[position])
            yield position, {"image": image, "label": labels[position], "position": position}
