"""Compiled temporaries of value and gradient: of small batches a few N x N, of large ones none."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import losses
from jaxcon.planning.memory import memory_of
from tests.losses.calls import arguments, objective
from tests.losses.case import DIM
from tests.losses.cases import each

ROWS, WIDTH = 512, 64
SQUARES = 12  # matrices of all pairs alive at a time: logits, masks, exponentials, their gradients


@each()
def test_temporaries_are_a_few_matrices_of_all_pairs(case):
    rows = case.neutral(ROWS)
    fixed = "negatives" in case.settings or case.deviations  # settings of the cases' own width
    inputs = case.inputs(n=ROWS, dim=DIM if fixed else WIDTH)
    step = jax.jit(jax.value_and_grad(objective(case)))
    compiled = step.lower(*arguments(case, inputs, rows, np.float32, None)).compile()
    temporaries = memory_of(compiled).temporaries
    pairs = 4 * (case.views * ROWS) ** 2
    assert temporaries < SQUARES * pairs, f"{temporaries / pairs:.1f} matrices of all pairs"


@pytest.mark.parametrize(
    ("name", "limit"),
    # Measured: 1.04; 1.31, the gradient waiting for its cotangent; 2.04, both views as one matrix,
    # and its gradient. With 1,048,576 rows of 512: 8.1, 10.1 and 16.1 GiB in all.
    [("clip_loss", 1.06), ("siglip_loss", 1.35), ("ntxent_loss", 2.08)],
)
@pytest.mark.parametrize(
    "shape", [(65536, 128), pytest.param((1_048_576, 512), marks=pytest.mark.slow)]
)
def test_a_large_batch_needs_little_beyond_its_rows_and_their_gradients(name, limit, shape):
    loss = getattr(losses, name)
    rows = jax.ShapeDtypeStruct(shape, np.float32)
    step = jax.jit(jax.value_and_grad(lambda z1, z2: loss(z1, z2), argnums=(0, 1)))
    compiled = step.lower(rows, rows).compile()
    memory = memory_of(compiled)
    assert memory.total < limit * (memory.arguments + memory.results)
    # A store of gradients that a step of the sweep copies, a million times, is fast on paper alone.
    copies = rf"copy[.\d]* = f32\[\d+,512,{shape[1]}\]"
    assert not re.search(copies, in_loops(compiled.as_text()))


@each()
def test_no_matrix_of_all_pairs_is_held(case):
    """One of 32,768^2 pairs is 4 GiB."""
    width = DIM if case.deviations else WIDTH
    inputs, rows = case.inputs(n=32_768, dim=width), case.neutral(32_768)
    step = jax.jit(jax.value_and_grad(objective(case)))
    compiled = step.lower(*arguments(case, inputs, rows, np.float32, None)).compile()
    limit = 2**28 if case.name == "triplet_loss" else 2**27  # measured: 134 MiB, and at most 92
    assert memory_of(compiled).temporaries < limit


def mined(width, step, **settings):
    """Temporaries of the gradient of `step(loss)`, of the triplet loss of 32,768 rows."""
    z = jax.ShapeDtypeStruct((32_768, width), np.float32)
    labels = jax.ShapeDtypeStruct((32_768,), np.int32)
    loss = functools.partial(losses.triplet_loss, **settings)
    return memory_of(jax.jit(jax.value_and_grad(step(loss))).lower(z, labels).compile()).temporaries


@pytest.mark.parametrize("mining", [losses.all_triplets, losses.semi_hard, losses.hardest])
def test_mined_triplets_need_a_few_times_their_rows(mining):
    rows = 4 * 32_768 * 512
    assert mined(512, lambda loss: loss, mining=mining) <= 4 * rows  # measured: 2.5 to 3.3


@pytest.mark.parametrize("derivative", ["of values per anchor", "second"])
def test_no_derivative_of_mined_triplets_holds_a_matrix_of_all_pairs(derivative):
    if derivative == "second":
        temporaries = mined(
            64, lambda loss: lambda z, labels: jnp.vdot(jax.grad(loss)(z, labels), z)
        )
    else:
        temporaries = mined(64, lambda loss: lambda *a: jnp.sum(jnp.sin(loss(*a))), reduce_fn=None)
    assert temporaries < 2**29  # measured: 134 and 266 MiB


def in_loops(text):
    """The bodies of a compiled program's loops."""
    bodies = set(re.findall(r"body=(%[\w.\-]+)", text))
    computations = re.findall(r"^(%\S+) \(.*?\{\n(.*?)^\}", text, re.M | re.S)
    return "\n".join(lines for name, lines in computations if name in bodies)
