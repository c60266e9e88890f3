"""Random views of images, made on the device inside the jitted training step.

A transform is a pure function of one key and one image, ``transform(key, image) -> image``;
``two_views`` maps it over a batch. Every row draws from its own key, ``fold_in(key, index)``, so
the views of an example do not depend on which device it sits on or on who shares its batch.

    >>> from functools import partial
    >>> import jax, jax.numpy as jnp
    >>> views = jax.jit(partial(two_views, transform=digits_transform))
    >>> v1, v2 = views(jax.random.key(0), jnp.zeros((4, 8, 8, 1), jnp.uint8))
    >>> v1.shape, v1.dtype
    ((4, 8, 8, 1), dtype('float32'))

Settings are keyword arguments with defaults; ``functools.partial`` changes them:

    >>> mild = partial(digits_transform, rotation=0.1, noise=0.0)
    >>> v1, v2 = two_views(jax.random.key(0), jnp.zeros((4, 8, 8, 1)), transform=mild)
    >>> float(v1.max())
    0.0
"""

from collections.abc import Callable

import chex
import dm_pix
import jax
import jax.numpy as jnp
from jax import Array

Transform = Callable[[Array, Array], Array]


def two_views(
    key: Array, images: Array, *, transform: Transform, index: Array | None = None
) -> tuple[Array, Array]:
    """Two independent random views of every image.

    Row ``i`` draws from ``split(fold_in(key, index[i]))``.

    Example:
        >>> images = jnp.full((2, 4, 4, 1), 255, jnp.uint8)
        >>> v1, v2 = two_views(jax.random.key(0), images, transform=lambda key, image: image)
        >>> float(v1.min()), float(v2.max())
        (1.0, 1.0)

    Args:
        key: a PRNG key, one a step.
        images: uint8, or floating with values in [0, 1]; ``[batch, height, width, channels]``.
        transform: ``(key, image) -> image`` on one float32 image ``[height, width, channels]``.
        index: int ``[batch]``, the global position of each row; ``arange(batch)`` by default.

    Returns:
        Two float32 arrays with values in [0, 1], ``[batch, ...]`` with the transform's shape.
    """
    chex.assert_rank(images, 4)
    batch = images.shape[0]
    index = jnp.arange(batch) if index is None else index
    chex.assert_shape(index, (batch,))
    rows = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
    keys = jax.vmap(jax.random.split, out_axes=1)(rows)  # (2, batch)
    pixels = to_float(images)
    views = jax.vmap(jax.vmap(transform), in_axes=(0, None))(keys, pixels)
    views = jnp.clip(views.astype(jnp.float32), 0.0, 1.0)
    return views[0], views[1]


def to_float(images: Array) -> Array:
    """Pixels as float32 in [0, 1]: integers are divided by their type's maximum.

    Example:
        >>> to_float(jnp.array([0, 255], jnp.uint8)).tolist()
        [0.0, 1.0]

    Args:
        images: any shape; integer over the type's full range, or floating in [0, 1].

    Returns:
        The same shape, float32.
    """
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(jnp.float32) / jnp.iinfo(images.dtype).max
    return images.astype(jnp.float32)


def digits_transform(
    key: Array,
    image: Array,
    *,
    rotation: float = 0.35,
    scale: float = 0.25,
    shear: float = 0.3,
    translation: float = 0.12,
    gain: float = 0.3,
    noise: float = 0.1,
) -> Array:
    """A view of a small grey drawing: affine warp, intensity, noise. No flip: 2 is not its mirror.

    Example:
        >>> jax.jit(digits_transform)(jax.random.key(0), jnp.ones((8, 8, 1))).shape
        (8, 8, 1)

    Args:
        key: a PRNG key.
        image: float in [0, 1], dark background, ``[height, width, channels]``.
        rotation: largest angle in radians, either way.
        scale: largest relative zoom of each axis, ``0 <= scale < 1``.
        shear: largest horizontal shear, either way.
        translation: largest shift as a share of the side, either way.
        gain: largest relative change of the ink's intensity, either way.
        noise: standard deviation of Gaussian noise added to every pixel.

    Returns:
        The image's shape, float in [0, 1].
    """
    key_warp, key_gain, key_noise = jax.random.split(key, 3)
    image = random_affine(
        key_warp, image, rotation=rotation, scale=scale, shear=shear, translation=translation
    )
    image = random_gain(key_gain, image, strength=gain)
    return jnp.clip(gaussian_noise(key_noise, image, std=noise), 0.0, 1.0)


def simclr_transform(
    key: Array,
    image: Array,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    strength: float = 0.5,
    gray: float = 0.2,
) -> Array:
    """SimCLR's view of a photo: resized crop, flip, colour jitter, grayscale; blur above 64 px.

    Images with one channel skip the colour operations but brightness and contrast.

    Example:
        >>> jax.jit(simclr_transform)(jax.random.key(0), jnp.ones((32, 32, 3))).shape
        (32, 32, 3)

    Args:
        key: a PRNG key.
        image: float in [0, 1], ``[height, width, channels]`` with 1 or 3 channels.
        area: range of the crop's share of the image, ``0 < low <= high <= 1``.
        strength: of the colour jitter; the paper takes 0.5 for CIFAR-10, 1.0 for ImageNet.
        gray: probability of grayscale.

    Returns:
        The image's shape, float in [0, 1].

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
        appendix A.
    """
    chex.assert_rank(image, 3)
    crop, flip, jitter, pale, blur = jax.random.split(key, 5)
    image = random_resized_crop(crop, image, area=area)
    image = jnp.asarray(dm_pix.random_flip_left_right(flip, image))
    image = maybe(jitter, colour_jitter, image, probability=0.8, strength=strength)
    if image.shape[-1] == 3:
        image = maybe(pale, grayscale, image, probability=gray)
    if max(image.shape[:2]) > 64:
        image = maybe(blur, random_blur, image, probability=0.5)
    return jnp.clip(image, 0.0, 1.0)


def maybe(
    key: Array, transform: Callable[..., Array], image: Array, *, probability: float, **settings
) -> Array:
    """The transformed image with the given probability, else the image itself.

    Example:
        >>> maybe(jax.random.key(0), lambda key, x: x + 1, jnp.zeros(2), probability=1.0).tolist()
        [1.0, 1.0]

    Args:
        key: a PRNG key.
        transform: ``(key, image, **settings) -> image`` of the same shape.
        image: any shape.
        probability: in [0, 1].
        **settings: handed to the transform.

    Returns:
        The image's shape.
    """
    key_coin, key_transform = jax.random.split(key)
    heads = jax.random.bernoulli(key_coin, probability)
    return jnp.where(heads, transform(key_transform, image, **settings), image)


def affine_warp(image: Array, matrix: Array, shift: Array) -> Array:
    """Pulls ``out[p] = image[c + matrix (p - c) + shift]``, c the centre; bilinear, 0 outside.

    Example:
        >>> image = jnp.arange(4.0).reshape(2, 2, 1)
        >>> affine_warp(image, jnp.eye(2), jnp.array([0.0, 1.0]))[..., 0].tolist()
        [[1.0, 0.0], [3.0, 0.0]]

    Args:
        image: ``[height, width, channels]``.
        matrix: ``[2, 2]``, from offsets (row, column) in the output to offsets in the input.
        shift: ``[2]``, (rows, columns) in pixels.

    Returns:
        The image's shape.
    """
    height, width = image.shape[:2]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    y, x = rows - centre[0], columns - centre[1]
    # Written out: a [2, 2] product per pixel would become a batched matmul, slow and, on some
    # accelerators, in reduced precision.
    source_y = matrix[0, 0] * y + matrix[0, 1] * x + centre[0] + shift[0]
    source_x = matrix[1, 0] * y + matrix[1, 1] * x + centre[1] + shift[1]
    return _sample(image, source_y, source_x)


def _sample(image: Array, y: Array, x: Array) -> Array:
    """Bilinear values of the image at float coordinates [h, w]; 0 outside."""
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
) -> Array:
    """Rotates, zooms each axis, shears and shifts, each by a uniform amount up to its limit.

    Example:
        >>> random_affine(jax.random.key(0), jnp.ones((2, 2, 1)))[..., 0].tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    Args:
        key: a PRNG key.
        image: ``[height, width, channels]``.
        rotation: largest angle in radians, either way.
        scale: largest relative zoom of each axis, ``0 <= scale < 1``.
        shear: largest horizontal shear, either way.
        translation: largest shift as a share of the side, either way.

    Returns:
        The image's shape.
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
    return affine_warp(image, matrix, shift)


def random_gain(key: Array, image: Array, *, strength: float) -> Array:
    """Multiplies the image by a factor, uniform in ``[1 - strength, 1 + strength]``.

    Example:
        >>> random_gain(jax.random.key(0), jnp.ones(2), strength=0.0).tolist()
        [1.0, 1.0]

    Args:
        key: a PRNG key.
        image: any shape.
        strength: in [0, 1].

    Returns:
        The image's shape.
    """
    return image * jax.random.uniform(key, minval=1 - strength, maxval=1 + strength)


def gaussian_noise(key: Array, image: Array, *, std: float) -> Array:
    """Adds independent Gaussian noise to every pixel.

    Example:
        >>> gaussian_noise(jax.random.key(0), jnp.ones(2), std=0.0).tolist()
        [1.0, 1.0]

    Args:
        key: a PRNG key.
        image: any shape.
        std: the noise's standard deviation.

    Returns:
        The image's shape.
    """
    return image + std * jax.random.normal(key, image.shape)


def random_resized_crop(
    key: Array,
    image: Array,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Array:
    """A crop of random area and aspect, resized (bilinear, antialiased) to the image's own size.

    dm-pix crops to fixed sizes only, hence ``jax.image``. A crop that would stick out is cut to
    the image's side, where other implementations draw again: their loop has no place under vmap.

    Example:
        >>> jax.jit(random_resized_crop)(jax.random.key(0), jnp.ones((8, 8, 3))).shape
        (8, 8, 3)

    Args:
        key: a PRNG key.
        image: ``[height, width, channels]``.
        area: range of the crop's share of the image, ``0 < low <= high <= 1``.
        ratio: range of width / height, drawn uniformly in its logarithm.

    Returns:
        The image's shape.
    """
    key_area, key_ratio, key_place = jax.random.split(key, 3)
    side = jnp.array(image.shape[:2], jnp.float32)
    share = jax.random.uniform(key_area, minval=area[0], maxval=area[1]) * side[0] * side[1]
    log_ratio = jnp.log(jnp.array(ratio, jnp.float32))
    half_log = jax.random.uniform(key_ratio, minval=log_ratio[0], maxval=log_ratio[1]) / 2
    size = jnp.sqrt(share) * jnp.exp(jnp.array([-half_log, half_log]))  # (height, width)
    size = jnp.minimum(size, side)
    corner = jax.random.uniform(key_place, (2,)) * (side - size)
    zoom = side / size
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), zoom, -corner * zoom, method="linear"
    )


def colour_jitter(key: Array, image: Array, *, strength: float) -> Array:
    """Brightness, contrast, saturation, hue, in this order, each by a uniform amount.

    Factors lie within 0.8 ``strength`` of 1, the hue turns by at most 0.2 ``strength``.

    Example:
        >>> colour_jitter(jax.random.key(0), jnp.ones((2, 2, 3)), strength=0.5).shape
        (2, 2, 3)

    Args:
        key: a PRNG key.
        image: in [0, 1], ``[height, width, channels]``; without 3 channels only the first two act.
        strength: in [0, 1.25].

    Returns:
        The image's shape, in [0, 1].

    Reference:
        Chen et al. 2020, appendix A (there the order is random).
    """
    bright, contrast, saturation, hue = jax.random.split(key, 4)
    low, high = 1 - 0.8 * strength, 1 + 0.8 * strength
    image = jnp.clip(random_gain(bright, image, strength=0.8 * strength), 0.0, 1.0)
    image = jnp.clip(dm_pix.random_contrast(contrast, image, low, high), 0.0, 1.0)
    if image.shape[-1] == 3:
        image = jnp.clip(dm_pix.random_saturation(saturation, image, low, high), 0.0, 1.0)
        image = jnp.asarray(dm_pix.random_hue(hue, image, 0.2 * strength))
    return jnp.clip(image, 0.0, 1.0)


def grayscale(key: Array, image: Array) -> Array:
    """The image without its colours, channels kept; the key goes unused.

    Example:
        >>> grayscale(jax.random.key(0), jnp.ones((2, 2, 3))).shape
        (2, 2, 3)

    Args:
        key: ignored; here so that this is a transform like the others.
        image: ``[height, width, 3]``.

    Returns:
        The image's shape.
    """
    del key
    return jnp.asarray(dm_pix.rgb_to_grayscale(image, keep_dims=True))


def random_blur(key: Array, image: Array, *, sigma: tuple[float, float] = (0.1, 2.0)) -> Array:
    """Gaussian blur, its width uniform in ``sigma`` pixels, its kernel a tenth of the height.

    Example:
        >>> random_blur(jax.random.key(0), jnp.ones((80, 80, 3))).shape
        (80, 80, 3)

    Args:
        key: a PRNG key.
        image: ``[height, width, channels]``.
        sigma: range of the standard deviation in pixels.

    Returns:
        The image's shape.
    """
    width = jax.random.uniform(key, minval=sigma[0], maxval=sigma[1])
    return jnp.asarray(dm_pix.gaussian_blur(image, width, image.shape[0] / 10))
