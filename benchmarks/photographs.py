"""Pictures that are like photographs: the two that scikit-learn ships, cut, resized, with texture.

Real ones cannot be bundled; these have the edges and the colours of one and, as a photograph has at any
size, detail down to single pixels, whose spectrum falls with the frequency.
"""

import functools
import io

import numpy as np
from PIL import Image

TEXTURE = 8.0  # of 255, standard deviation


def jpeg(width: int, height: int, seed: int, *, quality: int = 90) -> bytes:
    """Returns a JPEG of this size; 500 x 375 pixels take about 67 kB.

    Args:
      width: in pixels.
      height: in pixels.
      seed: another picture for another seed.
      quality: of the JPEG.
    """
    content = io.BytesIO()
    Image.fromarray(pixels(width, height, seed)).save(content, "JPEG", quality=quality)
    return content.getvalue()


def pixels(width: int, height: int, seed: int) -> np.ndarray:
    """Returns the picture before it is encoded: uint8 `[height, width, 3]`."""
    rng = np.random.default_rng(seed)
    photo = _photos()[seed % 2]
    zoom = rng.uniform(0.7, 1.0)
    wide = int(zoom * min(photo.shape[1], photo.shape[0] * width / height))
    tall = max(1, min(photo.shape[0], int(wide * height / width)))
    left = rng.integers(0, photo.shape[1] - wide + 1)
    top = rng.integers(0, photo.shape[0] - tall + 1)
    part = Image.fromarray(photo[top : top + tall, left : left + wide])
    resized = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return (
        (resized + TEXTURE * _texture(width, height, rng)[..., None]).clip(0, 255).astype(np.uint8)
    )


@functools.cache
def _photos() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def _texture(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Returns noise of deviation 1 whose amplitude falls with the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    noise = np.fft.irfft2(spectrum / frequency, s=(height, width))
    return noise / max(noise.std(), 1e-12)
