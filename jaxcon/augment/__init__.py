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

Photographs are cropped where they are read, at their full size; `coloured` maps what is left, one
transform a view, over batches of such crops (`jaxcon.augment.photographs`).
"""

from jaxcon.augment.batch import Transform, coloured, one_view, to_float, two_views
from jaxcon.augment.colours import (
    colour_jitter,
    gaussian_blur,
    gaussian_noise,
    grayscale,
    random_blur,
    random_gain,
    solarize,
)
from jaxcon.augment.geometry import Outside, affine_warp, random_affine, random_resized_crop
from jaxcon.augment.photographs import (
    BARLOW_TWINS_COLOURS,
    SIMCLR_COLOURS,
    jitter_colours,
    photo_colours,
)
from jaxcon.augment.transforms import digits_transform, maybe, simclr_transform

__all__ = [
    "BARLOW_TWINS_COLOURS",
    "SIMCLR_COLOURS",
    "Outside",
    "Transform",
    "affine_warp",
    "colour_jitter",
    "coloured",
    "digits_transform",
    "gaussian_blur",
    "gaussian_noise",
    "grayscale",
    "jitter_colours",
    "maybe",
    "one_view",
    "photo_colours",
    "random_affine",
    "random_blur",
    "random_gain",
    "random_resized_crop",
    "simclr_transform",
    "solarize",
    "to_float",
    "two_views",
]
