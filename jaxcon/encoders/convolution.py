"""A convolution whose gradients are fast on CPUs; on other platforms it is XLA's own.

XLA (jaxlib 0.10.2) hands convolutions to YNNPACK on CPUs, which is made for windows of a few places.
The gradient by the kernel is a convolution too, whose window is the whole map: 2 to 10 times as slow as
the forward pass, which does as much arithmetic. Written as patches times matrix it is as fast, if only
a few images' patches are there at a time: those of a whole batch are kernel height * kernel width times
the input, and would come from memory that is fresh, not from the cache.

`forms_of` is the rule which form is taken where, and what each line of it rests on. The platform is the
one that the program is lowered for; programs for others hold no trace of this.

    >>> import jax, jax.numpy as jnp
    >>> conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5)), (1, 1), "SAME").shape
    (1, 4, 4, 5)
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcon.collectives import explicit_mesh, to_varying, varying_axes

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Rows of patches at a time, best of 512 to 8,192: the cache is to hold them.
_ROWS = 512
# 7x7 is the largest kernel in use; each row and column of one makes the program longer.
_MOST_PLACES = 49

Form = Literal["xla", "patches", "whole"]
Pair = tuple[int, int]


class Forms(NamedTuple):
    """How each part of a convolution is computed on a CPU.

    "xla" is XLA's convolution and what JAX derives of it; "patches" are patches times matrix, a few
    images at a time; "whole" are those of all images, for kernels of one place.

    Attributes:
      value: the output.
      by_input: the derivative by the input, forward and transposed.
      by_kernel: the derivative by the kernel, forward and transposed.
    """

    value: Form
    by_input: Form
    by_kernel: Form


def forms_of(input_shape: Sequence[int], kernel_shape: Sequence[int], output: Pair) -> Forms:
    """Which forms a CPU takes.

    Milliseconds of XLA / the form taken, float32, one core of an AMD EPYC with AVX2 (no AVX-512), least
    of many; in bfloat16, float16 and float64 the order is the same:

      - Kernels larger than the map: 512 maps of 2x2x64 to 128, value 85 / 5, by the input 45 / 4.
        YNNPACK refuses them, and what takes them instead is slow.
      - Kernels of one place, by the input: 16 maps of 56x56x64 to 256 65 / 23; 64x32x32x32 to 64 6 / 4.
        By the kernel 665 / 52 and 163 / 9.
      - Other kernels of up to 7x7, by the kernel: 64x32x32x64 to 64 750 / 75, 64x16x16x128 to 128
        196 / 69, 64x8x8x256 to 256 117 / 65, 256x4x4x512 to 512 420 / 351, 64x32x32x64 to 128 at stride
        2 140 / 38, 8x224x224x3 to 64, 7x7 at stride 2, 294 / 57.
      - Outputs of fewer than 4x4 places: by the kernel 512x2x2x128 to 128 8 / 10, so XLA's.

    Example:
      >>> forms_of((64, 32, 32, 64), (3, 3, 64, 64), (32, 32))
      Forms(value='xla', by_input='xla', by_kernel='patches')
      >>> forms_of((64, 2, 2, 64), (3, 3, 64, 64), (2, 2)).value
      'patches'

    Args:
      input_shape: `[batch, height, width, channels]`.
      kernel_shape: `[height, width, channels, features]`.
      output: height and width of the output.

    Returns:
      The form of each part.
    """
    kernel, places = kernel_shape[:2], output[0] * output[1]
    if not places or kernel[0] * kernel[1] > _MOST_PLACES:
        return Forms("xla", "xla", "xla")
    if any(size > side for size, side in zip(kernel, input_shape[1:3], strict=True)):
        return Forms("patches", "patches", "patches")
    if tuple(kernel) == (1, 1):
        return Forms("xla", "whole", "patches")
    return Forms("xla", "xla", "patches" if places >= 16 else "xla")


def conv(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Sequence[Pair],
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = _LAYOUT,
    feature_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """`lax.conv_general_dilated`, with derivatives of any order and mode that are fast on CPUs.

    Takes the place of it in `flax.linen.Conv(conv_general_dilated=conv)`. Values are those of XLA up to
    rounding. Dilated and grouped ones, other layouts, and arrays sharded over Explicit mesh axes are
    XLA's own on CPUs too.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> layer = nn.Conv(5, (3, 3), conv_general_dilated=conv)
      >>> jax.jit(layer.init_with_output)(jax.random.key(0), jnp.ones((1, 4, 4, 2)))[0].shape
      (1, 4, 4, 5)

    Args:
      x: float, `[batch, height, width, channels]`.
      kernel: `[height, width, channels, features]`, of the dtype of x.
      strides: one for each of height and width.
      padding: rows before and after for each of height and width, or a word that lax knows.
      lhs_dilation: of the input.
      rhs_dilation: of the kernel.
      dimension_numbers: the layout; fast is that of `nn.Conv`, as described here.
      feature_group_count: groups of channels.
      precision: of the products.

    Returns:
      `[batch, height, width, features]`, the dtype of x.
    """
    layout = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
    plain = feature_group_count == 1 and x.ndim == 4 and jnp.issubdtype(x.dtype, jnp.floating)
    plain &= x.dtype == kernel.dtype and x.shape[-1] == kernel.shape[-2]
    plain &= explicit_mesh(x) is None and explicit_mesh(kernel) is None
    plain &= all(d == 1 for d in itertools.chain(lhs_dilation or (), rhs_dilation or ()))
    if not plain or layout != lax.conv_dimension_numbers(x.shape, kernel.shape, _LAYOUT):
        return lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            precision=precision,
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    rows, columns = ((int(before), int(after)) for before, after in padding)
    return _conv(x, kernel, _Window(tuple(strides), (rows, columns), precision))


class _Window(NamedTuple):
    strides: tuple[int, ...]
    padding: tuple[Pair, Pair]
    precision: Any

    def output(self, x: Array, kernel: Array) -> Pair:
        """Height and width of the output."""
        height, width = (
            max(0, (side + sum(pads) - size) // stride + 1)
            for side, pads, size, stride in zip(
                x.shape[1:3], self.padding, kernel.shape[:2], self.strides, strict=True
            )
        )
        return height, width


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _conv(x: Array, kernel: Array, window: _Window) -> Array:
    forms = forms_of(x.shape, kernel.shape, window.output(x, kernel))
    return _in_form(forms.value, x, kernel, window)


@partial(_conv.defjvp, symbolic_zeros=True)
def _conv_jvp(window: _Window, primals: Any, tangents: Any) -> Any:
    # Linear in each tangent: JAX transposes these forms, and the transposed ones are the gradients.
    (x, kernel), (dx, dkernel) = primals, tangents
    forms = forms_of(x.shape, kernel.shape, window.output(x, kernel))
    value = _conv(x, kernel, window)
    terms = []
    if not isinstance(dx, jax.custom_derivatives.SymbolicZero):
        terms.append(_in_form(forms.by_input, dx, kernel, window))
    if not isinstance(dkernel, jax.custom_derivatives.SymbolicZero):
        terms.append(_in_form(forms.by_kernel, x, dkernel, window))
    return value, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(value)


def _in_form(form: Form, x: Array, kernel: Array, window: _Window) -> Array:
    if form == "xla":
        return _by_xla(x, kernel, window)
    # What waits for the gradient is x, whatever the platform: branches would each keep what is theirs.
    choose = partial(
        lax.platform_dependent,
        cpu=partial(_by_patches if form == "patches" else _of_one_place, window=window),
        default=partial(_by_xla, window=window),
    )
    return jax.checkpoint(choose, prevent_cse=False)(x, kernel)


def _by_xla(x: Array, kernel: Array, window: _Window) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        dimension_numbers=_LAYOUT,
        precision=window.precision,
    )


def _of_one_place(x: Array, kernel: Array, window: _Window) -> Array:
    rows = _patches(x, kernel, window)
    product = lax.dot_general(
        rows, kernel[0, 0], (((3,), (0,)), ((), ())), precision=window.precision
    )
    return product.astype(x.dtype)


def _by_patches(x: Array, kernel: Array, window: _Window) -> Array:
    batch, *side, channels = x.shape
    height, width = window.output(x, kernel)
    features = kernel.shape[3]
    wide = jnp.promote_types(x.dtype, jnp.float32)  # the gradient is a sum over all of the batch
    # Of the device from here on: else each turn of the loop would sum its gradient over devices.
    kernel = to_varying(kernel, varying_axes(x) - varying_axes(kernel))
    # With the features first, for the gradient then comes out of a product that Eigen does 1.4 times
    # faster than its mirror image.
    matrix = kernel.reshape(-1, features).T.astype(wide)

    # Patches are made anew for the gradient: kept, they were kernel height * kernel width inputs.
    @partial(jax.checkpoint, prevent_cse=False)
    def some(images: Array, matrix: Array) -> Array:
        images = images.reshape(-1, *side, channels)
        rows = _patches(images, kernel, window).reshape(-1, matrix.shape[1]).astype(wide)
        product = lax.dot_general(
            rows, matrix, (((1,), (1,)), ((), ())), precision=window.precision
        )
        return product.astype(x.dtype)

    images = max(1, min(batch, _ROWS // (height * width)))
    whole = batch // images * images
    # An axis of length 1 for the images of a turn would make XLA copy input and gradient.
    turns = x[:whole].reshape(whole // images, images * side[0], side[1], channels)
    out = lax.map(lambda turn: some(turn, matrix), turns).reshape(whole, height, width, features)
    if whole == batch:
        return out
    rest = some(x[whole:], matrix).reshape(batch - whole, height, width, features)
    return jnp.concatenate([out, rest])


def _patches(x: Array, kernel: Array, window: _Window) -> Array:
    """What each output place sees, `[batch, height, width, places of the kernel * channels]`."""
    (down, right), output = window.strides, window.output(x, kernel)
    padding = [(0, 0, 0), *((*pads, 0) for pads in window.padding), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), padding)
    last = [(side - 1) * stride + 1 for side, stride in zip(output, window.strides, strict=True)]
    # First along the width, then along the height: half the kernels for the compiler.
    columns = [lax.slice_in_dim(x, j, j + last[1], right, axis=2) for j in range(kernel.shape[1])]
    x = lax.concatenate(columns, 3)
    rows = [lax.slice_in_dim(x, i, i + last[0], down, axis=1) for i in range(kernel.shape[0])]
    return lax.concatenate(rows, 3)
