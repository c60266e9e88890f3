"""Anti-aliased shapes on textured grounds, the same pixels on every machine.

Coordinates only go through `+ - * /`, square roots and comparisons, which IEEE 754 rounds in one
way; sines would not do. Colours are blended in integers. Random numbers are raw words of Philox,
a stream that NumPy promises never to change.

    >>> draws = Draws(seed=0, stream=7)
    >>> image = background(draws, side=16, tone="dark", texture="striped")
    >>> paint(image, draws, shape="ring", colour="red", centre=(8.0, 8.0), radius=6.0)
    >>> image.shape, image.dtype
    ((16, 16, 3), dtype('int32'))
"""

from __future__ import annotations

import numpy as np

COLOURS = {
    "red": (214, 38, 40),
    "orange": (244, 140, 24),
    "yellow": (236, 222, 44),
    "green": (40, 158, 60),
    "cyan": (44, 204, 212),
    "blue": (30, 90, 216),
    "purple": (118, 40, 190),
    "pink": (248, 150, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
TONES = {"dark": 56, "light": 196}
TEXTURES = ("plain", "striped", "checkered")

# cos and sin of 0, 72, 144, 216 and 288 degrees; of 90, 210 and 330.
_FIVE = (
    (1.0, 0.30901699, -0.80901699, -0.80901699, 0.30901699),
    (0.0, 0.95105652, 0.58778525, -0.58778525, -0.95105652),
)
_THREE = ((0.0, -0.8660254, 0.8660254), (1.0, -0.5, -0.5))


class Draws:
    """Integers from the stream of Philox with key (seed, stream).

    Example:
      >>> Draws(seed=0, stream=1).integer(6) == Draws(seed=0, stream=1).integer(6)
      True
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._philox = np.random.Philox(key=np.array([seed, stream], np.uint64))

    def integer(self, limit: int) -> int:
        """Draws a number from 0 to `limit - 1`."""
        return int(self._philox.random_raw()) * limit >> 64

    def between(self, low: float, high: float) -> float:
        """Draws a number in [low, high), one of 2**16 at equal distances."""
        return low + (high - low) * (self.integer(2**16) / 2**16)

    def order(self, count: int) -> list[int]:
        """Returns the numbers below `count` in random order."""
        return np.argsort(self._philox.random_raw(count), kind="stable").tolist()

    def bytes(self, count: int) -> np.ndarray:
        """Draws uint8 `[count]`."""
        words = self._philox.random_raw(-(-count // 8))
        return words.astype("<u8").view(np.uint8)[:count]


def background(draws: Draws, *, side: int, tone: str, texture: str) -> np.ndarray:
    """Paints a ground of one tone, slightly tinted, with stripes or checks of random width and phase.

    Returns:
      int32 `[side, side, 3]`.
    """
    y, x = np.indices((side, side))
    period = 4 + draws.integer(4)
    y, x = y + draws.integer(2 * period), x + draws.integer(2 * period)
    slope = draws.integer(4)  # of stripes: across, down, and both diagonals
    line = (y, x, (x + y) * 2 // 3, (x - y + side) * 2 // 3)[slope]
    parity = {"plain": 0 * x, "striped": line // period, "checkered": x // period + y // period}
    contrast = 18 + draws.integer(10)
    level = TONES[tone] + draws.integer(25) - 12 + (parity[texture] % 2 * 2 - 1) * contrast // 2
    tint = np.array([draws.integer(25) - 12 for _ in range(3)])
    return (level[..., None] + tint).astype(np.int32)


def paint(
    image: np.ndarray,
    draws: Draws,
    *,
    shape: str,
    colour: str,
    centre: tuple[float, float],
    radius: float,
) -> None:
    """Draws one shape over `image`, turned by up to 10 degrees, its colour jittered.

    Args:
      image: int32 `[side, side, 3]`, changed in place.
      draws: random numbers for the turn and the jitter.
      shape: one of `SHAPES`.
      colour: one of `COLOURS`.
      centre: (x, y) in pixels from the top left corner.
      radius: about half the shape's width in pixels.
    """
    reach = 1.25 * radius + 2  # the farthest corner of any shape, and its soft edge
    left, top = (max(int(at - reach), 0) for at in centre)
    window = image[top : int(centre[1] + reach) + 1, left : int(centre[0] + reach) + 1]
    y, x = np.indices(window.shape[:2]) + 0.5
    x, y = x + left - centre[0], centre[1] - top - y  # upwards, as in the shapes' formulas
    t = draws.between(-0.09, 0.09)  # tangent of half the angle
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    distance = _distance(shape, x * cos + y * sin, y * cos - x * sin, radius)
    cover = np.floor(np.clip(0.5 - distance, 0, 1) * 256 + 0.5).astype(np.int32)[..., None]
    jitter = [draws.integer(37) - 18 for _ in range(3)]
    ink = np.array(COLOURS[colour], np.int32) + np.array(jitter, np.int32)
    window[:] = (window * (256 - cover) + ink * cover + 128) >> 8


def add_noise(image: np.ndarray, draws: Draws) -> np.ndarray:
    """Adds noise to `image`, bell-shaped with standard deviation 8, and clips it to uint8.

    The noise is the sum of four bytes, each with variance (256^2 - 1) / 12, divided by 18.
    """
    noise = draws.bytes(4 * image.size).reshape(4, *image.shape).astype(np.int32).sum(axis=0)
    return np.clip(image + (noise - 510) // 18, 0, 255).astype(np.uint8)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Computes pixels to the edge, negative inside; too few near corners, which softens them."""
    if shape == "circle":
        return np.sqrt(x * x + y * y) - radius
    if shape == "ring":
        return np.abs(np.sqrt(x * x + y * y) - 0.76 * radius) - 0.26 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius
    if shape == "cross":
        arms = np.maximum(np.abs(x), np.abs(y)) - radius
        return np.maximum(arms, np.minimum(np.abs(x), np.abs(y)) - 0.32 * radius)
    if shape == "triangle":
        return np.max([-(x * a + y * b) for a, b in zip(*_THREE, strict=True)], axis=0) - (
            0.6 * radius
        )
    # A pentagram is what at least four of its five lines leave inside.
    lines = np.sort([x * b - y * a for a, b in zip(*_FIVE, strict=True)], axis=0)
    return lines[-2] - 0.38 * radius
