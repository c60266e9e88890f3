"""Operations that change pixels where they are: intensity, noise, colour, blur."""

import math

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcon.augment._products import along_axes

_WIDE = 4.0  # standard deviations to which a blur reaches: 0.9995 of one is left of its width


def random_gain(key: Array, image: Array, *, strength: float) -> Array:
    """Multiplies the image by a factor uniform in `[1 - strength, 1 + strength]`.

    Example:
      >>> a, b = random_gain(jax.random.key(0), jnp.array([1.0, 2.0]), strength=0.5)
      >>> bool(0.5 <= a <= 1.5), bool(b == 2 * a)  # one factor for all pixels
      (True, True)

    Args:
      key: a PRNG key.
      image: any shape.
      strength: in [0, 1].

    Returns:
      An image of the same shape.
    """
    return image * jax.random.uniform(key, minval=1 - strength, maxval=1 + strength)


def gaussian_noise(key: Array, image: Array, *, std: float) -> Array:
    """Adds independent Gaussian noise to every pixel.

    Example:
      >>> noisy = gaussian_noise(jax.random.key(0), jnp.zeros((100, 100)), std=0.1)
      >>> round(float(noisy.std()), 2)
      0.1

    Args:
      key: a PRNG key.
      image: any shape.
      std: the noise's standard deviation.

    Returns:
      An image of the same shape.
    """
    return image + std * jax.random.normal(key, image.shape)


def colour_jitter(key: Array, image: Array, *, strength: float) -> Array:
    """Jitters brightness, contrast, saturation and hue, in this order, each by a uniform amount.

    Factors lie within 0.8 `strength` of 1; the hue turns by at most 0.2 `strength`.

    Example:
      >>> jitter = jax.jit(colour_jitter, static_argnames="strength")
      >>> jitter(jax.random.key(0), jnp.ones((2, 2, 3)), strength=0.5).shape
      (2, 2, 3)

    Args:
      key: a PRNG key.
      image: in [0, 1], `[height, width, channels]`; only the first two act unless it has 3 channels.
      strength: in [0, 1.25].

    Returns:
      An image of the same shape, in [0, 1].

    Reference:
      Chen et al. 2020, appendix A (their code also draws the order at random).
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
    """Removes the image's colours but keeps its channels; the key is not used.

    Example:
      >>> red = jnp.array([[[1.0, 0.0, 0.0]]])
      >>> [f"{value:.3f}" for value in grayscale(jax.random.key(0), red)[0, 0]]
      ['0.299', '0.299', '0.299']

    Args:
      key: ignored; present so that this is a transform like the others.
      image: `[height, width, 3]`.

    Returns:
      An image of the same shape.
    """
    del key
    return jnp.asarray(dm_pix.rgb_to_grayscale(image, keep_dims=True))


def random_blur(key: Array, image: Array, *, sigma: tuple[float, float] = (0.1, 2.0)) -> Array:
    """Blurs with a Gaussian of uniform width in `sigma`; the image is mirrored beyond its edge.

    The kernel reaches four times the largest `sigma` on images of any shape, so the blur really has the
    width that was drawn.

    Example:
      >>> blurred = jax.jit(random_blur)(jax.random.key(0), jnp.ones((80, 20, 3)))
      >>> bool(jnp.allclose(blurred, 1.0))
      True

    Args:
      key: a PRNG key.
      image: `[height, width, channels]`.
      sigma: range of the standard deviation in pixels, 0 or more; 0 blurs nothing.

    Returns:
      An image of the same shape.
    """
    width = jax.random.uniform(key, minval=sigma[0], maxval=sigma[1])
    return gaussian_blur(image, width, reach=math.ceil(_WIDE * sigma[1]))


def gaussian_blur(image: Array, sigma: Array | float, *, reach: int) -> Array:
    """Blurs with a Gaussian that ends at `reach` pixels; the image is mirrored beyond its edge.

    torchvision's `gaussian_blur` with a kernel of `2 reach + 1` pixels.

    Example:
      >>> blurred = gaussian_blur(jnp.zeros((5, 5, 1)).at[2, 2].set(1.0), 0.5, reach=1)
      >>> [f"{value:.3f}" for value in blurred[2, :, 0]]
      ['0.000', '0.084', '0.619', '0.084', '0.000']

    Args:
      image: `[height, width, channels]`.
      sigma: standard deviation in pixels, 0 or more; 0 blurs nothing.
      reach: pixels of the kernel on either side of its centre.

    Returns:
      An image of the same shape.
    """
    offsets = jnp.arange(-reach, reach + 1)
    kernel = jax.nn.softmax(
        -0.5 * (offsets / jnp.maximum(sigma, 1e-6)) ** 2
    )  # 0 / 0 at a width of 0
    return jax.lax.platform_dependent(image, kernel, tpu=_by_products, default=_by_shifts)


def solarize(image: Array, *, threshold: Array | float = 0.5) -> Array:
    """Inverts the pixels that are as light as the threshold, or lighter.

    Example:
      >>> [f"{value:.1f}" for value in solarize(jnp.array([0.0, 0.4, 0.5, 0.9, 1.0]))]
      ['0.0', '0.4', '0.5', '0.1', '0.0']

    Args:
      image: in [0, 1], any shape; each channel is inverted for itself.
      threshold: in [0, 1]; above 1 nothing is inverted.

    Returns:
      An image of the same shape, in [0, 1].

    Reference:
      torchvision's `solarize`, Pillow's `ImageOps.solarize`.
    """
    return jnp.where(image >= threshold, 1 - image, image)


def _by_shifts(image: Array, kernel: Array) -> Array:
    """Blurs by shifted sums: under vmap a convolution would have as many kernels as images."""
    reach = len(kernel) // 2
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = jnp.pad(image, padding, mode="reflect")
        shifts = [
            jax.lax.slice_in_dim(padded, i, i + image.shape[axis], axis=axis)
            for i in range(2 * reach + 1)
        ]
        image = jnp.asarray(sum(k * x for k, x in zip(kernel, shifts, strict=True)))
    return image


def _by_products(image: Array, kernel: Array) -> Array:
    """Blurs by a matrix for each axis, ten times the arithmetic: TPUs are slow in shifting lanes."""
    rows, columns = (_blurring(kernel, side) for side in image.shape[:2])
    return along_axes(rows, columns, image)


def _blurring(kernel: Array, side: int) -> Array:
    """The matrix `[side, side]` that blurs a column of pixels, mirrored beyond its ends."""
    reach = len(kernel) // 2
    mirrored = np.pad(np.arange(side), reach, mode="reflect")  # which pixel is read where
    reads = (mirrored[i : i + side, None] == jnp.arange(side) for i in range(len(kernel)))
    return jnp.asarray(sum(k * read for k, read in zip(kernel, reads, strict=True)))
