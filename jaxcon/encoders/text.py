"""Text transformers of any size, and one of the size of CLIP's.

>>> text_base(49_408).dim, text_base(49_408).depth, text_base(49_408).heads
(512, 12, 8)
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxcon.encoders.layers import LayerNorm, to_features
from jaxcon.encoders.vit import TransformerBlock


class TextTransformer(nn.Module):
    """Embedded tokens with learned positions, pre-norm blocks, mean over all that is not padding.

    Every token sees all others. There are no batch statistics: `train` and `axis_name` are accepted
    but change nothing.

    Example:
      >>> import functools, jax
      >>> net = TextTransformer(vocabulary=300, dim=16, depth=1, heads=2)
      >>> start = jax.jit(functools.partial(net.init_with_output, train=False))
      >>> features, variables = start(jax.random.key(0), jnp.array([[5, 7, 0, 0], [9, 0, 0, 0]]))
      >>> features.shape
      (2, 16)

    Attributes:
      vocabulary: number of tokens; 0 is padding.
      dim: width of the tokens, a multiple of `heads`; the number of features.
      depth: number of blocks.
      heads: attention heads.
      axis_name: unused, so that encoders are interchangeable.
      dtype: dtype of the computation, e.g. `jnp.bfloat16`; parameters stay float32.
    """

    vocabulary: int
    dim: int = 128
    depth: int = 2
    heads: int = 4
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: Array, *, train: bool) -> Array:
        """Computes features of texts; those of a row of only padding are 0.

        Args:
          tokens: int, `[batch, length]`, numbers from 0 to `vocabulary - 1`, 0 for padding. The
            length must be that of the first call.
          train: unused.

        Returns:
          `[batch, dim]`, float32; under `jax.jit`, NaN for a row with a number that is not a token.

        Raises:
          ValueError: if rows have another length or, outside `jax.jit`, if numbers are not tokens.
        """
        del train
        self._check(tokens)
        # Negative numbers are not tokens either, though NumPy would count them from the end.
        # int8 holds no number beyond a vocabulary of 300: 300 would be 44, which is a token.
        tokens = tokens.astype(jnp.promote_types(tokens.dtype, jnp.int32))
        tokens = jnp.where(tokens < 0, self.vocabulary, tokens)
        where = tokens != 0  # (batch, length)
        normal = nn.initializers.normal(0.02)
        x = nn.Embed(self.vocabulary, self.dim, embedding_init=normal, dtype=self.dtype)(tokens)
        positions = self.param("positions", normal, (tokens.shape[1], self.dim), jnp.float32)
        x = x + positions.astype(x.dtype)
        mask = where[:, None, None, :]  # no head of no token attends to padding
        for _ in range(self.depth):
            x = TransformerBlock(self.heads, dtype=self.dtype)(x, mask)
        x = to_features(LayerNorm(dtype=self.dtype)(x))
        count = jnp.maximum(where.sum(1, keepdims=True), 1)
        return jnp.sum(x, axis=1, where=where[..., None]) / count

    def _check(self, tokens: Array) -> None:
        if self.has_variable("params", "positions"):
            length = self.get_variable("params", "positions").shape[0]
            if tokens.shape[1] != length:
                raise ValueError(
                    f"tokens: expected rows of {length}, as this network was initialized with, got "
                    f"rows of {tokens.shape[1]}"
                )
        known = not isinstance(tokens, Tracer) and getattr(tokens, "is_fully_addressable", True)
        if not known or not tokens.size:
            return
        low, high = int(np.asarray(tokens).min()), int(np.asarray(tokens).max())
        if low < 0 or high >= self.vocabulary:
            raise ValueError(
                f"tokens: expected numbers from 0 to {self.vocabulary - 1}, got {low} to {high}; were "
                "they made by another tokenizer?"
            )


def text_base(vocabulary: int, **settings: Any) -> TextTransformer:
    """Makes a text transformer of the size of CLIP's: 12 blocks of width 512, 8 heads.

    37.8 million parameters in its blocks; CLIP's has 49,408 tokens in rows of 77. Its design is that of
    `TextTransformer`: all tokens see each other and features are their mean, where CLIP's see those
    before them, and the last one is taken. So CLIP's weights do not fit.

    Example:
      >>> text_base(300, axis_name="batch").dim
      512

    Args:
      vocabulary: number of tokens; 0 is padding.
      **settings: `axis_name`, `dtype` of TextTransformer.

    Returns:
      A TextTransformer.

    Reference:
      Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
    """
    return TextTransformer(vocabulary, **{"dim": 512, "depth": 12, "heads": 8, **settings})
