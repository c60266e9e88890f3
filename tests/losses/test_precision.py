"""In what precision the losses multiply rows: as asked for, or by the dtype in which the rows come.

A CPU multiplies float32 as it is, so the programs are read: operands and precision of every product.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import losses
from tests.losses.calls import apply, gap
from tests.losses.cases import CASES

MULTIPLYING = [case for case in CASES if case.plain and "precision" in case.keywords]
each = pytest.mark.parametrize("case", MULTIPLYING, ids=lambda case: case.id)
DISTANCES = ("gaussian_clip_loss",)
FEW = [case for case in MULTIPLYING if case.id in ("clip_loss", "ntxent_loss", "siglip_loss")]


def products(case, dtypes, **keywords):
    """(operand, operand, precision) of all products of rows in tiles, of value and gradients."""
    inputs = case.inputs(dim=8)
    names = case.embeddings()
    rows = {name: inputs[name].astype(dtypes[k % len(dtypes)]) for k, name in enumerate(names)}

    def loss(rows):
        return apply(
            case, {**inputs, **rows}, case.rows(names=case.always), block_size=8, **keywords
        )

    program = jax.jit(jax.value_and_grad(loss)).lower(rows).as_text()
    found = set()
    for line in program.splitlines():
        if "dot_general" in line:
            precision = re.search(r"precision = \[(\w+)", line)
            operands = re.findall(r"tensor<(\d+)x(\d+)x(\w+)>", line.split(" : ")[-1])[:2]
            if precision and len(operands) == 2:  # matrices, not sums over rows
                found.add((operands[0][2], operands[1][2], precision[1]))
    return found


@each
def test_rows_of_float32_are_multiplied_in_full(case):
    assert products(case, [np.float32]) == {("f32", "f32", "HIGHEST")}


@each
def test_rows_of_bfloat16_are_multiplied_as_such(case):
    """But for distances, whose rows are relative to their mean: float32, in three passes."""
    precise = ("f32", "f32", "HIGH") if case.name in DISTANCES else ("bf16", "bf16", "DEFAULT")
    assert products(case, [jnp.bfloat16]) == {precise}


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.id)
@pytest.mark.parametrize(
    ("dtypes", "precision", "expected"),
    [
        ([jnp.bfloat16, np.float32], None, ("f32", "f32", "HIGHEST")),
        ([np.float16], None, ("f32", "f32", "HIGHEST")),
        ([jnp.bfloat16], jax.lax.Precision.HIGHEST, ("f32", "f32", "HIGHEST")),
        ([np.float32], jax.lax.Precision.HIGH, ("f32", "f32", "HIGH")),
        ([np.float32], jnp.bfloat16, ("bf16", "bf16", "DEFAULT")),
    ],
)
def test_other_rows_and_what_is_asked_for(case, dtypes, precision, expected):
    assert products(case, dtypes, precision=precision) == {expected}


@pytest.mark.parametrize("temperature", [0.5, 0.07])
@pytest.mark.parametrize("block_size", [None, 16])
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.id)
def test_the_default_adds_less_than_the_rows_have_lost(case, block_size, temperature):
    """The reason for the default, by docs/precision.md, at 64 rows."""
    rows = {name: z.astype(np.float32) for name, z in case.inputs(n=64, dim=64).items()}
    half = {name: jnp.asarray(z, jnp.bfloat16) for name, z in rows.items()}
    rounded = {name: z.astype(np.float32) for name, z in half.items()}

    def evaluate(z, precision):
        def loss(z):
            return case.loss(
                *z.values(), temperature=temperature, block_size=block_size, precision=precision
            )

        return jax.jit(jax.value_and_grad(loss))(z)

    value, grads = evaluate(rounded, jax.lax.Precision.HIGHEST)
    grads_before = evaluate(rows, jax.lax.Precision.HIGHEST)[1]
    default, default_grads = evaluate(half, None)
    asked, asked_grads = evaluate(rounded, jnp.bfloat16)
    assert default == asked
    assert default_grads["z1"].dtype == jnp.bfloat16  # rounded once more
    assert gap(default_grads, asked_grads) < 2**-8
    assert abs(default - value) < 1e-3 * value
    assert 0 < gap(asked_grads, grads) < gap(grads, grads_before)


@pytest.mark.parametrize("precision", ["high", jnp.float32, 3])
def test_another_precision_is_refused(precision):
    with pytest.raises(ValueError, match=r"must be a jax\.lax\.Precision, jnp\.bfloat16 or None"):
        losses.clip_loss(np.eye(3), np.eye(3), precision=precision)
