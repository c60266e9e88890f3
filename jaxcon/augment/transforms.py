"""Complete views: one recipe for drawings, one for photos."""

from collections.abc import Callable

import chex
import dm_pix
import jax
import jax.numpy as jnp
from jax import Array

from jaxcon.augment.colours import (
    colour_jitter,
    gaussian_noise,
    grayscale,
    random_blur,
    random_gain,
)
from jaxcon.augment.geometry import random_affine, random_resized_crop


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
    """Makes a view of a small grey drawing: warp, intensity, noise. No flip: a mirrored 2 is no 2.

    Example:
      >>> jax.jit(digits_transform)(jax.random.key(0), jnp.ones((8, 8, 1))).shape
      (8, 8, 1)

    Args:
      key: a PRNG key.
      image: float in [0, 1], dark background, `[height, width, channels]`.
      rotation: largest angle in radians, either way.
      scale: largest relative zoom of each axis, `0 <= scale < 1`.
      shear: largest horizontal shear, either way.
      translation: largest shift as a share of the side, either way.
      gain: largest relative change of the ink's intensity, either way.
      noise: standard deviation of Gaussian noise added to every pixel.

    Returns:
      An image of the same shape, float in [0, 1].
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
    """Makes SimCLR's view of a photo: resized crop, flip, jitter, grayscale; blur above 64 px.

    On images with one channel, brightness and contrast are the only colour operations. Photographs that
    are cropped as they are read take `photo_colours`.

    Example:
      >>> jax.jit(simclr_transform)(jax.random.key(0), jnp.ones((32, 32, 3))).shape
      (32, 32, 3)

    Args:
      key: a PRNG key.
      image: float in [0, 1], `[height, width, channels]` with 1 or 3 channels.
      area: range of the crop's share of the image, `0 < low <= high <= 1`.
      strength: strength of the colour jitter; the paper uses 0.5 for CIFAR-10, 1.0 for ImageNet.
      gray: probability of grayscale.

    Returns:
      An image of the same shape, float in [0, 1].

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
    """Transforms the image with the given probability, else returns it unchanged.

    Example:
      >>> maybe(jax.random.key(0), lambda key, x: x + 1, jnp.zeros(2), probability=1.0).tolist()
      [1.0, 1.0]

    Args:
      key: a PRNG key.
      transform: `(key, image, **settings) -> image` of the same shape.
      image: any shape.
      probability: in [0, 1].
      **settings: passed on to the transform.

    Returns:
      An image of the same shape.
    """
    key_coin, key_transform = jax.random.split(key)
    heads = jax.random.bernoulli(key_coin, probability)
    return jnp.where(heads, transform(key_transform, image, **settings), image)
