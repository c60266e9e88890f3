"""Wrong arguments of every public loss: an error that names the argument, what came, what is meant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.calls import apply
from tests.losses.cases import CASES, N, each


def call(case, inputs=None, rows=None, **keywords):
    inputs = case.inputs() if inputs is None else inputs
    rows = case.neutral() if rows is None else rows
    cast = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in inputs.items()}
    return jax.eval_shape(lambda: apply(case, cast, rows, **keywords))


@each(all_forms=True)
def test_embeddings_of_rank_1(case):
    first, *_ = case.embeddings()
    inputs = case.inputs()
    inputs[first] = inputs[first][:, 0]
    with pytest.raises(ValueError, match=rf"{first} .*\({N},\)"):
        call(case, inputs)


@pytest.mark.parametrize("case", [c for c in CASES if len(c.args) > 1], ids=lambda case: case.id)
def test_arguments_of_different_length(case):
    for name in case.args[1:]:
        inputs = case.inputs()
        inputs[name] = inputs[name][:-1]
        with pytest.raises(ValueError, match=rf"{name} .*{N - 1}"):
            call(case, inputs)


@each(all_forms=True)
def test_integer_embeddings(case):
    for name in case.embeddings():
        inputs = case.inputs()
        inputs[name] = inputs[name].astype(np.int32)
        with pytest.raises(
            ValueError, match=f"{name} must be of a floating-point dtype, got int32"
        ):
            call(case, inputs)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "labels" in (*c.args, *c.always)], ids=lambda case: case.id
)
def test_labels_that_are_not_integers(case):
    inputs, rows = case.inputs(), case.neutral()
    (inputs if "labels" in inputs else rows)["labels"] = np.zeros(N, np.float32)
    with pytest.raises(ValueError, match="labels must be of integer dtype, got float32"):
        call(case, inputs, rows)


@pytest.mark.parametrize(
    "case", [c for c in CASES if "temperature" in c.keywords], ids=lambda case: case.id
)
@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_concrete_temperature_out_of_range(case, temperature):
    with pytest.raises(ValueError, match=f"temperature must be a positive .*{temperature}"):
        call(case, temperature=temperature)


@each(all_forms=True)
def test_an_axis_name_that_is_not_bound(case):
    with pytest.raises(ValueError, match="axis_name='nowhere' is not bound here"):
        call(case, axis_name="nowhere")


@each(all_forms=True)
@pytest.mark.parametrize("keyword", ["where", "weights", "ids"])
def test_row_keywords_of_the_wrong_shape_or_dtype(case, keyword):
    if keyword not in case.keywords:
        pytest.skip(f"takes no {keyword}")
    good = case.neutral()
    with pytest.raises(ValueError, match=rf"{keyword} must have shape \({N},\), .* \({N - 1},\)"):
        call(case, rows=good | {keyword: good[keyword][:-1]})
    with pytest.raises(ValueError, match=rf"{keyword} must have shape \({N},\), .* \({N}, 1\)"):
        call(case, rows=good | {keyword: good[keyword][:, None]})
    if keyword != "weights":
        with pytest.raises(ValueError, match=f"{keyword} must be of .* dtype, got float32"):
            call(case, rows=good | {keyword: np.ones(N, np.float32)})


@pytest.mark.parametrize("case", [c for c in CASES if c.has_anchors], ids=lambda case: case.id)
@pytest.mark.parametrize("reduce_fn", [jnp.max, "mean", np.mean])
def test_another_reduction(case, reduce_fn):
    with pytest.raises(ValueError, match=r"reduce_fn must be jnp\.mean, jnp\.sum or None, got"):
        call(case, reduce_fn=reduce_fn)


# A setting, a value out of its range, of each loss that restricts one.
OUT_OF_RANGE = [
    ("clip_loss", "label_smoothing", 1.0),
    ("clip_loss", "label_smoothing", -0.1),
    ("dcl_loss", "sigma", 0.0),
    ("hard_negative_loss", "beta", -1.0),
    ("hard_negative_loss", "positive_prior", 1.0),
    ("npairs_loss", "l2_weight", np.nan),
    ("siglip_loss", "bias", np.nan),
    ("csd_loss", "scale", -1.0),
    ("barlow_twins_loss", "off_diagonal_weight", np.nan),
    ("vicreg_loss", "variance", np.inf),
    ("sample_correlation_loss", "scale", np.nan),
    ("triplet_loss", "margin", -0.1),
    ("triplet_loss", "mining", "hardest"),
    ("multi_similarity_loss", "alpha", 0.0),
    ("multi_similarity_loss", "beta", -1.0),
    ("circle_loss", "gamma", 0.0),
    ("multi_similarity_loss", "base", np.nan),
    ("circle_loss", "margin", np.nan),
    ("circle_loss", "margin", 1.5),
    ("alignment_loss", "alpha", 0.0),
    ("uniformity_loss", "t", 0.0),
]


@pytest.mark.parametrize(("name", "setting", "value"), OUT_OF_RANGE)
def test_a_setting_out_of_range(name, setting, value):
    case = next(case for case in CASES if case.id == name)
    with pytest.raises(ValueError, match=f"{setting} must be .*{value}"):
        call(case, **{setting: value})
