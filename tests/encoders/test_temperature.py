"""The learnable temperature: its start, its bounds, and its way back from a bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.encoders import Temperature


def at(value, **settings):
    """The module and its variables with the parameter moved to `value`."""
    module = Temperature(**settings)
    variables = module.init(jax.random.key(0))
    return module, jax.tree.map(lambda _: jnp.log(value), variables)


def test_starts_at_its_initial_value():
    module = Temperature(initial=0.2)
    variables = module.init(jax.random.key(0))
    np.testing.assert_allclose(module.apply(variables), 0.2, rtol=1e-6)
    assert jax.tree.leaves(variables)[0].shape == ()


@pytest.mark.parametrize(("value", "expected"), [(1e-4, 0.01), (0.3, 0.3), (50.0, 2.0)])
def test_stays_within_its_bounds(value, expected):
    module, variables = at(value, minimum=0.01, maximum=2.0)
    np.testing.assert_allclose(module.apply(variables), expected, rtol=1e-6)


@pytest.mark.parametrize("value", [1e-4, 0.01, 0.3, 2.0, 50.0])
@pytest.mark.parametrize("slope", [1.0, -2.5])
def test_its_derivative_is_that_of_the_exponential_at_the_bound(value, slope):
    module, variables = at(value, minimum=0.01, maximum=2.0)

    def scaled(v):
        return slope * jnp.asarray(module.apply(v))

    expected = slope * min(max(value, 0.01), 2.0)  # d exp(x) = exp(x) dx
    gradient = jax.grad(scaled)(variables)
    ones = jax.tree.map(jnp.ones_like, variables)
    np.testing.assert_allclose(jax.tree.leaves(gradient)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(scaled, (variables,), (ones,))[1], expected, rtol=1e-6)


@pytest.mark.parametrize("value", [0.01, 2.0])
def test_gradients_add_up_at_a_bound(value):
    """Of two losses that pull in opposite directions, and of devices that each see one of them."""
    module, variables = at(value, minimum=0.01, maximum=2.0)
    slopes = jnp.array([3.0, -3.5, 1.0, -0.5, 2.0, -2.0, 0.25, 0.0])

    def loss(v, slope):
        return slope * jnp.asarray(module.apply(v)) ** 2

    whole = jax.grad(lambda v: jnp.mean(jax.vmap(lambda s: loss(v, s))(slopes)))(variables)
    parts = [jax.grad(loss)(variables, s) for s in slopes]
    together = jax.tree.map(lambda *g: sum(g) / len(g), *parts)

    def local(v, slope):
        return jax.lax.pmean(jax.grad(loss)(v, slope), "batch")

    mapped = jax.pmap(local, axis_name="batch", in_axes=(None, 0))(variables, slopes)
    expected = np.mean(slopes) * 2 * value**2  # d (s e^{2 x}) = 2 s e^{2 x}
    for got in (whole, together, jax.tree.map(lambda g: g[0], mapped)):
        np.testing.assert_allclose(jax.tree.leaves(got)[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"initial": 0.0},
        {"initial": 0.001},
        {"initial": 20.0},
        {"minimum": -1.0},
        {"initial": float("nan")},
    ],
)
def test_refuses_a_start_outside_the_bounds(settings):
    with pytest.raises(ValueError, match="minimum <= initial <= maximum"):
        Temperature(**settings).init(jax.random.key(0))
