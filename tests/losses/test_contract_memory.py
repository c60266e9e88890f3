"""Compiled temporaries of value and gradient: a few N x N, no N x N x dim, no N^3."""

import jax
import numpy as np
import pytest

from tests.losses.calls import QUICK, arguments, objective
from tests.losses.cases import CASES, DIM

ROWS, WIDTH = 512, 64
SQUARES = 12  # matrices of all pairs alive at a time: logits, masks, exponentials, their gradients


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_temporaries_are_a_few_matrices_of_all_pairs(case):
    rows = case.neutral(ROWS)
    fixed = "negatives" in case.settings or case.deviations  # settings of the cases' own width
    inputs = case.inputs(n=ROWS, dim=DIM if fixed else WIDTH)
    step = jax.jit(jax.value_and_grad(objective(case)), compiler_options=QUICK)
    compiled = step.lower(*arguments(case, inputs, rows, np.float32, None)).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    pairs = 4 * (case.views * ROWS) ** 2
    assert temporaries < SQUARES * pairs, f"{temporaries / pairs:.1f} matrices of all pairs"
