"""The learnable temperature: its start, its bounds, and its way back from a bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.encoders import Temperature


def at(value, **settings):
    """The module and its variables with the parameter moved to ``value``."""
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


@pytest.mark.parametrize("value", [1e-4, 0.3, 50.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_gradient_passes_unless_descent_would_lead_further_out(value, sign):
    module, variables = at(value, minimum=0.01, maximum=2.0)
    gradient = jax.grad(lambda v: sign * jnp.asarray(module.apply(v)))(variables)
    inside = min(max(value, 0.01), 2.0)
    outwards = (value < 0.01 and sign > 0) or (value > 2.0 and sign < 0)
    expected = 0.0 if outwards else sign * inside  # d exp(x) = exp(x) dx
    np.testing.assert_allclose(jax.tree.leaves(gradient)[0], expected, rtol=1e-6)


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
