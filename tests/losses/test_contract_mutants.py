"""The comparison over devices can fail: each classic mistake, put into the code, is caught by it."""

import jax
import numpy as np
import pytest
from jax import lax

from jaxcon import collectives
from jaxcon.losses import softmax
from tests.losses.calls import attribute, gap
from tests.losses.cases import CASES
from tests.losses.devices import alone, forget, spread

DEVICES = 8


@pytest.fixture(autouse=True)
def _compiled_anew():
    forget()
    yield
    forget()


def case_of(name):
    return next(case for case in CASES if case.id == name)


def error(name, mode="vmap", average=lax.pmean):
    """Largest relative difference from one device, of value and of the encoder's gradient."""
    case = case_of(name)
    inputs, rows = case.inputs(seed=41), case.rows(seed=41)
    expected = alone(case, inputs, rows, np.float64)
    got = spread(case, mode, DEVICES, inputs, rows, np.float64, average)
    return gap(got.value, expected.value), gap(got.encoder, expected.encoder)


def test_the_right_code_passes():
    assert max(error("ntxent_loss")) < 1e-12
    assert max(error("barlow_twins_loss")) < 1e-12


@pytest.mark.parametrize("mode", ["vmap", "shard_map unchecked"])
def test_psum_in_place_of_pmean_is_caught(mode):
    _, gradient = error("ntxent_loss", mode, average=lax.psum)
    assert gradient == pytest.approx(DEVICES - 1)  # too large by a factor of 8


def test_a_missing_gradient_average_is_caught():
    # Devices then disagree, and a replicated parameter would drift apart.
    with pytest.raises(AssertionError, match="Arrays are not equal"):
        error("ntxent_loss", average=lambda grads, axis_name: grads)


def test_detached_negatives_are_caught():
    def detached(x, *args, **kwargs):
        return all_gather(lax.stop_gradient(x), *args, **kwargs)

    all_gather = lax.all_gather
    with attribute(lax, "all_gather", detached):
        value, gradient = error("ntxent_loss")
    assert value < 1e-12  # the mistake does not show in the value
    assert gradient > 0.01


def test_negatives_of_this_device_alone_are_caught():
    with attribute(lax, "all_gather", lambda x, *args, **kwargs: x):
        value, _ = error("ntxent_loss")
    assert value > 0.1


@pytest.mark.parametrize("name", ["barlow_twins_loss", "vicreg_loss", "variance_loss"])
def test_statistics_per_device_are_caught(name):
    with attribute(collectives, "sum", lambda x, axis_name: x):
        case = case_of(name)
        inputs, rows = case.inputs(seed=42), case.neutral()

        def value(z):
            return case.loss(*z, axis_name="batch")

        chunks = tuple(inputs[k].reshape(DEVICES, -1, 8) for k in case.args)
        mapped = jax.jit(jax.vmap(value, axis_name="batch"))
        local = np.mean(mapped(chunks))
    assert gap(local, case.expected(inputs, rows)) > 0.01


def test_the_mean_of_local_means_is_caught():
    """With unequal numbers of valid rows on the devices it is not the mean."""

    def local_means(values, rows, reduce_fn):
        mean = reduce_rows(values, rows._replace(axis_name=None), reduce_fn)
        return lax.pmean(mean, rows.axis_name) if rows.axis_name else mean

    reduce_rows = softmax.reduce_rows
    with attribute(softmax, "reduce_rows", local_means):
        value, gradient = error("clip_loss")
    assert value > 0.01
    assert gradient > 0.01


def test_the_average_of_a_local_loss_is_caught_where_gradients_of_replicated_weights_are_summed():
    """shard_map with check_vma: a loss that is not averaged over the axis counts every device."""

    def no_sum(x, axis_name):
        return x

    with (
        attribute(collectives, "sum", no_sum),
        pytest.raises(ValueError, match=r"replicat|vary|out_specs"),
    ):
        error("ntxent_loss", "shard_map")
