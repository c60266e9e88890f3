"""Every public loss against its paper's formula: values, gradients, masks, weights, ids, order.

Run the slow part with `-m exhaustive`: `check_grads` and further seeds.
"""

import dataclasses
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxcon import losses
from tests.losses.calls import (
    anchors,
    arguments,
    evaluate,
    gap,
    objective,
    precision,
)
from tests.losses.case import Case, N
from tests.losses.cases import CASES, KEYWORDS, each

each_case = each(all_forms=True)
anchored = each(lambda case: case.has_anchors)


def public_losses() -> list[str]:
    return [name for name in losses.__all__ if name.endswith("_loss")]


def test_every_public_loss_has_a_case():
    without = set(public_losses()) - {case.name for case in CASES}
    assert not without, f"add {without} to tests/losses/cases.py"


@pytest.mark.parametrize("name", public_losses())
def test_a_loss_takes_its_vocabulary_and_nothing_else(name):
    parameters = inspect.signature(getattr(losses, name)).parameters
    case = next((case for case in CASES if case.name == name), None)
    assert case is not None, f"add {name} to KEYWORDS and CASES in tests/losses/cases.py"
    taken, listed = (set(names) - set(case.args) for names in (parameters, KEYWORDS[name]))
    assert taken == listed, f"KEYWORDS[{name!r}] in tests/losses/cases.py is another vocabulary"
    positional = [k for k, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert set(positional) <= {*case.args, "negatives"}, "settings are keyword-only"


@pytest.mark.parametrize("name", public_losses())
def test_the_readme_names_every_loss(name):
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    assert f"`{name}`" in readme, f"add `{name}` to its family in README's table"


@pytest.mark.parametrize("name", public_losses())
def test_the_page_of_losses_lists_the_extra_inputs(name):
    """All of `where`, `weights`, `ids`, `labels` that a loss takes, and no keyword that it does not."""
    page = (pathlib.Path(__file__).parents[2] / "docs" / "losses.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(f"| `{name}(")]
    assert len(rows) == 1, f"add a row | `{name}(...)` | ... to docs/losses.md"
    (row,) = rows
    called, *_, extra, _, _, _ = row.replace(r"\|", "").strip("| ").split(" | ")
    listed = set(extra.split(", "))
    assert listed <= KEYWORDS[name]
    assert listed >= KEYWORDS[name] & {"where", "weights", "ids", "labels"} - set(
        called.strip("`)").split("(")[1].split(", ")
    )


def directional(case: Case, inputs: dict, rows: dict, direction: dict) -> float:
    """Derivative of the formula along `direction`, by a five-point difference."""

    def at(step: float) -> float:
        moved = {k: v + step * direction[k] if k in direction else v for k, v in inputs.items()}
        return case.expected(moved, rows, held=inputs)

    h = 2e-7  # small, so that no kink or jump of a hinge is met
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@each_case
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_value_and_gradient_are_the_formulas(case, masked):
    inputs = case.inputs(seed=1)
    rows = case.rows(seed=1) if masked else case.neutral()
    value, grads = evaluate(case, inputs, rows)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, case.expected(inputs, rows), rtol=1e-11)
    rng = np.random.default_rng(0)
    for _ in range(2):
        direction = {k: rng.normal(size=inputs[k].shape) for k in case.embeddings()}
        slope = sum(np.sum(grads[k] * direction[k]) for k in direction)
        length = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        expected = directional(case, inputs, rows, direction)
        np.testing.assert_allclose(
            slope, expected, atol=3e-7 * length * np.sqrt(inputs_size(inputs))
        )


def inputs_size(inputs: dict) -> int:
    return sum(v.size for v in inputs.values())


# Settings that no case has, each as different from the default as the paper's own sweeps.
OTHER_SETTINGS = [
    ("multi_similarity_loss", {"alpha": 1.5, "beta": 8.0, "base": 0.3}),
    ("circle_loss", {"gamma": 4.0, "margin": 0.25}),
    ("uniformity_loss", {"t": 0.5}),
    ("barlow_twins_loss", {"off_diagonal_weight": 0.1, "scale": 0.3}),
    ("vicreg_loss", {"invariance": 10.0, "variance": 5.0, "covariance": 2.0}),
    ("sample_correlation_loss", {"off_diagonal_weight": 0.1, "scale": 0.3}),
    ("triplet_loss", {"margin": 0.5}),
]


@pytest.mark.parametrize(("name", "settings"), OTHER_SETTINGS)
def test_values_with_other_settings_are_the_formulas(name, settings):
    case = next(case for case in CASES if case.id == name)
    other = dataclasses.replace(case, settings=settings)
    inputs, rows = other.inputs(seed=7), other.rows(seed=7)
    with precision(np.float64):
        loss = jax.jit(objective(other))
        value = loss(*arguments(other, inputs, rows, np.float64, None))
    np.testing.assert_allclose(value, other.expected(inputs, rows), rtol=1e-11)


@anchored
def test_values_per_anchor_are_the_formulas(case):
    inputs, rows = case.inputs(seed=2), case.rows(seed=2)
    expected = case.anchors(inputs, rows)
    got = anchors(case, inputs, rows)
    assert got.shape == (case.views * N,)
    np.testing.assert_allclose(got, expected.values, rtol=1e-10, atol=1e-12)
    w = np.tile(rows.get("weights", np.ones(N)), case.views) * expected.valid
    np.testing.assert_allclose(
        anchors(case, inputs, rows, reduce_fn=jnp.sum), np.sum(w * got), rtol=1e-11
    )


@each_case
def test_masked_rows_are_never_read(case):
    inputs, rows = case.inputs(seed=3), case.rows(seed=3)
    value, grads = evaluate(case, inputs, rows)
    for poison in (np.nan, np.inf, 1e30):
        spoiled = {
            k: np.where(rows["where"].reshape(-1, *(1,) * (v.ndim - 1)), v, poison)
            if k in case.embeddings()
            else v
            for k, v in inputs.items()
        }
        got, got_grads = evaluate(case, spoiled, rows)
        assert got == value
        for name, grad in got_grads.items():
            np.testing.assert_array_equal(grad, grads[name])
            assert not grad[~rows["where"]].any()


@each_case
def test_weight_zero_takes_the_anchor_but_not_the_candidate(case):
    if "weights" not in case.keywords:
        pytest.skip("no values per anchor")
    inputs, rows = case.inputs(seed=4), case.neutral()
    rows["weights"] = np.where(np.arange(N) % 3 == 0, 0.0, 1.0)
    value, _ = evaluate(case, inputs, rows)
    per_anchor = case.anchors(inputs, rows)
    kept = np.tile(rows["weights"] > 0, case.views) & per_anchor.valid
    expected = np.average(per_anchor.values[kept], weights=per_anchor.count[kept])
    np.testing.assert_allclose(value, expected, rtol=1e-11)


@each_case
def test_the_order_of_the_batch_is_irrelevant(case):
    inputs, rows = case.inputs(seed=5), case.rows(seed=5)
    value, grads = evaluate(case, inputs, rows)
    order = np.random.default_rng(5).permutation(N)
    got, got_grads = evaluate(
        case, {k: v[order] for k, v in inputs.items()}, {k: v[order] for k, v in rows.items()}
    )
    assert gap((got, got_grads), (value, {k: v[order] for k, v in grads.items()})) < 1e-12


@each()
def test_trailing_axes_are_flattened_and_row_keywords_may_be_left_out(case):
    inputs, rows = case.inputs(seed=6), case.rows(seed=6, names=case.always)
    folded = {
        k: v.reshape(*v.shape[:-1], 2, 2, 2) if k in case.embeddings() and v.ndim > 1 else v
        for k, v in inputs.items()
    }
    settings, plain = dict(case.settings), case.neutral() | rows
    if "negatives" in settings:
        settings["negatives"] = settings["negatives"].reshape(-1, 2, 2, 2)
        plain["ids"] = plain["ids"] + 100  # ids that no queue entry shares
        del settings["negative_ids"]
    with precision(np.float64):
        loss = jax.jit(lambda a, r: case.loss(*(a[k] for k in case.args), **r, **settings))
        got = loss(folded, rows)
    np.testing.assert_allclose(got, evaluate(case, inputs, plain)[0], rtol=1e-12)


@pytest.mark.exhaustive
@each_case
def test_check_grads(case):
    if case.held:
        pytest.skip("holds a factor constant: a finite difference of the value is not its gradient")
    with precision(np.float64):
        embeddings, *rest = arguments(
            case, case.inputs(seed=8), case.rows(seed=8), np.float64, None
        )
        value = objective(case)
        check_grads(
            lambda z: value(z, *rest), (embeddings,), order=1, modes=["rev"], rtol=1e-5, atol=1e-7
        )


@pytest.mark.exhaustive
@each_case
@pytest.mark.parametrize("seed", range(100, 110))
def test_value_of_further_seeds(case, seed):
    inputs, rows = case.inputs(seed=seed), case.rows(seed=seed)
    value, _ = evaluate(case, inputs, rows)
    np.testing.assert_allclose(value, case.expected(inputs, rows), rtol=1e-10, atol=1e-12)
    value, _ = evaluate(case, inputs, rows, dtype=np.float32)
    np.testing.assert_allclose(value, case.expected(inputs, rows), rtol=3e-5, atol=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "case", [case for case in CASES if "block_size" in case.keywords], ids=lambda case: case.id
)
@pytest.mark.parametrize("block_size", [5, 16])
def test_tiles_of_any_size_give_the_same(case, block_size):
    inputs, rows = case.inputs(seed=9), case.rows(seed=9)
    with precision(np.float64):
        step = jax.jit(jax.value_and_grad(objective(case, block_size=block_size)))
        got = step(*arguments(case, inputs, rows, np.float64, None))
    assert gap(got, evaluate(case, inputs, rows)) < 1e-11
