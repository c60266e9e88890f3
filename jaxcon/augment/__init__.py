"""Random views of images, made on the device inside the jitted training step.

A transform is a pure function of one key and one image, `transform(key, image) -> image`;
`two_views` maps it over a batch. Every row draws from its own key, `fold_in(key, index)`, so
the views of an example do not depend on which device holds it or what else is in its batch.

    >>> from functools import partial
    >>> import jax, jax.numpy as jnp
    >>> views = jax.jit(partial(two_views, transform=digits_transform))
    >>> v1, v2 = views(jax.random.key(0), jnp.zeros((4, 8, 8, 1), jnp.uint8))
    >>> v1.shape, v1.dtype
    ((4, 8, 8, 1), dtype('float32'))

Settings are keyword arguments with defaults; `functools.partial` changes them:

    >>> mild = partial(digits_transform, rotation=0.1, noise=0.0)
    >>> views = jax.jit(partial(two_views, transform=mild))
    >>> v1, v2 = views(jax.random.key(0), jnp.zeros((4, 8, 8, 1)))
    >>> float(v1.max())
    0.0
"""

from jaxcon.augment.batch import Transform, one_view, to_float, two_views
from jaxcon.augment.colours import (
    colour_jitter,
    gaussian_noise,
    grayscale,
    random_blur,
    random_gain,
)
from jaxcon.augment.geometry import Outside, affine_warp, random_affine, random_resized_crop
from jaxcon.augment.transforms import digits_transform, maybe, simclr_transform

__all__ = [
    "Outside",
    "Transform",
    "affine_warp",
    "colour_jitter",
    "digits_transform",
    "gaussian_noise",
    "grayscale",
    "maybe",
    "one_view",
    "random_affine",
    "random_blur",
    "random_gain",
    "random_resized_crop",
    "simclr_transform",
    "to_float",
    "two_views",
]
