"""Neighbours from the devices: the vote of every training row compared in float64, in little memory."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcon.evaluation import knn, nearest
from jaxcon.evaluation.knn import knn_accuracy
from jaxcon.evaluation.nearest import make_fold, propose


def _expected(train_x, train_y, test_x, test_y, k, temperature=0.07):
    """One test row after another; of rows that tie for the last places, every choice counts alike."""
    unit = [
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        for x in (train_x, test_x)
    ]
    cosines = np.round(unit[1] @ unit[0].T, 12)
    total = 0.0
    for row, own in zip(cosines, test_y, strict=True):
        last = np.sort(row)[-k]
        above, tied = row > last, np.bincount(train_y[row == last], minlength=3)
        fixed = np.zeros(3)
        np.add.at(fixed, train_y[above], np.exp((row[above] - row.max()) / temperature))
        places, weight = k - above.sum(), np.exp((last - row.max()) / temperature)
        for drawn in itertools.product(*(range(min(t, places) + 1) for t in tied)):
            if sum(drawn) == places:
                ways = math.prod(math.comb(t, d) for t, d in zip(tied, drawn, strict=True))
                votes = fixed + weight * np.array(drawn)
                best = np.isclose(votes, votes.max(), rtol=1e-9)
                total += ways / math.comb(tied.sum(), places) * best[own] / best.sum()
    return total / len(test_y)


def _directions(n, seed, *, high=3, noise=0.0):
    """Rows in few directions, so that many tie, and their classes."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, high, (n, 3)) + np.array([1.0, 0, 0])
    return (x + noise * rng.normal(size=x.shape)).astype(np.float32), rng.integers(0, 3, n)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles that neither rows nor queries fill, so that every loop turns."""
    monkeypatch.setattr(nearest, "ROWS", 64)
    monkeypatch.setattr(nearest, "QUERIES", 8)
    monkeypatch.setattr(nearest, "_HELD", 16)
    monkeypatch.setattr(nearest, "_PAIRS", 1000)
    monkeypatch.setattr(knn, "_BLOCK", 7)


@pytest.mark.parametrize("n", [30, 300, 2000])  # all proposed, some ties, ties beyond all proposed
@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_an_oracle_in_float64_with_many_ties(n, k):
    train, test = _directions(n, 0), _directions(40, 1)
    assert knn_accuracy(*train, *test, k=k) == pytest.approx(_expected(*train, *test, k), abs=1e-9)


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_every_tile_and_any_number_of_devices_give_the_same(small_tiles, devices, noise):
    train, test = _directions(500, 2, noise=noise), _directions(101, 3, noise=noise)
    found = knn_accuracy(*train, *test, k=5, devices=jax.devices()[:devices])
    assert found == pytest.approx(_expected(*train, *test, 5), abs=1e-9)


@pytest.mark.parametrize("n", [30, 400])
def test_rows_that_float32_cannot_tell_apart_keep_their_order(n):
    """Cosines of 1 - 1e-10, 1 - 4e-10 and so on: all are 1 in float32."""
    angles = np.random.default_rng(0).permutation(np.arange(n)) * 1.4e-5
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = (angles >= 5 * 1.4e-5).astype(int)
    query = np.array([[1.0, 0.0]])
    assert knn_accuracy(train, labels, query, np.array([0]), k=5) == 1.0
    assert knn_accuracy(train, labels, query, np.array([1]), k=5) == 0.0


def test_few_queries_are_compared_in_float64_where_features_are_spread(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    x = (rng.normal(size=(3000, 32)) + 2 * rng.normal(size=(3, 32))[labels]).astype(np.float32)
    seen = []
    monkeypatch.setattr(knn, "compared", lambda *given: seen.append(len(given[1])) or real(*given))
    real = nearest.compared
    found = knn_accuracy(x[:2000], labels[:2000], x[2000:], labels[2000:])
    assert found == _expected(x[:2000], labels[:2000], x[2000:], labels[2000:], 20)
    assert sum(seen) < 100


def test_proposed_cosines_are_off_by_no_more_than_is_said():
    rng = np.random.default_rng(0)
    rows, queries = (rng.normal(size=(n, 256)).astype(np.float32) ** 3 for n in (500, 20))
    found = propose(rows, queries, 10, devices=jax.devices()[:1])
    exact = nearest.compared(rows, queries, found.rows)
    assert np.abs(found.cosines - exact).max() <= found.error < 1e-4
    everything = nearest.compared(rows, queries, np.tile(np.arange(500), (20, 1)))
    others = np.sort(everything, axis=1)[:, -found.rows.shape[1] - 1]
    assert (others <= found.cosines[:, -1] + found.error).all()


def test_a_hundred_thousand_rows_of_2048_take_the_memory_of_tiles():
    """As the program is compiled for 10,000 queries on one device."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("queries",))
    count, held = 20 + nearest.SPARE, 10 * nearest.QUERIES
    best = (jax.ShapeDtypeStruct((held, count), dtype) for dtype in (jnp.float32, jnp.int32))
    rows = jax.ShapeDtypeStruct((nearest.ROWS, 2048), jnp.float32)
    queries = jax.ShapeDtypeStruct((held, 2048), jnp.float32)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    program = make_fold(mesh, nearest.QUERIES).lower(tuple(best), queries, rows, number, number)
    memory = program.compile().memory_analysis()
    tile = 4 * nearest.QUERIES * nearest.ROWS
    assert memory.temp_size_in_bytes < 5 * tile
    assert memory.argument_size_in_bytes < 4 * 2048 * (held + nearest.ROWS) * 1.05
    assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 4 * held * 100_000 / 20


def test_the_device_never_holds_more_than_it_is_said_to(small_tiles, monkeypatch):
    shapes = set()

    def recorded(mesh, tile):
        fold = make_fold(mesh, tile)
        return lambda best, queries, rows, *rest: (
            shapes.add((tile, queries.shape, rows.shape)) or fold(best, queries, rows, *rest)
        )

    monkeypatch.setattr(nearest, "make_fold", recorded)
    x = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    propose(x, x[:100], 3, devices=jax.devices()[:2])
    assert shapes == {(8, (32, 4), (64, 4))}


def test_devices_of_another_process_are_refused():
    x, y = np.eye(3), np.arange(3)
    for devices in ([], ["another"]):
        with pytest.raises(ValueError, match="devices must be some of the 8 of this process, got"):
            knn_accuracy(x, y, x, y, devices=devices)
