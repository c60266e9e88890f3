"""Norms keep their digits where the mean is large beside the deviation, on any number of devices."""

import ast
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxcon.encoders.layers import BatchNorm, LayerNorm
from tests.encoders.modules import MODULES

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
OFFSETS = [(10.0, 0.01), (100.0, 1.0), (300.0, 0.1), (0.0, 1.0)]


def normalized(x, axis):
    """By its formula, in float64."""
    x = np.float64(x)
    variance = np.mean((x - x.mean(axis, keepdims=True)) ** 2, axis, keepdims=True)
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(variance + EPSILON[axis])


EPSILON = {(0, 1): 1e-5, (1,): 1e-6}  # of BatchNorm over images, of Flax's LayerNorm


def batch_norm(x, variables, axis_name=None):
    module = BatchNorm(axis_name=axis_name)
    return module.apply(variables, x, train=True, mutable=["batch_stats"])


@pytest.mark.parametrize(("mean", "deviation"), OFFSETS)
def test_batch_norm_by_its_formula(mean, deviation):
    x = np.float32(mean + deviation * RNG.normal(size=(64, 4, 8)))
    variables = BatchNorm().init(jax.random.key(0), x, train=False)

    @jax.jit
    def apply(x):
        return batch_norm(x, variables)

    got, updated = apply(x)
    # A mean of `mean` is known to one rounding of it, which the deviation divides.
    rounding = 4 * np.finfo(np.float32).eps * mean / deviation
    np.testing.assert_allclose(got, normalized(x, (0, 1)), rtol=1e-4, atol=1e-5 + rounding)
    variance = updated["batch_stats"]["BatchNorm_0"]["var"]
    np.testing.assert_allclose(variance, 0.9 + 0.1 * np.float64(x).var((0, 1)), rtol=1e-5)


def test_running_averages_are_of_the_biased_variance():
    """As Flax's: divided by n. PyTorch's divides by n - 1: for two values that is twice as much."""
    x = np.float32([[0.0], [4.0]])
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    _, updated = batch_norm(x, variables)
    biased = ((0 - 2) ** 2 + (4 - 2) ** 2) / 2
    statistics = updated["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["var"], [0.9 * 1 + 0.1 * biased], rtol=1e-6)
    np.testing.assert_allclose(statistics["mean"], [0.1 * 2], rtol=1e-6)


def test_batch_norm_of_bfloat16_takes_its_statistics_in_float32():
    x = jnp.asarray(3 + RNG.normal(size=(64, 4, 8)), jnp.bfloat16)
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    module = BatchNorm(dtype=jnp.bfloat16)
    got, _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
    assert got.dtype == jnp.bfloat16
    # The rounding of the result alone: 2^-9 of it.
    np.testing.assert_allclose(
        np.float32(got), normalized(np.float32(x), (0, 1)), rtol=2**-8, atol=2**-9
    )


@pytest.mark.parametrize(("mean", "deviation"), [(200.0, 4.0), (-30.0, 0.5), (0.0, 1.0)])
def test_batch_norm_of_bfloat16_keeps_what_its_bits_hold(mean, deviation):
    """From the first step on, when the running mean is 0, and later, when it is near."""
    x = jnp.asarray(mean + deviation * RNG.normal(size=(64, 8, 8)), jnp.bfloat16)
    expected = normalized(np.float32(x), (0, 1))
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    apply = jax.jit(partial(BatchNorm(dtype=jnp.bfloat16).apply, train=True, mutable="batch_stats"))
    for _ in range(40):
        got, updated = apply(variables, x)
        np.testing.assert_allclose(np.float32(got), expected, rtol=2**-7, atol=2**-8)
        variables = {**variables, **updated}
    statistics = variables["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(statistics["mean"], np.float64(x).mean((0, 1)), rtol=0.03, atol=1e-4)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_batch_norm_is_that_of_flax(dtype, train):
    """Values, updated statistics and gradients, by the same variables."""
    x = jnp.asarray(3 + RNG.normal(size=(32, 4, 8)), dtype)
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    variables = jax.tree.map(lambda p: p + 0.1 * RNG.random(p.shape, np.float32), variables)
    weights = np.float32(RNG.normal(size=x.shape))
    flax = nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False, dtype=dtype)
    inner = {name: tree["BatchNorm_0"] for name, tree in variables.items()}

    def grads(apply, variables):
        def value(params, x):
            y, updated = apply({**variables, "params": params}, x)
            return jnp.sum(weights * y.astype(jnp.float32) ** 2), (y, updated)

        return jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))(variables["params"], x)

    module = BatchNorm(dtype=dtype)
    ours = grads(partial(module.apply, train=train, mutable=["batch_stats"]), variables)
    theirs = grads(partial(flax.apply, mutable=["batch_stats"]), inner)
    tolerance = 1e-4 if dtype == jnp.float32 else 2**-6
    assert jax.tree.structure(ours[0][0]["BatchNorm_0"]) == jax.tree.structure(theirs[0][0])
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.float64(a), np.float64(b)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("dtype", "forward"), [(jnp.float32, 2), (jnp.bfloat16, 1)])
def test_batch_norm_takes_few_reductions_between_devices(dtype, forward):
    """Of the statistics one, of exact ones two, of all gradients of a layer one."""
    x = jnp.zeros((8, 4, 4), dtype)
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    module = BatchNorm(axis_name="batch", dtype=dtype)

    def value(params, x):
        variables_ = {**variables, "params": params}
        y, _ = module.apply(variables_, x, train=True, mutable=["batch_stats"])
        return jax.lax.pmean(jnp.sum(jnp.sin(y.astype(jnp.float32))), "batch")

    def reductions(function):
        mapped = jax.shard_map(function, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P())
        text = jax.jit(mapped).lower(variables["params"], x).as_text()
        return text.count("stablehlo.all_reduce") - 1  # that of the value

    assert reductions(value) == forward
    assert reductions(jax.value_and_grad(value)) == forward + 1


def test_derivatives_of_batch_norm_do_not_depend_on_the_running_mean():
    """It is a constant of the formula that cancels: of first and second derivatives, in any mode."""
    x = jnp.asarray(RNG.normal(size=(6, 2)), jnp.bfloat16)
    variables = BatchNorm().init(jax.random.key(0), x, train=False)

    def value(x, mean):
        statistics = {"BatchNorm_0": {"mean": mean, "var": jnp.ones(2)}}
        y, _ = BatchNorm().apply(
            {**variables, "batch_stats": statistics},
            x.astype(jnp.bfloat16),
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(jnp.arange(12.0).reshape(6, 2) * y**2)

    wide, tangent = x.astype(jnp.float32), np.float32(RNG.normal(size=x.shape))
    for derivative in (
        lambda mean: jax.grad(value)(wide, mean),
        lambda mean: jax.jvp(lambda x: value(x, mean), (wide,), (tangent,))[1],
        lambda mean: jax.jvp(lambda x: jax.grad(value)(x, mean), (wide,), (tangent,))[1],
    ):
        near, far = (np.float32(derivative(jnp.full(2, mean))) for mean in (0.1, 1.5))
        np.testing.assert_allclose(near, far, rtol=0.05, atol=0.05 * np.abs(near).max())


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_batch_norm_of_the_global_batch_on_devices(devices):
    x = np.float32(300 + 0.1 * RNG.normal(size=(16, 2, 8)))
    x[:8] += 0.5  # devices whose means differ by several deviations
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    weights = np.float32(RNG.normal(size=x.shape))

    def value(x, weights, axis_name):
        y, updated = batch_norm(x, variables, axis_name)
        return jnp.sum(weights * y**2), (y, updated)

    def step(axis_name):
        return jax.value_and_grad(lambda *a: value(*a, axis_name), has_aux=True)

    (_, (expected, statistics)), _ = jax.jit(step(None))(x, weights)
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    mapped = jax.shard_map(
        lambda x, w: value(x, w, "batch")[1],
        mesh=mesh,
        in_specs=P("batch"),
        out_specs=(P("batch"), P()),
    )
    got, on_devices = jax.jit(mapped)(x, weights)
    np.testing.assert_allclose(got, expected, atol=2e-3)  # a rounding of 300, over 0.3
    np.testing.assert_allclose(got, normalized(x, (0, 1)), atol=2e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), on_devices, statistics)


@pytest.mark.parametrize(("mean", "deviation"), OFFSETS)
def test_layer_norm_by_its_formula(mean, deviation):
    x = np.float32(mean + deviation * RNG.normal(size=(16, 64)))
    got, _ = LayerNorm().init_with_output(jax.random.key(0), x)
    rounding = 4 * np.finfo(np.float32).eps * mean / deviation
    np.testing.assert_allclose(got, normalized(x, (1,)), rtol=1e-4, atol=1e-5 + rounding)


@pytest.mark.parametrize("name", MODULES)
def test_every_norm_that_is_called_takes_differences_from_the_mean(name):
    """Of every encoder, head and side, those inside of Flax's layers too."""
    module, inputs = MODULES[name]
    called = []

    def see(call, args, keywords, context):
        if isinstance(context.module, BatchNorm) or hasattr(context.module, "use_fast_variance"):
            called.append(context.module)
        return call(*args, **keywords)

    with nn.intercept_methods(see):
        jax.eval_shape(partial(module.init, train=False), jax.random.key(0), inputs)
    assert called
    assert not [norm for norm in called if getattr(norm, "use_fast_variance", False)]


def norms_of_flax(source):
    """Names of Flax's norms in a file, however they were imported."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flax"):
            names += [alias.name for alias in node.names]
    return {name for name in names if name.endswith("Norm") and hasattr(nn, name)}


def test_no_file_but_one_makes_norms_of_flax():
    """All others take those of `layers`, which keep their digits."""
    files = [f for folder in ("jaxcon", "experiments") for f in (ROOT / folder).rglob("*.py")]
    found = {str(f.relative_to(ROOT)): norms_of_flax(f.read_text("utf-8")) for f in files}
    assert {name for name, norms in found.items() if norms} == {"jaxcon/encoders/layers.py"}
    assert norms_of_flax("from flax.linen import LayerNorm") == {"LayerNorm"}
    assert norms_of_flax("import flax.linen as nn\nnn.GroupNorm(4)") == {"GroupNorm"}
