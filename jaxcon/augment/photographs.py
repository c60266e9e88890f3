"""Colours of photographs: jitter in a random order, grey, blur and solarization, in one pass.

Crop and flip are made where a photograph is read, at its full size; what is left changes pixels where
they are. `jaxcon.augment.coloured` maps it over the views of a batch:

    >>> from jaxcon.augment import coloured
    >>> crops = jnp.zeros((4, 2, 32, 32, 3), jnp.uint8)  # two of each photograph
    >>> views = jax.jit(partial(coloured, transforms=SIMCLR_COLOURS))
    >>> v1, v2 = views(jax.random.key(0), crops)
    >>> v1.shape
    (4, 32, 32, 3)

Brightness, contrast and saturation are blends, `f x + (1 - f) y` with black, the mean grey or the grey
of the pixel for y. The order is the image's own: there are three slots for blends before the turn of
the hue and three after it, and a slot that an image does not use keeps its pixels. So all 24 orders are
one program without branches. The mean for contrast, of the image as the operations before it leave it,
takes a pass of its own over the pixels.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcon.augment.colours import gaussian_blur, solarize

_GREY = (0.299, 0.587, 0.114)  # of red, green, blue, as in Rec. 601
# Of brightness, contrast, saturation and hue: what changes nothing, and the least that there is.
_NEUTRAL, _LEAST = np.array([1, 1, 1, 0], np.float32), np.array([0, 0, 0, -0.5], np.float32)
_NEVER = 2.0  # a threshold above all pixels

_Planes = tuple[Array, Array, Array]  # red, green, blue, each [height, width]


def photo_colours(
    key: Array,
    image: Array,
    *,
    strengths: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2),
    jitter: float = 0.8,
    gray: float = 0.2,
    blur: float = 0.5,
    sigma: tuple[float, float] = (0.1, 2.0),
    solar: float = 0.0,
) -> Array:
    """Jitters colours in a random order, removes them, blurs and solarizes, each with a probability.

    The defaults are SimCLR's for ImageNet. The kernel of the blur is a tenth of the image's side.

    Example:
      >>> mild = partial(photo_colours, strengths=(0.2, 0.2, 0.2, 0.05), blur=0.0)
      >>> jax.jit(mild)(jax.random.key(0), jnp.ones((32, 32, 3))).shape
      (32, 32, 3)

    Args:
      key: a PRNG key.
      image: in [0, 1], `[height, width, 3]`.
      strengths: how far the factors of brightness, contrast and saturation may lie from 1, though never
        below 0; and how far the hue may turn either way, at most 0.5.
      jitter: probability of these four, all or none.
      gray: probability of grayscale.
      blur: probability of a blur.
      sigma: range of its standard deviation in pixels, 0 or more.
      solar: probability of inverting all pixels of 0.5 or more.

    Returns:
      An image of the same shape, in [0, 1].

    Raises:
      ValueError: if the image does not have 3 channels.

    Reference:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020,
      appendix A; Grill et al., Bootstrap Your Own Latent, 2020, appendix B; Zbontar et al., Barlow
      Twins, 2021, section 2.2.
    """
    draws = jax.random.uniform(key, (13,))
    jittered, grayed, blurred, solarized = draws[:4] < np.array(
        [jitter, gray, blur, solar], np.float32
    )
    low = np.maximum(_NEUTRAL - np.array(strengths, np.float32), _LEAST)
    high = _NEUTRAL + np.array(strengths, np.float32)
    amounts = jnp.where(jittered, low + (high - low) * draws[4:8], _NEUTRAL)
    image = jitter_colours(image, amounts, _ranks(draws[8:12]))
    kept = jnp.where(grayed, 0.0, 1.0)
    image = jnp.stack(_blend(_planes(image), kept, 1 - kept, jnp.float32(0)), axis=-1)
    if blur:
        width = jnp.where(blurred, sigma[0] + (sigma[1] - sigma[0]) * draws[12], 0.0)
        image = gaussian_blur(image, width, reach=max(image.shape[:2]) // 20)
    if solar:
        image = solarize(image, threshold=jnp.where(solarized, 0.5, _NEVER))
    return jnp.clip(image, 0.0, 1.0)


# One transform for each view.
SIMCLR_COLOURS = (photo_colours, photo_colours)
_BYOL = partial(photo_colours, strengths=(0.4, 0.4, 0.2, 0.1))
BARLOW_TWINS_COLOURS = (partial(_BYOL, blur=1.0), partial(_BYOL, blur=0.1, solar=0.2))


def jitter_colours(image: Array, amounts: Array, places: Array) -> Array:
    """Changes brightness, contrast, saturation and hue by given amounts, in a given order.

    After each of the four, pixels are clipped to [0, 1].

    Example:
      >>> image = jnp.array([[[0.5, 0.2, 0.2]]])
      >>> darker, turned = [0.5, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1 / 3]
      >>> for amounts in (darker, turned):
      ...     changed = jitter_colours(image, jnp.array(amounts), jnp.arange(4))
      ...     print([f"{value:.2f}" for value in changed[0, 0]])
      ['0.25', '0.10', '0.10']
      ['0.20', '0.50', '0.20']

    Args:
      image: in [0, 1], `[height, width, 3]`.
      amounts: `[4]`, factors of brightness, contrast and saturation, 0 or more, and the turn of the
        hue, in [-0.5, 0.5].
      places: int `[4]`, where each of them stands in the order: a permutation of 0 to 3.

    Returns:
      An image of the same shape, in [0, 1].

    Raises:
      ValueError: if the image does not have 3 channels.

    Reference:
      torchvision's `adjust_brightness`, `adjust_contrast`, `adjust_saturation` and `adjust_hue`.
    """
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"colours of photographs: expected an image [height, width, 3], got {image.shape}; repeat "
            "the only channel of grey images, jnp.repeat(images, 3, axis=-1)"
        )
    zero = jnp.zeros_like(amounts[0])
    brightness = _Blend(places[0], amounts[0], zero, zero)
    saturation = _Blend(places[2], amounts[2], 1 - amounts[2], zero)
    hue = _Turn(places[3], amounts[3])
    before = _in_order(_planes(image), (brightness, saturation), hue, end=places[1])
    mean = jnp.mean(_grey(before))
    contrast = _Blend(places[1], amounts[1], zero, (1 - amounts[1]) * mean)
    changed = _in_order(_planes(image), (brightness, contrast, saturation), hue, end=4)
    return jnp.stack(changed, axis=-1)


class _Blend(NamedTuple):
    """`colour x + gray grey(x) + shift`, clipped, at a place in the order."""

    place: Array
    colour: Array
    gray: Array
    shift: Array


class _Turn(NamedTuple):
    """The hue turned by so many circles, at a place in the order."""

    place: Array
    circles: Array


def _in_order(
    planes: _Planes, blends: tuple[_Blend, ...], hue: _Turn, *, end: Array | int
) -> _Planes:
    """Applies what stands before `end`: blends before the hue, the hue, blends after it."""
    places = jnp.stack([blend.place for blend in blends])
    colour, gray, shift = (jnp.stack(parts) for parts in list(zip(*blends, strict=True))[1:])
    slots = _ranks(places) == np.arange(len(blends))[:, None]  # (slot, blend)
    early = slots & (places < hue.place) & (places < end)
    late = slots & (places > hue.place) & (places < end)
    for stage in (early, late):
        free = 1.0 - jnp.sum(stage, axis=1)  # nothing is in this slot
        weights = (
            jnp.sum(stage * colour, axis=1) + free,
            jnp.sum(stage * gray, axis=1),
            jnp.sum(stage * shift, axis=1),
        )
        for slot in zip(*weights, strict=True):
            planes = _blend(planes, *slot)
        if stage is early:
            planes = _turn(planes, jnp.where(hue.place < end, hue.circles, 0.0))
    return planes


def _ranks(values: Array) -> Array:
    """Where each value stands among them all; of equal ones the first comes first."""
    first = np.tri(len(values), k=-1, dtype=bool)
    below = (values < values[:, None]) | ((values == values[:, None]) & first)
    return jnp.sum(below, axis=1)


def _planes(image: Array) -> _Planes:
    return image[..., 0], image[..., 1], image[..., 2]


def _grey(planes: _Planes) -> Array:
    return _GREY[0] * planes[0] + _GREY[1] * planes[1] + _GREY[2] * planes[2]


def _blend(planes: _Planes, colour: Array, gray: Array, shift: Array) -> _Planes:
    common = gray * _grey(planes) + shift
    red, green, blue = (jnp.clip(colour * plane + common, 0.0, 1.0) for plane in planes)
    return red, green, blue


def _turn(planes: _Planes, circles: Array) -> _Planes:
    """Turns the hue, with the largest and the smallest channel of each pixel as they are.

    At `h` sixths of a circle from red, in [-3, 3), a channel `d` sixths away is the largest up to
    d = 1, the smallest from d = 2 on, and linear between: the hexagon of HSV without its six cases.
    """
    red, green, blue = planes
    most = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = most - jnp.minimum(jnp.minimum(red, green), blue)
    is_red, is_green = most == red, most == green
    over = jnp.where(is_red, green - blue, jnp.where(is_green, blue - red, red - green))
    sixth = jnp.where(is_red, 0.0, jnp.where(is_green, 2.0, 4.0))
    h = sixth + over / jnp.where(chroma > 0, chroma, 1.0) + 6 * circles
    h = h - 6 * jnp.floor(h / 6 + 0.5)
    less_red = jnp.abs(h) - 1
    less_green, less_blue = 2 - jnp.abs(h + 1), 2 - jnp.abs(h - 1)
    red, green, blue = (
        most - chroma * jnp.clip(less, 0.0, 1.0) for less in (less_red, less_green, less_blue)
    )
    return red, green, blue
