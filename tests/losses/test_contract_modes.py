"""Every public loss under JAX's strict modes, in 64-bit mode, and on batches without rows.

That no loss promotes ranks silently all of these tests check: conftest.py forbids it for this folder.
"""

import jax
import numpy as np
import pytest

from tests.losses.calls import apply, arguments, cast, compiled, objective, precision
from tests.losses.cases import CASES, FAMILIES, each
from tests.marks import slow_unless


@each(others=slow_unless)
def test_ranks_are_never_promoted_silently(case):
    assert jax.config.jax_numpy_rank_promotion == "raise"
    jax.eval_shape(
        jax.value_and_grad(objective(case)), *arguments(case, case.inputs(), None, np.float32, None)
    )


@pytest.mark.parametrize(
    "case",
    slow_unless(lambda case: case.id in FAMILIES, CASES),
    ids=lambda case: case.id,
)
def test_no_tracer_leaks(case):
    inputs, rows = case.inputs(), case.neutral()
    with jax.checking_leaks():
        step = jax.value_and_grad(lambda *args: objective(case)(*args))
        jax.eval_shape(step, *arguments(case, inputs, rows, np.float32, None))


@each(others=slow_unless)
def test_no_nan_arises_on_the_way(case):
    """Masked rows and anchors without a positive included: what is undefined is never computed."""
    with jax.debug_nans(True), precision(np.float64):
        inputs, rows = case.inputs(seed=51), case.rows(seed=51)
        jax.block_until_ready(compiled(case)(*arguments(case, inputs, rows, np.float64, None)))


@each(all_forms=True)
def test_float32_rows_stay_float32_in_64_bit_mode(case):
    inputs, rows = case.inputs(), case.neutral()
    with jax.enable_x64(True):
        value, grads = jax.eval_shape(
            jax.value_and_grad(objective(case)), *arguments(case, inputs, rows, np.float32, None)
        )
        assert value.dtype == np.float32
        assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
        wide = {k: np.int64(v) if v.dtype == np.int32 else v for k, v in rows.items()}
        of_wide = jax.eval_shape(
            lambda *z: apply(case, dict(zip(case.args, z, strict=True)), cast(wide, np.float32)),
            *cast(inputs, np.float32).values(),
        )
        assert of_wide.dtype == np.float32


@each(others=slow_unless)
def test_a_batch_without_rows(case):
    inputs = {k: v[:0] for k, v in case.inputs().items()}
    rows = {k: v[:0] for k, v in case.neutral().items()}
    with jax.debug_nans(True):
        step = jax.jit(jax.value_and_grad(objective(case)))
        value, grads = step(*arguments(case, inputs, rows, np.float32, None))
    assert value == 0
    assert all(grads[k].shape == inputs[k].shape for k in grads)


@pytest.mark.slow
@each(lambda case: "block_size" in case.keywords, others=slow_unless)
def test_a_batch_without_rows_in_tiles(case):
    inputs = {k: v[:0] for k, v in case.inputs().items()}
    rows = {k: v[:0] for k, v in case.neutral().items()}
    args = arguments(case, inputs, rows, np.float32, None)
    assert objective(case, block_size=4)(*args) == 0
