"""Views of every image of a batch, and pixels as floats."""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

Transform = Callable[[Array, Array], Array]

_SLACK = 1e-3  # how far rounding and resizing may stray outside [0, 1]


def one_view(
    key: Array, images: Array, *, transform: Transform, index: Array | None = None
) -> Array:
    """Makes a random view of every image: the first of those that `two_views` makes, at half the cost.

    Example:
      >>> images = jnp.full((2, 4, 4, 1), 255, jnp.uint8)
      >>> one_view(jax.random.key(0), images, transform=lambda key, image: image).shape
      (2, 4, 4, 1)

    Args:
      key: a PRNG key, a new one for each step.
      images: `[batch, height, width, channels]`, of a dtype that `to_float` takes.
      transform: `(key, image) -> image` on one float32 image `[height, width, channels]`.
      index: as for `two_views`.

    Returns:
      A float32 array with values in [0, 1], `[batch, ...]` with the transform's shape.

    Raises:
      ValueError: as `two_views` does.
    """
    return _views(key, images, transform, index, number=1)[0]


def two_views(
    key: Array, images: Array, *, transform: Transform, index: Array | None = None
) -> tuple[Array, Array]:
    """Makes two independent random views of every image.

    Row `i` draws from `split(fold_in(key, index[i]))`. Under `jax.shard_map` and `jax.pmap`
    each device numbers its own rows 0, 1, ...: there `index` must give their global positions. The same
    holds under a `jax.vmap` that stands for devices, where a missing `index` cannot be detected.

    Example:
      >>> images = jnp.full((2, 4, 4, 1), 255, jnp.uint8)
      >>> v1, v2 = two_views(jax.random.key(0), images, transform=lambda key, image: image)
      >>> float(v1.min()), float(v2.max())
      (1.0, 1.0)

    Args:
      key: a PRNG key, a new one for each step.
      images: `[batch, height, width, channels]`, of a dtype that `to_float` takes.
      transform: `(key, image) -> image` on one float32 image `[height, width, channels]`.
      index: int `[batch]`, the global position of each row; `arange(batch)` by default, but under
        a mapped axis `collectives.row_index(batch, axis_name)`.

    Returns:
      Two float32 arrays with values in [0, 1], `[batch, ...]` with the transform's shape.

    Raises:
      ValueError: if `index` is missing where every device would draw the same views, or if the images
        are not pixels.
    """
    views = _views(key, images, transform, index, number=2)
    return views[0], views[1]


def coloured(
    key: Array, crops: Array, *, transforms: Sequence[Transform], index: Array | None = None
) -> tuple[Array, ...]:
    """Makes the views of images that are already cropped: view `v` of row `i` from `crops[i, v]`.

    Draws are those of `two_views`: for each view its own part of `fold_in(key, index[i])`.

    Example:
      >>> crops = jnp.full((2, 2, 4, 4, 3), 255, jnp.uint8)
      >>> same, dark = lambda key, image: image, lambda key, image: 0 * image
      >>> v1, v2 = coloured(jax.random.key(0), crops, transforms=(same, dark))
      >>> float(v1.min()), float(v2.max())
      (1.0, 0.0)

    Args:
      key: a PRNG key, a new one for each step.
      crops: `[batch, views, height, width, channels]`, of a dtype that `to_float` takes.
      transforms: one for each view, on one float32 image `[height, width, channels]`; none should move
        pixels, as a crop does.
      index: as for `two_views`.

    Returns:
      For each view a float32 array with values in [0, 1], `[batch, ...]` with the transform's shape.

    Raises:
      ValueError: as `two_views` does, and if the crops are not as many as the transforms.
    """
    number = len(transforms)
    if jnp.ndim(crops) != 5 or crops.shape[1] != number:
        raise ValueError(
            f"crops: expected [batch, {number}, height, width, channels], one crop for each transform, "
            f"got {jnp.shape(crops)}; crop every image once for each of its views"
        )
    keys = _keys(key, crops.shape[0], index, number=number)
    with jax.named_scope("views"):  # their name in profiles
        pixels = to_float(crops)
        # Each by itself: on a TPU, to map over views as well costs a change of layout.
        return tuple(
            _finished(jax.vmap(transform)(keys[view], pixels[:, view]))
            for view, transform in enumerate(transforms)
        )


def _views(
    key: Array, images: Array, transform: Transform, index: Array | None, *, number: int
) -> Array:
    """The first views of every image, one or two of them, `[number, batch, ...]`."""
    chex.assert_rank(images, 4)
    keys = _keys(key, images.shape[0], index, number=number)
    with jax.named_scope("views"):
        pixels = to_float(images)
        return _finished(jax.vmap(jax.vmap(transform), in_axes=(0, None))(keys, pixels))


def _keys(key: Array, batch: int, index: Array | None, *, number: int) -> Array:
    """Keys of the first views of every row, `[number, batch]`."""
    axes = jax.sharding.get_abstract_mesh().manual_axes
    if index is None and axes:
        axis = next((axis for axis in axes if not axis.startswith("_")), "batch")
        raise ValueError(
            "views under shard_map or pmap: every device would draw the same views for its rows; "
            f"pass the global rows, index=jaxcon.collectives.row_index({batch}, {axis!r})"
        )
    index = jnp.arange(batch) if index is None else index
    chex.assert_shape(index, (batch,))
    with jax.named_scope("views"):
        rows = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
        # Of two, even where one is used: a view then does not depend on how many there are.
        split = jax.vmap(lambda row: jax.random.split(row, max(number, 2)), out_axes=1)
        return split(rows)[:number]


def _finished(views: Array) -> Array:
    return jnp.clip(views.astype(jnp.float32), 0.0, 1.0)


def to_float(images: Array) -> Array:
    """Converts pixels to float32 in [0, 1].

    uint8 is divided by 255, uint16 by 65,535, bool becomes 0 and 1, and floats are taken as they are.
    Other integers have no known scale: 255 is white in some int32 arrays and nearly black in others.

    Example:
      >>> to_float(jnp.array([0, 255], jnp.uint8)).tolist()
      [0.0, 1.0]

    Args:
      images: any shape, of the dtypes above, NumPy's or JAX's. Floats must lie in [0, 1]; this
        is checked outside of `jax.jit`, where the values are known.

    Returns:
      The same shape, float32.

    Raises:
      ValueError: for any other dtype, or floats that are not finite or lie outside [0, 1].
    """
    dtype = jnp.result_type(images)
    if dtype in (jnp.uint8, jnp.uint16):
        return images.astype(jnp.float32) / jnp.iinfo(dtype).max
    if not (dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.floating)):
        raise ValueError(
            f"images: expected uint8, uint16, bool, or floats in [0, 1], got {dtype}, whose scale is "
            "unknown; cast them, images.astype('uint8') of 0 to 255"
        )
    known = not isinstance(images, Tracer) and getattr(images, "is_fully_addressable", True)
    if dtype != jnp.bool_ and known and images.size:
        low, high = float(np.asarray(images).min()), float(np.asarray(images).max())
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            raise ValueError(
                f"images: expected floats in [0, 1], got {low:g} to {high:g}; divide by the largest "
                "possible value, or pass uint8"
            )
    return images.astype(jnp.float32)
