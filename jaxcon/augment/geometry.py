"""Operations that move pixels: warps and crops."""

import functools
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxcon.augment._products import along_axes

Outside = Literal["black", "edge"]

_TRIES = 10  # as in torchvision, to find a crop that fits


def affine_warp(image: Array, matrix: Array, shift: Array, *, outside: Outside = "black") -> Array:
    """Warps the image: `out[p] = image[c + matrix (p - c) + shift]`, c the centre; bilinear.

    Example:
      >>> image = jnp.arange(4.0).reshape(2, 2, 1)
      >>> affine_warp(image, jnp.eye(2), jnp.array([0.0, 1.0]))[..., 0].tolist()
      [[1.0, 0.0], [3.0, 0.0]]

    Args:
      image: `[height, width, channels]`.
      matrix: `[2, 2]`, from offsets (row, column) in the output to offsets in the input.
      shift: `[2]`, (rows, columns) in pixels.
      outside: what to read beyond the image: "black", 0, or "edge", the nearest pixel.

    Returns:
      An image of the same shape.

    Raises:
      ValueError: if `outside` is neither of the two.
    """
    if outside not in get_args(Outside):
        raise ValueError(f"outside: expected 'black' or 'edge', got {outside!r:.80}")
    height, width = image.shape[:2]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    y, x = rows - centre[0], columns - centre[1]
    # Written out: a [2, 2] product per pixel would become a batched matmul, slow and, on some
    # accelerators, in reduced precision.
    source_y = matrix[0, 0] * y + matrix[0, 1] * x + centre[0] + shift[0]
    source_x = matrix[1, 0] * y + matrix[1, 1] * x + centre[1] + shift[1]
    if outside == "edge":
        source_y, source_x = jnp.clip(source_y, 0, height - 1), jnp.clip(source_x, 0, width - 1)
    return _sample(image, source_y, source_x)


def _sample(image: Array, y: Array, x: Array) -> Array:
    """Reads the image bilinearly at float coordinates [h, w]; 0 outside."""
    height, width, channels = image.shape
    # A border of zeros makes every neighbour of a clipped coordinate readable.
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    y, x = jnp.clip(y + 1, 0, height + 1), jnp.clip(x + 1, 0, width + 1)
    top = jnp.minimum(y.astype(jnp.int32), height)
    left = jnp.minimum(x.astype(jnp.int32), width)
    down, right = (y - top)[..., None], (x - left)[..., None]
    corner = top * (width + 2) + left
    upper = padded[corner] * (1 - right) + padded[corner + 1] * right
    lower = padded[corner + width + 2] * (1 - right) + padded[corner + width + 3] * right
    return upper * (1 - down) + lower * down


def random_affine(
    key: Array,
    image: Array,
    *,
    rotation: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    translation: float = 0.0,
    outside: Outside = "black",
) -> Array:
    """Rotates, zooms each axis, shears and shifts, each by a uniform amount up to its limit.

    Example:
      >>> random_affine(jax.random.key(0), jnp.ones((2, 2, 1)))[..., 0].tolist()
      [[1.0, 1.0], [1.0, 1.0]]

    Args:
      key: a PRNG key.
      image: `[height, width, channels]`.
      rotation: largest angle in radians, either way.
      scale: largest relative zoom of each axis, `0 <= scale < 1`.
      shear: largest horizontal shear, either way.
      translation: largest shift as a share of the side, either way.
      outside: as in `affine_warp`; "edge" leaves a light background light.

    Returns:
      An image of the same shape.
    """
    draw = jax.random.uniform(key, (6,), minval=-1.0, maxval=1.0)
    angle, slant = rotation * draw[0], shear * draw[1]
    zoom_y, zoom_x = 1 + scale * draw[2], 1 + scale * draw[3]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # rotation . shear . zoom
    matrix = jnp.array(
        [
            [zoom_y * (cos - slant * sin), -zoom_x * sin],
            [zoom_y * (sin + slant * cos), zoom_x * cos],
        ]
    )
    shift = translation * draw[4:] * jnp.array(image.shape[:2])
    warp = functools.partial(affine_warp, outside=outside)
    if all(isinstance(turn, int | float) and turn == 0 for turn in (rotation, shear)):
        along = functools.partial(_warp_along_axes, outside=outside)
        return jax.lax.platform_dependent(image, matrix, shift, tpu=along, default=warp)
    return warp(image, matrix, shift)


def _warp_along_axes(image: Array, matrix: Array, shift: Array, *, outside: Outside) -> Array:
    """Computes `affine_warp` by a diagonal matrix as two products: TPUs are slow in reading pixels."""
    weights = []
    for axis, side in enumerate(image.shape[:2]):
        centre, places = (side - 1) / 2, jnp.arange(side)
        source = matrix[axis, axis] * (places - centre) + centre + shift[axis]
        if outside == "edge":
            source = jnp.clip(source, 0, side - 1)
        weights.append(jnp.maximum(1 - jnp.abs(source[:, None] - places), 0))  # bilinear
    return along_axes(weights[0], weights[1], image)


def random_resized_crop(
    key: Array,
    image: Array,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Array:
    """Crops at random area and aspect, and resizes (bilinear, antialiased) to the image's own size.

    Takes the first of ten draws of area and aspect that fits into the image, as torchvision's
    `RandomResizedCrop` does; if none fits, the first draw with its aspect moved until it fits; if no
    aspect in the range fits, the largest centre crop with an aspect in the range. So every crop is
    within `ratio`, and within `area` whenever the image allows both. dm-pix only crops to fixed sizes,
    hence `jax.image`.

    Example:
      >>> jax.jit(random_resized_crop)(jax.random.key(0), jnp.ones((8, 8, 3))).shape
      (8, 8, 3)

    Args:
      key: a PRNG key.
      image: `[height, width, channels]`.
      area: range of the crop's share of the image, `0 < low <= high <= 1`.
      ratio: range of width / height, drawn uniformly in its logarithm.

    Returns:
      An image of the same shape.
    """
    corner, size = crop_box(key, image.shape[:2], area, ratio)
    side = jnp.array(image.shape[:2], jnp.float32)
    zoom = side / size
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), zoom, -corner * zoom, method="linear"
    )


def crop_box(
    key: Array, shape: tuple[int, ...], area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Array, Array]:
    """Returns the upper left corner and the size of a crop, (rows, columns) in pixels."""
    key_area, key_ratio, key_place = jax.random.split(key, 3)
    side = jnp.array(shape, jnp.float32)
    share = jax.random.uniform(key_area, (_TRIES,), minval=area[0], maxval=area[1])
    lowest, highest = math.log(ratio[0]), math.log(ratio[1])
    log_ratio = jax.random.uniform(key_ratio, (_TRIES,), minval=lowest, maxval=highest)

    def sized(share: Array, log_ratio: Array) -> Array:
        halves = jnp.stack([-log_ratio, log_ratio], axis=-1) / 2
        return jnp.sqrt(share * side[0] * side[1])[..., None] * jnp.exp(halves)

    drawn = sized(share, log_ratio)
    fits = jnp.all(drawn <= side, axis=1)
    # A share a of an image of aspect r fits with aspects from a r to r / a.
    own = math.log(shape[1] / shape[0])
    low = jnp.maximum(lowest, own + jnp.log(share[0]))
    high = jnp.minimum(highest, own - jnp.log(share[0]))
    moved = jnp.minimum(sized(share[0], jnp.clip(log_ratio[0], low, high)), side)
    excess = own - min(max(own, lowest), highest)  # of the image's aspect over the nearest admitted
    centred = side * jnp.array([math.exp(min(0.0, excess)), math.exp(min(0.0, -excess))])
    size = jnp.where(jnp.any(fits), drawn[jnp.argmax(fits)], jnp.where(low <= high, moved, centred))
    place = jnp.where(jnp.any(fits) | (low <= high), jax.random.uniform(key_place, (2,)), 0.5)
    return place * (side - size), size
