"""Problems whose answers the tests of the reductions know: rows, channels, and their definition."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcon.streaming import Channel, Side, nothing, reduce_pairs


def scaled(tile, row, col):
    """Logits with auxiliaries on both sides, as Gaussian embeddings have; one set of rows has both."""
    return tile * row["row_aux"] - jnp.exp(-col["col_aux"]) * tile**2


def equal_ids(row_ids, col_ids):
    return row_ids == col_ids


CHANNELS = (
    Channel(1),
    Channel(0),
    Channel(1, scaled),
    Channel(0, scaled, equal_ids),
    Channel(1, pairs=equal_ids, log=False),
    Channel(0, scaled, log=False),
)


def problem(n, m, dim=5, seed=0):
    """Random rows, columns, ids, validity and auxiliaries; row 0 keeps no pair in any channel."""
    rng = np.random.default_rng(seed)
    row_valid, col_valid = rng.random(n) < 0.8, rng.random(m) < 0.8
    row_valid[0] = False
    x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    y[:2] = x[1:3] + 1e-3  # close pairs
    return {
        "x": jnp.asarray(x, jnp.float32),
        "y": jnp.asarray(y, jnp.float32),
        "row_ids": jnp.asarray(rng.integers(0, 4, n)),
        "col_ids": jnp.asarray(rng.integers(0, 4, m)),
        "row_valid": jnp.asarray(row_valid),
        "col_valid": jnp.asarray(col_valid),
        "row_aux": jnp.asarray(rng.normal(size=n), jnp.float32),
        "col_aux": jnp.asarray(rng.normal(size=m), jnp.float32),
    }


def one_set(n, seed=0):
    """A problem whose rows are its columns."""
    p = problem(n, n, seed=seed)
    return p | {"y": p["x"], "col_ids": p["row_ids"], "col_valid": p["row_valid"]}


def sides(p):
    """The problem's rows and columns; of one set, None for the columns."""
    one_set = p["y"] is p["x"]
    row_aux, col_aux = {"row_aux": p["row_aux"]}, {"col_aux": p["col_aux"]}
    rows = Side(p["x"], p["row_ids"], p["row_valid"], row_aux | col_aux if one_set else row_aux)
    return rows, None if one_set else Side(p["y"], p["col_ids"], p["col_valid"], col_aux)


def slow_reduce(p, distances=False):
    """The definition, pair by pair, in float64."""
    p = {k: np.asarray(v, np.float64) for k, v in p.items()}
    s = p["x"] @ p["y"].T
    if distances:
        s = np.sum((p["x"][:, None] - p["y"][None]) ** 2, axis=2)
    curved = s * p["row_aux"][:, None] - np.exp(-p["col_aux"]) * s**2
    valid = (p["row_valid"][:, None] * p["col_valid"]).astype(bool)
    same = p["row_ids"][:, None] == p["col_ids"]

    def lse(logits, keep, axis):
        lines = zip(np.moveaxis(logits, 1 - axis, 0), np.moveaxis(keep, 1 - axis, 0), strict=True)
        kept = (line[k] for line, k in lines)
        return np.array([np.logaddexp.reduce(v) if len(v) else nothing(np.float32) for v in kept])

    return (
        lse(s, valid & ~same, 1),
        lse(s, valid & ~same, 0),
        lse(curved, valid & ~same, 1),
        lse(curved, valid & same, 0),
        np.sum(s * (valid & same), 1),
        np.sum(curved * (valid & ~same), 0),
    )


def total(p, diff, channels=CHANNELS, **settings):
    """A scalar of all channels with different weights, as a function of the differentiable part."""
    p = p | diff
    p["y"] = diff.get("y", p["x"])
    outputs = reduce_pairs(*sides(p), channels, **settings)
    parts = (
        jnp.where(o > -1e30, o, 0) * jnp.sin(1.0 + k + jnp.arange(len(o)))
        for k, o in enumerate(outputs)
    )
    return sum(map(jnp.sum, parts))


def differentiable(p):
    keys = ("x", "row_aux", "col_aux") if p["y"] is p["x"] else ("x", "y", "row_aux", "col_aux")
    return {k: p[k] for k in keys}


def lse_sum(x, y, block_size):
    ids = jnp.arange(len(x))
    channels = [Channel(1), Channel(0)]
    outputs = reduce_pairs(Side(x, ids), Side(y, ids), channels, block_size=block_size)
    return sum(map(jnp.sum, outputs))


def products(f, x, y, block):
    """How many products of blocks of rows a compiled program has, by its operations: XLA's own count.

    Of a loop it counts one round. What else there is to compute must be little beside a product.
    """
    cost = jax.jit(f).lower(x, y).compile().cost_analysis()
    return round(cost["flops"] / (2 * block * block * x.shape[1]))
