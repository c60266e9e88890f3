"""`conv` is `lax.conv_general_dilated`: values, all derivatives, programs of other platforms."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxcon.encoders.convolution import conv, forms_of
from jaxcon.planning.memory import memory_of

LAYOUT = ("NHWC", "HWIO", "NHWC")
XLA = partial(lax.conv_general_dilated, dimension_numbers=LAYOUT)
ONE = ((1, 1), (1, 1))
# x, kernel, strides, padding: every line of the rule, even and odd maps, a rest of the batch.
CASES = {
    "3x3": ((3, 8, 8, 2), (3, 3, 2, 3), (1, 1), ONE),
    "a rest": ((5, 16, 16, 2), (3, 3, 2, 3), (1, 1), ONE),
    "stride 2": ((3, 9, 8, 2), (3, 3, 2, 3), (2, 2), ONE),
    "uneven": ((2, 11, 8, 2), (5, 3, 2, 3), (2, 1), ((0, 3), (2, -1))),
    "same": ((2, 9, 8, 2), (3, 3, 2, 3), (2, 2), "SAME"),
    "7x7": ((2, 16, 15, 3), (7, 7, 3, 2), (2, 2), ((3, 3), (3, 3))),
    "1x1": ((3, 5, 6, 2), (1, 1, 2, 3), (1, 1), "VALID"),
    "1x1, stride 2": ((3, 7, 6, 2), (1, 1, 2, 3), (2, 2), "VALID"),
    "map below the kernel": ((300, 2, 1, 2), (3, 3, 2, 3), (1, 1), ONE),
    "few places": ((3, 3, 3, 2), (3, 3, 2, 3), (1, 1), ONE),
    "no image": ((0, 8, 8, 2), (3, 3, 2, 3), (1, 1), ONE),
    "no place": ((2, 2, 8, 2), (3, 3, 2, 3), (1, 1), "VALID"),
}
each = pytest.mark.parametrize("case", CASES)


def arrays(case, dtype=np.float64):
    shape, kernel, strides, padding = CASES[case]
    rng = np.random.default_rng(0)
    x, w, dx, dw = (rng.normal(size=s).astype(dtype) for s in (shape, kernel, shape, kernel))
    return (x, w), (dx, dw), (strides, padding)


def everything(convolution, window, primals, tangents):
    """The value, both directional derivatives, the gradient, and second derivatives of all modes."""

    def energy(x, w):
        y = convolution(x, w, *window)
        return jnp.sum(y**2 * jnp.cos(y))

    gradient = jax.grad(energy, (0, 1))

    def along(x, w):
        return jax.tree.map(jnp.vdot, gradient(x, w), tangents)

    value, forward = jax.jvp(lambda x, w: convolution(x, w, *window), primals, tangents)
    return {
        "value": value,
        "plain value": convolution(*primals, *window),
        "forward": forward,
        "gradient": gradient(*primals),
        "kernel alone": jax.grad(energy, 1)(*primals),
        "forward over reverse": jax.jvp(gradient, primals, tangents)[1],
        "reverse over forward": jax.grad(lambda x, w: jax.jvp(energy, (x, w), tangents)[1], (0, 1))(
            *primals
        ),
        "reverse over reverse": jax.grad(lambda x, w: sum(along(x, w)), (0, 1))(*primals),
    }


def assert_close(found, expected, tolerance):
    def compare(path, a, b):
        assert a.shape == b.shape, path
        assert a.dtype == b.dtype, path
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        scale = max(1.0, np.abs(b).max(initial=0.0))
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, err_msg=str(path))

    jax.tree_util.tree_map_with_path(compare, found, expected)


@each
def test_values_and_derivatives_of_two_orders_are_those_of_xla(case):
    with jax.enable_x64(True):
        primals, tangents, window = arrays(case)
        found, expected = (
            jax.jit(partial(everything, convolution, window))(primals, tangents)
            for convolution in (conv, XLA)
        )
    assert_close(found, expected, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.bfloat16, 0.02), (jnp.float16, 2e-3), (np.float32, 1e-5)]
)
@pytest.mark.parametrize("case", ["a rest", "map below the kernel"])
def test_narrow_dtypes_sum_the_kernels_gradient_in_float32(case, dtype, tolerance):
    primals, _, window = arrays(case, np.float32)
    primals = jax.tree.map(lambda a: jnp.asarray(a, dtype), primals)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), primals)

    def gradient(convolution, primals):
        return jax.grad(lambda p: jnp.sum(convolution(*p, *window).astype(jnp.float32) * 0.5))(
            primals
        )

    found = jax.jit(partial(gradient, conv))(primals)
    assert {leaf.dtype for leaf in found} == {jnp.dtype(dtype)}
    expected = jax.jit(partial(gradient, XLA))(wide)
    assert_close([leaf.astype(jnp.float32) for leaf in found], list(expected), tolerance)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_it_is_mapped_over_kernels_and_images(axes):
    (x, w), _, window = arrays("3x3", np.float32)
    x, w = (np.stack([a, 2 * a]) if axis == 0 else a for a, axis in zip((x, w), axes, strict=True))

    def gradients(convolution, x, w):
        one = jax.grad(lambda x, w: jnp.sum(convolution(x, w, *window) ** 3), (0, 1))
        return jax.vmap(one, axes)(x, w)

    found, expected = (jax.jit(partial(gradients, c))(x, w) for c in (conv, XLA))
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("case", ["3x3", "1x1", "map below the kernel"])
def test_devices_sum_their_kernels_gradients_once(case):
    (x, w), _, window = arrays(case, np.float32)
    x = np.concatenate([x, x + 1, x - 1, 2 * x])
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def gradient(x, w):
        return jax.grad(lambda w: jnp.sum(conv(x, w, *window) ** 2))(w)

    mapped = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P()))
    assert_close(mapped(x, w), jax.jit(gradient)(x, w), 1e-5)
    bodies = mapped.lower(x, w).as_text().split("stablehlo.while")
    assert sum(body.count("all_reduce") for body in bodies) == 1


def step(convolution, window, x, w):
    return jax.grad(lambda x, w: jnp.sum(convolution(x, w, *window) ** 2), (0, 1))(x, w)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
@pytest.mark.parametrize("case", ["3x3", "map below the kernel"])
def test_arrays_may_be_sharded_without_shard_map(case, kind):
    (x, w), _, window = arrays(case, np.float32)
    x = np.concatenate([x, x + 1, x - 1, 2 * x])
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(kind,))
    expected = jax.jit(partial(step, conv, window))(x, w)
    placed = (jax.device_put(a, NamedSharding(mesh, p)) for a, p in ((x, P("batch")), (w, P())))
    with jax.set_mesh(mesh):
        found = jax.jit(partial(step, conv, window))(*placed)
    assert_close(found, expected, 1e-5)


@each
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_other_platforms_see_xlas_own_program(case, platform):
    primals, _, window = arrays(case, np.float32)
    program, own = (
        export.export(jax.jit(partial(step, c, window)), platforms=[platform])(*primals)
        for c in (conv, XLA)
    )
    operations = ("convolution", "dot_general", "while", "concatenate", "slice", "pad")
    for operation in operations:
        count = own.mlir_module().count(f"stablehlo.{operation}")
        assert program.mlir_module().count(f"stablehlo.{operation}") == count, operation


def test_one_program_serves_several_platforms():
    primals, _, window = arrays("3x3", np.float32)
    program = export.export(jax.jit(partial(step, conv, window)), platforms=["cpu", "tpu"])(
        *primals
    )
    assert_close(program.call(*primals), jax.jit(partial(step, XLA, window))(*primals), 1e-5)


def test_the_kernels_gradient_takes_patches_of_a_few_images_at_a_time():
    shape, kernel = (64, 16, 16, 32), (3, 3, 32, 32)
    window = ((1, 1), ONE)
    arguments = [jax.ShapeDtypeStruct(s, np.float32) for s in (shape, kernel)]
    ours, xlas = (
        jax.jit(partial(step, c, window)).lower(*arguments).compile() for c in (conv, XLA)
    )
    patches = 9 * 4 * np.prod(shape)
    assert memory_of(ours).temporaries < memory_of(xlas).temporaries + patches / 8
    assert "while" in ours.as_text()
    assert "conditional" not in ours.as_text()
    # The loop's body counts once: what is left is the value and the gradient by the input.
    assert ours.cost_analysis()["flops"] < 1.05 * xlas.cost_analysis()["flops"]


@pytest.mark.parametrize(
    "options",
    [
        {"feature_group_count": 2},
        {"rhs_dilation": (2, 2)},
        {"lhs_dilation": (2, 1)},
        {"dimension_numbers": ("NWHC", "HWIO", "NHWC")},
    ],
)
def test_what_the_rule_does_not_know_is_xlas(options):
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    groups = options.get("feature_group_count", 1)
    w = np.random.default_rng(1).normal(size=(3, 3, 2 // groups, 4)).astype(np.float32)
    expected = lax.conv_general_dilated(
        x, w, (1, 1), ONE, **{"dimension_numbers": LAYOUT, **options}
    )
    np.testing.assert_array_equal(conv(x, w, (1, 1), ONE, **options), expected)


def test_shapes_that_do_not_fit_are_lax_to_name():
    with pytest.raises(ValueError, match="feature"):
        conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 3, 5)), (1, 1), ONE)


def test_it_is_the_convolution_of_a_flax_layer():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    layers = [
        nn.Conv(4, (3, 3), strides=2, padding=1, conv_general_dilated=c)
        for c in (conv, lax.conv_general_dilated)
    ]
    variables = jax.jit(layers[0].init)(jax.random.key(0), x)
    ours, theirs = (jax.jit(layer.apply)(variables, x) for layer in layers)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "forms"),
    [
        ("3x3", ("xla", "xla", "patches")),
        ("1x1", ("xla", "whole", "patches")),
        ("map below the kernel", ("patches", "patches", "patches")),
        ("few places", ("xla", "xla", "xla")),
        ("no place", ("xla", "xla", "xla")),
    ],
)
def test_the_rule(case, forms):
    (x, w), _, (strides, padding) = arrays(case)
    output = jax.eval_shape(lambda x, w: XLA(x, w, strides, padding), x, w).shape[1:3]
    assert forms_of(x.shape, w.shape, output) == forms
