"""Each platform's line of the rule: what it chooses, and that every form gives the same.

Every form runs here, on CPUs, by having all platforms follow one line with numbers so small that the
problems of the tests take all of its branches.
"""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxcon import collectives, losses
from jaxcon.streaming import Channel, Side, reduce_pairs, rules, sum_cosines
from jaxcon.streaming.platforms import by_platform
from jaxcon.streaming.rules import Cut
from tests.streaming.problems import differentiable, one_set, problem, total

NONE_WHOLE = {"whole_pairs": 0, "whole_pairs_of_one_set": 0}
SMALL = {"block": 8, "lanes": 2, "panel_rows": 4}
# Of 21 rows and 30 columns: one tile, all columns to 4 rows, columns in several blocks too.
FORMS = {"one tile": 900, "panels": 120, "tiles": 40}
ACCELERATORS = ("tpu", "cuda")


def follow(platform, tile_pairs, **changes):
    """A rule that has all follow one platform's line, in small, with no matrix whole."""
    pairs = {"tile_pairs": tile_pairs, "visit_pairs": tile_pairs}
    line = dataclasses.replace(rules.LINES[platform], **SMALL, **pairs, **changes)
    return rules.everywhere(line, **NONE_WHOLE)


@pytest.mark.parametrize("distances", [False, True])
@pytest.mark.parametrize("tile_pairs", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("make", [partial(problem, 21, 30), partial(one_set, 21)])
def test_every_form_of_an_accelerator_gives_the_same(make, tile_pairs, distances):
    """In float32, where the lines of TPUs and of GPUs have the same forms."""
    data = make()
    diff = differentiable(data)

    def run():
        return jax.jit(jax.value_and_grad(lambda d: total(data, d, distances=distances)))(diff)

    plain = run()
    with rules.in_force(follow("tpu", tile_pairs)):
        formed = run()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), formed, plain)


@pytest.mark.parametrize("tile_pairs", FORMS.values(), ids=FORMS)
def test_the_same_of_a_weighted_sum(tile_pairs):
    x, y = jax.random.normal(jax.random.key(0), (2, 24, 5))
    weights = jnp.linspace(0.5, 1.5, 24)

    def f(x, y):
        rows, cols = Side(x, jnp.arange(24)), Side(y, jnp.arange(24))
        return sum_cosines(rows, cols, 5.0, [Channel(1, log=False)], [weights])

    plain = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, y)
    rule = dataclasses.replace(follow("tpu", tile_pairs), copied_entries=0)
    with rules.in_force(rule):
        formed = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(x, y)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), formed, plain)


@pytest.mark.parametrize("name", ["clip_loss", "ntxent_loss"])
@pytest.mark.parametrize("copied", [0, 2**23])
def test_rows_that_a_sweep_makes_ready(name, copied):
    """Normalized ahead inside the derivative, or outside of it."""
    z = jax.random.normal(jax.random.key(0), (2, 20, 6)) * jnp.logspace(-3, 3, 20)[:, None]
    f = partial(getattr(losses, name), temperature=0.2)
    plain = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(*z)
    with rules.in_force(dataclasses.replace(follow("tpu", 60), copied_entries=copied)):
        got = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(*z)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-6), got, plain)


@pytest.mark.parametrize("tile_pairs", [144, 48, 16], ids=["one tile", "panels", "tiles"])
@pytest.mark.parametrize("name", ["clip_loss", "ntxent_loss", "siglip_loss"])
def test_visits_of_a_ring(name, tile_pairs):
    """Over four devices, with rows that are made ready before they travel."""
    z = jax.random.normal(jax.random.key(0), (2, 48, 8))
    loss, mesh = getattr(losses, name), Mesh(np.array(jax.devices()[:4]), ("batch",))
    ring = partial(loss, axis_name="batch", exchange=collectives.ring)
    plain = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*z)
    with rules.in_force(follow("tpu", tile_pairs)):
        step = jax.value_and_grad(lambda z1, z2: ring(z1, z2), argnums=(0, 1))
        rows, whole = jax.P("batch"), jax.P()
        mapped = jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=(whole, rows))
        got = jax.jit(mapped)(*z)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), got, plain)


@pytest.mark.parametrize("temperature", [0.5, 0.07, 0.02, jnp.array(0.02)])
def test_rounded_exponentials_err_as_rounded_rows_do(temperature):
    """A GPU's exponentials in bfloat16 add less to the error than the rows in bfloat16 make."""
    centre, *noise = jax.random.normal(jax.random.key(0), (3, 200, 32))
    z = [centre + 0.5 * n for n in noise]
    f = partial(losses.clip_loss, temperature=temperature)
    rounded = partial(f, precision=jnp.bfloat16)

    def run(f, rule):
        with rules.in_force(rule):
            value, grads = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(*z)
        return np.append(np.ravel(grads), value)

    exact = run(f, rules.Rule())
    rows_alone = run(rounded, follow("cuda", 20 * 200, rounded=False))
    both = run(rounded, follow("cuda", 20 * 200))
    assert not np.array_equal(both, rows_alone)
    error = np.linalg.norm(rows_alone - exact)
    assert np.linalg.norm(both - exact) < 1.5 * error
    assert abs(both[-1] - exact[-1]) < 0.01 * max(1, exact[-1])


def test_second_derivatives_through_branches():
    """Reverse over reverse where platforms differ, so that there is a branch for each."""
    data = one_set(21)
    lines = rules.LINES.items()
    small = tuple((p, dataclasses.replace(line, **SMALL, tile_pairs=40)) for p, line in lines)

    def curvature():
        def inner(x):
            g = jax.grad(lambda x: total(data, {"x": x}, (Channel(1),)))(x)
            return jnp.sum(g * jnp.cos(data["x"]))

        return jax.jit(jax.grad(inner))(data["x"])

    plain = curvature()
    with rules.in_force(rules.Rule(**NONE_WHOLE, lines=small)):
        branched = curvature()
    np.testing.assert_allclose(branched, plain, rtol=1e-4, atol=1e-5)


def step(n, m, dim=16):
    """The compiled value and gradients of a log-sum-exp, as None chooses."""

    def f(x, y):
        rows, cols = Side(x, jnp.arange(n)), Side(y, jnp.arange(m))
        return jnp.sum(reduce_pairs(rows, cols, [Channel(1)])[0])

    shapes = [jax.ShapeDtypeStruct((size, dim), jnp.float32) for size in (n, m)]
    return jax.jit(jax.value_and_grad(f, argnums=(0, 1))).lower(*shapes).compile()


@pytest.mark.parametrize("n", [2048, 9000])
def test_a_program_holds_the_branch_of_its_platform_alone(n):
    program = step(n, n)
    with rules.in_force(rules.everywhere(rules.LINES["cpu"])):
        alone = step(n, n)
    assert "conditional(" not in program.as_text()
    flop = [p.cost_analysis()["flops"] for p in (program, alone)]
    memory = [p.memory_analysis().temp_size_in_bytes for p in (program, alone)]
    assert flop[0] == flop[1]
    assert memory[0] <= 1.01 * memory[1]


def test_one_trace_serves_several_platforms():
    """What is exported for a CPU and for others at once, where their forms differ, runs here."""
    x, y = jax.random.normal(jax.random.key(0), (2, 24, 5))
    lines = tuple((p, dataclasses.replace(line, block=8)) for p, line in rules.LINES.items())
    f = jax.jit(jax.value_and_grad(losses.clip_loss, argnums=(0, 1)))
    plain = f(x, y)
    with rules.in_force(rules.Rule(**NONE_WHOLE, lines=lines)):
        g = jax.jit(jax.value_and_grad(lambda x, y: losses.clip_loss(x, y), argnums=(0, 1)))
        exported = jax.export.export(g, platforms=("cpu", "tpu", "cuda"))(x, y)
    got = exported.call(x, y)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), got, plain)


@pytest.mark.parametrize("n", [64, 5000, 8192, 33_000, 65_536, 1_000_000])
def test_no_tile_of_an_accelerator_is_larger_than_its_line_says(n):
    for platform in ACCELERATORS:
        line = rules.LINES[platform]
        for m in (n, n // 2 + 1, None):
            cut = dict(rules.Rule().cuts(n, m, jnp.float32))[platform]
            visit = dict(rules.Rule().cuts(n, m, jnp.float32, ring=True))[platform]
            assert visit.rows * visit.cols <= max(
                line.visit_pairs or line.tile_pairs, line.block**2
            )
            assert cut.rows * cut.cols <= max(line.tile_pairs, line.block**2)
            assert not cut.keep
            blocks = -(-n // cut.rows)
            assert blocks * cut.rows - n < blocks * line.lanes  # little to fill up


@pytest.mark.parametrize("n", [4096, 8192, 20_000])
def test_rows_of_one_kind_meet_visitors_in_squares(n):
    """A device's own pairs are then visited once, and a visitor's in the same tiles."""
    for platform in ACCELERATORS:
        cut = dict(rules.Rule().cuts(n, None, jnp.bfloat16, ring=True))[platform]
        assert cut.half
        assert cut.rows == cut.cols <= rules.LINES[platform].block


@pytest.mark.parametrize("forms", ["aab", "aba", "baa", "aaa", "abc"])
def test_platforms_of_one_form_share_one_trace(forms):
    """And each gets its own form; the last one's serves platforms without a name too."""
    cuts = {form: Cut(rows=ord(form), cols=1) for form in forms}
    traced = []

    def f(cut, x):
        traced.append(cut)
        return x + cut.rows

    def call(x):
        lines = [(name, cuts[form]) for name, form in zip(rules.LINES, forms, strict=True)]
        return by_platform(lines, f, x)

    traced_once = jax.jit(call).trace(jnp.zeros((), int))
    assert sorted(traced) == sorted(cuts.values())
    platforms = (*rules.LINES, "rocm")
    for name, form in zip(platforms, forms + forms[-1], strict=True):
        program = traced_once.lower(lowering_platforms=(name,)).as_text()
        assert re.findall(r"dense<(9\d)>", program) == [str(cuts[form].rows)]


def test_what_a_caller_asks_for_is_the_same_on_every_platform():
    cuts = rules.Rule().cuts(10_000, 10_000, jnp.float32, block_size=300)
    assert {(cut.rows, cut.cols) for _, cut in cuts} == {(300, 300)}
    assert len({cut for _, cut in cuts}) == 1  # one trace
