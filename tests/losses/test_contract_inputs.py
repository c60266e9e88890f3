"""Wrong arguments of every public loss: an error that names the argument, what came, what is meant."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon import losses
from jaxcon.losses import queue
from tests.losses.calls import apply, join
from tests.losses.case import N
from tests.losses.cases import CASES, TILED, each
from tests.marks import exhaustive_unless


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


def test_a_setting_that_is_no_number_or_no_scalar():
    case = next(case for case in CASES if case.id == "ntxent_loss")
    for value in ("0.5", [0.1, 0.2], np.array(True)):
        with pytest.raises(ValueError, match=r"temperature must be a positive number"):
            call(case, temperature=value)
    with pytest.raises(ValueError, match=r"temperature must be a positive number .* shape \(2,\)"):
        jax.eval_shape(lambda t: call(case, temperature=t), jnp.ones(2))


@pytest.mark.parametrize(
    ("name", "setting"),
    [("npairs_loss", "normalize"), ("info_nce_loss", "in_batch"), ("gaussian_clip_loss", "exact")],
)
def test_settings_that_are_true_or_false(name, setting):
    case = next(case for case in CASES if case.id == name)
    for value in (np.bool_(True), jnp.array(True), 1):
        assert call(case, **{setting: value}).shape == ()
    with pytest.raises(ValueError, match=f"{setting} must be True or False, got 'no'"):
        call(case, **{setting: "no"})
    with pytest.raises(
        ValueError, match=f"{setting} must be True or False when the loss is traced"
    ):
        jax.eval_shape(lambda on: call(case, **{setting: on}), jnp.array(True))


@pytest.mark.parametrize("case", [c for c in TILED if c.plain], ids=lambda case: case.id)
def test_block_size_is_any_positive_integer(case):
    for size in (np.int64(8), np.uint8(8), jnp.int32(8)):
        assert call(case, block_size=size).shape == ()
    for size in (0, -1, 2.0, "8", True, np.float32(8)):
        with pytest.raises(ValueError, match="block_size must be a positive integer or None, got"):
            call(case, block_size=size)


@pytest.mark.parametrize(
    "name", ["supcon_loss", "triplet_loss", "circle_loss", "multi_similarity_loss"]
)
def test_labels_may_not_be_none(name):
    with pytest.raises(ValueError, match=r"labels must be integers, one per row of z, got None"):
        getattr(losses, name)(np.ones((4, 3), np.float32), None)


def test_multi_hot_labels_are_told_where_to_look():
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\).*multi-hot.*\.md"):
        losses.supcon_loss(np.ones((4, 3), np.float32), np.ones((4, 2), int))


# 64 bits: JAX keeps 32 of a NumPy integer and says nothing.

FAR = 2**32
WIDE = [
    np.array([5, 5 + FAR, -FAR]),
    np.array([7, 7 + FAR, 2**64 - 1], np.uint64),
    [3, 3 + 2**70, 3 - 2**70],
]


@pytest.mark.parametrize(
    "case",
    exhaustive_unless(
        lambda case: case.id in ("ntxent_loss", "supcon_loss", "siglip_loss[labels]"),
        [c for c in CASES if {"labels", "ids"} & {*c.args, *c.row_names()}],
    ),
    ids=lambda case: case.id,
)
def test_integers_of_more_than_32_bits_are_renumbered(case):
    """Equal where they are equal, different where they differ: the value of small integers."""
    settings = dict(case.settings)
    settings.pop("negative_ids", None)  # compared with ids: refused, see below
    form = dataclasses.replace(case, settings=settings)
    index = np.arange(N) // 2 % 3

    def value(numbers):
        inputs, rows = form.inputs(seed=61), form.neutral()
        wide = [numbers[i] for i in index]
        for given in (inputs, rows):
            given.update({k: wide for k in given if k in ("ids", "labels")})
        fixed = {k: np.float32(v) for k, v in inputs.items() if k != "labels"}
        return jax.jit(lambda z: apply(form, join(form, z, inputs), rows))(fixed)

    expected = value(np.arange(3, dtype=np.int32))
    for numbers in WIDE:
        np.testing.assert_allclose(value(numbers), expected, rtol=1e-6)


def test_ids_that_other_calls_know_are_refused_instead():
    z, ids = np.ones((2, 3), np.float32), np.array([1, 1 + FAR])
    state = queue.init(jax.random.key(0), size=4, dim=3)
    with pytest.raises(ValueError, match=rf"ids must fit into int32, got {1 + FAR}; renumber"):
        queue.push(state, z, ids=ids)
    for keywords in (
        {"ids": ids, "negative_ids": np.zeros(4, int)},
        {"ids": [0, 1], "negative_ids": [1, 1, 0, FAR]},
    ):
        with pytest.raises(ValueError, match="ids must fit into int32, got"):
            losses.info_nce_loss(z, z, np.ones((4, 3), np.float32), **keywords)


def test_a_queue_keeps_64_bits_where_jax_does():
    ids = np.array([1, 1 + FAR])
    z = np.ones((2, 3), np.float32)
    narrow = queue.init(jax.random.key(0), size=4, dim=3)
    with jax.enable_x64(True):
        state = queue.push(queue.init(jax.random.key(0), size=4, dim=3), z, ids=ids)
        np.testing.assert_array_equal(state.ids, [1, 1 + FAR, -1, -1])
        with pytest.raises(ValueError, match="ids must be of int32, got int64"):
            queue.push(narrow, z, ids=jnp.asarray(ids))
        np.testing.assert_array_equal(queue.push(narrow, z, ids=np.arange(2)).ids, [0, 1, -1, -1])
