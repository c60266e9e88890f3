"""Every public loss on degenerate rows, in every float dtype and at every temperature.

Value and gradient stay finite; on well-aligned pairs at a low temperature they are right; what is not
finite in an unmasked row stays visible.
"""

import dataclasses
import itertools
from functools import partial

import jax
import numpy as np
import pytest

from jaxcon import losses
from tests.losses.calls import arguments, cast, evaluate, gap, objective
from tests.losses.case import DIM, Case, N
from tests.losses.cases import TILED, each
from tests.marks import exhaustive_unless

TEMPERATURES = [1.0, 0.1, 0.01, 0.005]


def degenerate(case: Case, dtype: str):
    """Names, inputs and row keywords of the degenerate batches."""
    plain, rows = case.inputs(seed=31), case.neutral()
    vectors = [name for name in case.embeddings() if "log_std" not in name]

    def each(change):
        return {k: change(v) if k in vectors else v for k, v in plain.items()}

    def only(count):
        return rows | {"where": np.arange(N) < count}

    def labelled(labels):
        labelled_rows = {k: labels if k == "labels" else v for k, v in rows.items()}
        return {k: labels if k == "labels" else v for k, v in plain.items()}, labelled_rows

    first = plain[vectors[0]]
    if case.normalized:
        scales = (1e-4, 1e4) if dtype == "float16" else (1e-20, 1e20)
    else:
        scales = (1e-3, 1e3)
    half = np.where(np.arange(N) % 2, *scales)
    yield "zero rows", each(np.zeros_like), rows
    yield (
        "one zero row",
        each(lambda z: z * (np.arange(N) > 0).reshape(-1, *(1,) * (z.ndim - 1))),
        rows,
    )
    yield "identical rows", each(np.ones_like), rows
    yield "aligned pairs", each(lambda z: first if z.ndim == 2 else z), rows
    yield "one row", plain, only(1)
    yield "all padded", plain, only(0)
    yield "no positive", *labelled(np.arange(N, dtype=np.int32))
    yield "no negative", *labelled(np.zeros(N, np.int32))
    if "ids" in case.keywords:
        yield "no negative by ids", plain, rows | {"ids": np.zeros(N, np.int32)}
    if "weights" in case.keywords:
        yield "no weight", plain, rows | {"weights": np.zeros(N)}
    for scale in scales:
        yield f"rows of {scale:g}", each(lambda z, scale=scale: scale * z), rows
    yield (
        "rows of both scales",
        each(lambda z: z * half.reshape(-1, *(1,) * (z.ndim - 1))),
        rows,
    )


@pytest.mark.parametrize(
    "dtype",
    [  # bfloat16 rounds more than float16 but has float32's range
        "float32",
        "float16",
        pytest.param("bfloat16", marks=pytest.mark.exhaustive),
    ],
)
@each()
def test_degenerate_batches_are_finite(case, dtype):
    assert_finite(case, dtype)


@pytest.mark.parametrize(
    "case",
    exhaustive_unless(lambda case: case.id in ("ntxent_loss", "clip_loss", "circle_loss"), TILED),
    ids=lambda case: case.id,
)
def test_degenerate_batches_are_finite_in_tiles(case):
    tiled = dataclasses.replace(case, settings={**case.settings, "block_size": 5})
    assert_finite(tiled, "float32")


@each(lambda case: "temperature" in case.keywords, all_forms=True)
def test_a_learned_temperature_has_a_finite_gradient(case):
    gradient = jax.jit(jax.grad(objective(case), argnums=3))
    for (name, inputs, rows), temperature in itertools.product(
        degenerate(case, "float32"), TEMPERATURES
    ):
        of_temperature = gradient(*arguments(case, inputs, rows, np.float32, temperature))
        assert np.isfinite(of_temperature), (name, temperature)


def assert_finite(case, dtype):
    """Value and gradients of the case on all degenerate batches at all temperatures."""
    temperatures = TEMPERATURES if "temperature" in case.keywords else [None]
    for (name, inputs, rows), temperature in itertools.product(
        degenerate(case, dtype), temperatures
    ):
        value, grads = evaluate(case, inputs, rows, dtype=dtype, temperature=temperature)
        assert value.dtype == np.float32
        assert np.isfinite(value), (name, temperature)
        for k, grad in grads.items():
            assert grad.dtype == dtype
            assert np.isfinite(np.float64(grad)).all(), (name, temperature, k)
        if case.bounded:
            assert value >= 0, (name, temperature)
        if name in {"all padded", "no weight"}:
            assert value == 0
            assert not any(np.any(grad) for grad in grads.values()), (name, temperature)


@pytest.mark.parametrize("block_size", [None, 24])
@pytest.mark.parametrize("aligned", [False, True], ids=["random", "aligned"])
@pytest.mark.parametrize("temperature", exhaustive_unless(lambda t: t == 0.07, (0.5, 0.07, 0.01)))
@pytest.mark.parametrize(
    "name",
    exhaustive_unless(
        lambda name: name == "ntxent_loss", ("ntxent_loss", "clip_loss", "siglip_loss")
    ),
)
def test_gradients_in_float32(name, temperature, aligned, block_size):
    """Of a constant temperature, whose exponentials need no shift: to 1e-5 norm-wise."""
    loss = partial(getattr(losses, name), temperature=temperature)
    rng = np.random.default_rng(0)
    # Of wider rows no two are near each other: aligned at 0.01, their gradients leave float32's range.
    z1, noise = rng.normal(size=(2, 64, 32))
    z = np.float32(np.stack([z1, z1 + 0.02 * noise if aligned else noise]))
    value, grads = jax.jit(jax.value_and_grad(lambda z: loss(z[0], z[1], block_size=block_size)))(z)
    with jax.enable_x64(True):
        exact, exact_grads = jax.jit(jax.value_and_grad(lambda z: loss(z[0], z[1])))(np.float64(z))
    assert value >= 0
    assert gap(value, exact) < 1e-5
    assert gap(grads, exact_grads) < 1e-5


@each(lambda case: case.aligned)
def test_aligned_pairs_at_a_low_temperature_keep_their_digits(case):
    """Where `logsumexp - positive` would return rounding noise, in value and in gradient.

    What is left at 0.01 is the rounding inside the float32 product of the rows: with 128 features its
    sums are off by 4e-8 (rms; 2e-7 at most among 1,024 anchors), which 1 / temperature makes 4e-6 in a
    logit. Rounding the rows themselves costs a tenth of it. Hence the median of a few batches, and
    twice as much for gradients: hard negatives weigh a logit twice.
    """
    for temperature in (0.1, 0.01):
        errors = []
        for seed in range(5):
            inputs = case.inputs(seed=seed)
            noise = np.random.default_rng(seed).normal(size=inputs["z1"].shape)
            inputs["z2"] = inputs["z1"] + 0.02 * noise
            inputs = {k: np.float64(np.float32(v)) for k, v in inputs.items()}  # the same in both
            value, grads = evaluate(case, inputs, dtype=np.float32, temperature=temperature)
            exact, exact_grads = evaluate(case, inputs, temperature=temperature)
            errors.append((gap(value, exact), gap(grads, exact_grads)))
        error, grad_error = np.median(errors, axis=0)
        assert error < 1e-5
        assert grad_error < max(1e-5, 2 * np.finfo(np.float32).eps / temperature)


@each()
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(case, poison):
    for name in case.embeddings():
        inputs = case.inputs(seed=34)
        inputs[name].reshape(N, -1)[3, 0] = poison
        value, _ = evaluate(case, inputs, dtype=np.float32)
        assert not np.isfinite(value), name


@pytest.mark.exhaustive
@each()
def test_a_batch_of_one(case):
    inputs, rows = case.inputs(seed=35, n=1), case.neutral(n=1)
    for dtype in ("float32", "bfloat16", "float16"):
        value, grads = evaluate(case, inputs, rows, dtype=dtype)
        assert np.isfinite(value)
        assert all(np.isfinite(np.float64(grad)).all() for grad in grads.values())


@pytest.mark.exhaustive
@each()
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_that_of_the_rounded_rows(case, dtype):
    """Computation is in float32: only the rows, and their gradients, are rounded.

    So are the products, where they are asked for in full; bfloat16's own default: test_precision.py.
    """
    if "precision" in case.keywords:
        full = {"precision": jax.lax.Precision.HIGHEST}
        case = dataclasses.replace(case, settings={**case.settings, **full})
    inputs = case.inputs(seed=36)
    rounded = {k: np.asarray(v, np.float64) for k, v in cast(inputs, dtype).items()}
    rounded |= {k: v for k, v in inputs.items() if k not in case.embeddings()}
    value, grads = evaluate(case, inputs, dtype=dtype)
    exact, exact_grads = evaluate(case, rounded)
    np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-5)
    assert gap(grads, exact_grads) < (0.01 if dtype == "bfloat16" else 0.002)


@each(lambda case: case.chance is not None and case.normalized)
def test_equal_rows_of_ones_score_chance(case):
    """The first post's batch: 7 pairs of 768 ones. Adding up 768 equal terms must not show."""
    n, dim = 7, 768
    row = np.ones(dim) if "negatives" not in case.settings else np.ones(DIM)
    shapes = {k: v.shape for k, v in case.inputs(n=n, dim=len(row)).items()}
    equal = {k: np.broadcast_to(row, shape) for k, shape in shapes.items()}
    value, _ = evaluate(case, equal, case.neutral(n), dtype=np.float32)
    np.testing.assert_allclose(value, case.chance(n), rtol=1e-5, atol=1e-5)
