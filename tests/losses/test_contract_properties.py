"""Properties that hold for all embeddings, searched by hypothesis."""

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.losses.calls import arguments, evaluate, objective
from tests.losses.case import DIM, N
from tests.losses.cases import each

quick = hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 2**31)
row_scales = st.lists(st.floats(1e-6, 1e6), min_size=N, max_size=N).map(np.array)


def vectors(case):
    return [name for name in case.embeddings() if "log_std" not in name]


@each(lambda case: case.normalized, all_forms=True)
@hypothesis.given(seed=seeds, scale=row_scales)
@quick
def test_the_scale_of_a_row_is_irrelevant(case, seed, scale):
    inputs = case.inputs(seed=seed)
    scaled = {
        k: v * scale.reshape(-1, *(1,) * (v.ndim - 1)) if k in vectors(case) else v
        for k, v in inputs.items()
    }
    value, grads = evaluate(case, inputs)
    got, got_grads = evaluate(case, scaled)
    np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-12)
    length = np.sqrt(sum(np.sum(grad**2) for grad in grads.values()))
    for name in vectors(case):
        back = got_grads[name] * scale.reshape(-1, *(1,) * (grads[name].ndim - 1))
        np.testing.assert_allclose(back, grads[name], rtol=1e-7, atol=1e-9 * length)
        along = np.sum(inputs[name] * grads[name], axis=-1)
        np.testing.assert_allclose(
            along, 0, atol=1e-10 * max(length, 1)
        )  # a step cannot grow the row


@each(lambda case: case.symmetric, all_forms=True)
@hypothesis.given(seed=seeds)
@quick
def test_the_views_may_be_exchanged(case, seed):
    # Weights and ids are left out: some losses are a mean over z1's anchors alone.
    inputs = case.inputs(seed=seed)
    rows = case.neutral() | case.rows(seed=seed, names=("where", *case.always))
    value, grads = evaluate(case, inputs, rows)
    got, got_grads = evaluate(case, inputs | {"z1": inputs["z2"], "z2": inputs["z1"]}, rows)
    np.testing.assert_allclose(got, value, rtol=1e-11)
    np.testing.assert_allclose(got_grads["z2"], grads["z1"], rtol=1e-8, atol=1e-11)


@each(lambda case: case.chance is not None, all_forms=True)
@hypothesis.given(seed=seeds)
@quick
def test_equal_embeddings_score_chance(case, seed):
    inputs = case.inputs(seed=seed)
    row = np.random.default_rng(seed).normal(size=DIM)
    equal = {
        k: np.broadcast_to(row, v.shape) if k in vectors(case) else v for k, v in inputs.items()
    }
    value, grads = evaluate(case, equal)
    np.testing.assert_allclose(value, case.chance(N), rtol=1e-9, atol=1e-12)
    for grad in grads.values():  # collapse is a stationary point of every smooth cosine loss
        np.testing.assert_allclose(grad, 0, atol=1e-9)


@each(lambda case: case.bounded)
@hypothesis.given(seed=seeds, spread=st.floats(0.0, 3.0))
@quick
def test_the_value_is_never_negative(case, seed, spread):
    inputs, rows = case.inputs(seed=seed), case.rows(seed=seed)
    first = inputs[vectors(case)[0]]
    for name in vectors(case)[1:]:
        if inputs[name].shape == first.shape:
            inputs[name] = first + spread * (inputs[name] - first)
    value, _ = evaluate(case, inputs, rows, dtype=np.float32)
    assert value >= 0


# These look at the features one by one.
ALONG_AXES = {"barlow_twins_loss", "vicreg_loss", "variance_loss", "sample_correlation_loss"}


@each(lambda case: case.name not in ALONG_AXES and "negatives" not in case.settings, all_forms=True)
@hypothesis.given(seed=seeds)
@quick
def test_a_rotation_is_irrelevant(case, seed):
    inputs = case.inputs(seed=seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(DIM, DIM)))[0]
    turned = {k: v @ rotation if k in vectors(case) else v for k, v in inputs.items()}
    np.testing.assert_allclose(
        evaluate(case, turned)[0], evaluate(case, inputs)[0], rtol=1e-9, atol=1e-11
    )


@pytest.mark.exhaustive
@each(all_forms=True)
def test_many_batches_at_once(case):
    """`vmap` without an axis name: each batch by itself."""
    batches = [(case.inputs(seed=seed), case.rows(seed=seed)) for seed in range(3)]
    alone = [evaluate(case, *batch, dtype=np.float32)[0] for batch in batches]
    stacked = [arguments(case, *batch, np.float32, None)[:3] for batch in batches]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *stacked)
    together = jax.jit(jax.vmap(lambda batch: objective(case)(*batch, None)))(stacked)
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
