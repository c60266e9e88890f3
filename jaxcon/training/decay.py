"""What weight decay shrinks: decided by what a parameter is called and is for, not by its axes alone.

A bias of attention has two axes, (heads, head_dim), and one of layers stacked by `nn.scan` has two as
well: to count axes would shrink both.

>>> import jax.numpy as jnp
>>> decay_mask({"query": {"kernel": jnp.ones((8, 2, 4)), "bias": jnp.ones((2, 4))}})
{'query': {'bias': False, 'kernel': True}}
"""

import re
from typing import Any

import jax
import numpy as np

# Words in a name that say: shifts, scales (of norms, too), temperatures, positions, class tokens.
_SHIFTS = {"bias", "biases", "offset", "beta", "shift", "shifts"}
_SCALES = {"scale", "scales", "gain", "gamma", "slope", "temperature", "temperatures"}
_PLACES = {"pos", "posembed", "posemb", "position", "positions", "positional", "pe", "wpe"}
# `b` says a bias where a name begins with it, as b_q does; lora_b is a matrix.
_LETTER = "b"
_LEFT_ALONE = _SHIFTS | _SCALES | _PLACES | {"cls", "class"}
_TOKENS = ("token", "tokens")  # as the last word: cls_token, mask_token, register_tokens
_TABLES = ("embedding", "embeddings")


def decay_mask(params: Any) -> Any:
    """Returns True for what weight decay shrinks: kernels and tables of tokens.

    Left alone are biases, scales of norms, temperatures and other scalars, embeddings of positions,
    class and other learned tokens. Tables of tokens decay, as in CLIP's training: a row is a kernel's,
    of a one-hot input.

    Modules of other people are decided by the same rule. A parameter decays if it has two axes or
    more and

    - is called `kernel`, as the matrix of every Flax layer is, or
    - has a name that says none of the above and is more than one vector, axes of size 1 aside. The
      table of `nn.Embed` is always called `embedding`: there the layer's name says it, and where that
      is Flax's own, `Embed_0`, the name of the layer around it, if it says that they are positions.

    So a matrix with a name of its own decays. Where that is not meant, build the optimizer of optax
    with a mask of your own: `optax.adamw(schedule, mask=...)`.

    >>> import jax.numpy as jnp
    >>> decay_mask({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), "temperature": jnp.ones(())})
    {'bias': False, 'kernel': True, 'temperature': False}

    Args:
      params: tree of arrays, or of their shapes.

    Returns:
      Tree of bool.
    """
    return jax.tree_util.tree_map_with_path(_decays, params)


def names_of(path: Any) -> list[str]:
    """Returns the names along a path of JAX; numbers in a list, and the boxes of Flax, are no names.

    >>> import jax
    >>> [(path, _)] = jax.tree_util.tree_leaves_with_path({"tower": [{"bias": 1.0}]})
    >>> names_of(path)
    ['tower', 'bias']
    """
    names = [getattr(key, "key", getattr(key, "name", None)) for key in path]
    names = [name for name in names if isinstance(name, str)]
    return names[:-1] if names[1:] and names[-1] == "value" else names


def _decays(path: Any, leaf: Any) -> bool:
    shape = np.shape(leaf)
    names = names_of(path)
    name = names[-1] if names else ""
    if len(shape) < 2 or name == "kernel":
        return len(shape) > 1
    words = _words(name)
    if words and words[-1] in _TOKENS:
        return False
    if words[:1] == [_LETTER]:
        return False
    if name in _TABLES:
        words += _of_table(names[:-1])
    elif sum(size > 1 for size in shape) < 2:
        return False
    return _LEFT_ALONE.isdisjoint(words)


def _of_table(layers: list[str]) -> list[str]:
    """What the names of layers around a table say of it."""
    *around, own = ["", "", *layers]
    if re.fullmatch(r"Embed_\d+", own):
        return [word for word in _words(around[-1]) if word in _PLACES]
    return _words(own)


def _words(name: str) -> list[str]:
    """`pos_embedding` and `posEmbedding` are both two words."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
