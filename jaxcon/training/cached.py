"""Large contrastive batches through an encoder that only fits small ones: the gradient cache.

A contrastive loss needs all embeddings of a batch at once, but not all of the encoder's activations.
So: embed chunk by chunk, keeping only the embeddings; take the loss and its gradient with respect to
them; then embed each chunk again and pull its share of that gradient back. This takes two forward
passes instead of one, but holds the activations of only one chunk. The gradients are exact.

>>> import jax, jax.numpy as jnp
>>> from jaxcon import losses
>>> from jaxcon.training import cached_value_and_grad
>>> def encode(params, images, key):
...     return jnp.tanh(images @ params)
>>> def loss_fn(params, z):
...     return losses.npairs_loss(z, z)
>>> params, images = jnp.eye(3), jax.random.normal(jax.random.key(0), (8, 3))
>>> in_chunks = jax.jit(cached_value_and_grad(encode, loss_fn, chunk_size=2))
>>> value, gradient = in_chunks(params, images)
>>> direct = jax.jit(jax.grad(lambda p: loss_fn(p, encode(p, images, None))))(params)
>>> print(bool(jnp.allclose(gradient, direct, atol=1e-6)))
True

Reference: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021,
https://arxiv.org/abs/2101.06983
"""

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcon import collectives
from jaxcon.collectives import explicit_mesh, to_varying, varying_axes

# encode(params, chunk, key) -> embeddings, or with statistics
# encode(params, batch_stats, chunk, key) -> (embeddings, batch_stats)
Encode = Callable[..., Any]


def cached_value_and_grad(
    encode: Encode,
    loss_fn: Callable[..., Any],
    *,
    chunk_size: int,
    has_aux: bool = False,
    per_chunk_statistics: bool = False,
) -> Callable[..., Any]:
    """Makes `jax.value_and_grad` of `loss_fn(params, encode(params, batch))` work in chunks.

    Args:
      encode: `(params, chunk, key) -> embeddings`, where chunk is a pytree of arrays `[chunk_size,
        ...]` and embeddings any pytree of arrays whose leading axis is the chunk's (two towers,
        perhaps a log standard deviation). Rows must not influence each other. With batch statistics:
        `(params, batch_stats, chunk, key) -> (embeddings, batch_stats)`.
      loss_fn: `(params, embeddings, **rows) -> scalar` over the whole batch; params for a learned
        temperature, rows for anything else that belongs to each row: labels, ids, where, weights.
        Under a
        mapped axis it may gather: the rule for gradients is that of any loss.
      chunk_size: rows per chunk; must divide the (device's) batch.
      has_aux: whether `loss_fn` returns `(scalar, aux)`, as for `jax.value_and_grad`.
      per_chunk_statistics: must be True to use batch statistics, see below.

    Returns:
      A function `f(params, batch, key=None, *, batch_stats=None, rows=None)` that returns `(value,
      gradient)`, or with batch_stats `(value, gradient, batch_stats)`; with `has_aux` the value is
      `(value, aux)`. `rows` is a mapping of keywords for `loss_fn` to arrays `[batch, ...]` of
      the whole batch, which are not differentiated. The gradient has the parameters' dtypes; the
      chunks' shares are summed in at least float32. Chunk c sees `fold_in(key, c)` in both passes,
      so that dropout draws the same masks in both. Under a mapped axis, give each device a key of
      its own, `fold_in(key, axis_index)`, or chunk c draws the same masks on all of them.

    Raises:
      ValueError: if chunk_size does not divide the batch; if the batch is sharded over Explicit mesh
        axes, which chunks would cut across; or if batch_stats are not empty without
        `per_chunk_statistics=True`. Batch normalization lets rows influence each other: in chunks it
        normalizes by the statistics of a chunk, which makes a different model than with the whole
        batch, although its gradients are exact for what it computes. Running averages then move once
        per chunk. Group or layer normalization has no such limit.
    """

    def run(
        params: Any,
        batch: Any,
        key: Any = None,
        *,
        batch_stats: Any = None,
        rows: Mapping[str, Any] | None = None,
    ) -> Any:
        _check_statistics(batch_stats, per_chunk_statistics)
        chunks = _split(batch, chunk_size)
        count = jax.tree.leaves(chunks)[0].shape[0]

        def embed(params: Any, stats: Any, chunk: Any, number: jax.Array) -> tuple[Any, Any]:
            chunk_key = None if key is None else jax.random.fold_in(key, number)
            if batch_stats is None:
                return encode(params, chunk, chunk_key), None
            return encode(params, stats, chunk, chunk_key)

        def first_pass(stats: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, Any]:
            number, chunk = numbered
            embeddings, updated = embed(params, stats, chunk, number)
            return updated, (embeddings, stats)

        numbered = (jnp.arange(count), chunks)
        updated, (embeddings, stats) = _scan(first_pass, batch_stats, numbered)
        value, (own, cotangents) = jax.value_and_grad(
            lambda params, chunked: loss_fn(params, _join(chunked), **(rows or {})),
            argnums=(0, 1),
            has_aux=has_aux,
        )(params, embeddings)

        # Each device pulls back its own chunks; they are summed over devices once, at the end.
        axes = jax.tree.map(lambda p: _axes(batch) - varying_axes(p), params)
        here = jax.tree.map(to_varying, params, axes)

        def second_pass(gradient: Any, entry: tuple[Any, Any, Any]) -> tuple[Any, None]:
            (number, chunk), stats, cotangent = entry
            _, pullback = jax.vjp(lambda p: embed(p, stats, chunk, number)[0], here)
            return jax.tree.map(_add, gradient, pullback(cotangent)[0]), None

        none = jax.tree.map(jnp.zeros_like, here)
        shares, _ = _scan(second_pass, none, (numbered, stats, cotangents))
        shares = jax.tree.map(lambda g, a: collectives.sum(g, tuple(a) or None), shares, axes)
        gradient = jax.tree.map(lambda g, o, p: _add(o, g).astype(p.dtype), shares, own, params)
        return (value, gradient) if batch_stats is None else (value, gradient, updated)

    return run


def _axes(batch: Any) -> frozenset[str]:
    """Returns the mapped axes over whose devices the rows are known to vary."""
    return frozenset().union(*map(varying_axes, jax.tree.leaves(batch)))


def _add(total: jax.Array, share: jax.Array) -> jax.Array:
    """Adds in at least float32: in bfloat16 a sum of ones stops growing at 256."""
    return total.astype(jnp.promote_types(total.dtype, jnp.float32)) + share


def _scan(step: Callable[..., Any], carry: Any, xs: Any) -> tuple[Any, Any]:
    """Runs `lax.scan` with its first step outside, so that the carry has the type that steps return.

    Otherwise `jax.shard_map` would refuse a carry that starts out equal on all devices and then differs
    between them, such as running averages.
    """
    carry, first = step(carry, jax.tree.map(lambda x: x[0], xs))
    carry, rest = lax.scan(step, carry, jax.tree.map(lambda x: x[1:], xs))
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)


def _split(batch: Any, chunk_size: int) -> Any:
    leaves = jax.tree.leaves(batch)
    if any(explicit_mesh(x) is not None for x in leaves):
        raise ValueError(
            "the batch is sharded over Explicit mesh axes, which chunks of rows would cut across: call "
            "this inside jax.shard_map over that mesh, with axis_name in the loss (docs/devices.md)"
        )
    sizes = {x.shape[0] for x in leaves}
    if len(sizes) != 1:
        raise ValueError(f"all arrays of the batch need the same leading size, got {sorted(sizes)}")
    (rows,) = sizes
    if not isinstance(chunk_size, numbers.Integral) or chunk_size < 1 or rows % chunk_size:
        raise ValueError(
            f"chunk_size must divide the batch of {rows} rows on this device, got {chunk_size}"
        )
    count = rows // int(chunk_size)
    return jax.tree.map(lambda x: x.reshape(count, int(chunk_size), *x.shape[1:]), batch)


def _join(chunks: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), chunks)


def _check_statistics(batch_stats: Any, consent: bool) -> None:
    if jax.tree.leaves(batch_stats) and not consent:
        raise ValueError(
            "batch normalization in chunks is not exact: each chunk would be normalized by its own "
            "mean and variance, not by those of the batch. Use group or layer normalization, or "
            "accept statistics per chunk with per_chunk_statistics=True"
        )
