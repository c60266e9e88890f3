"""What weight decay shrinks, decided by a parameter's name and role, not by its axes alone.

An attention bias has two axes, (heads, head_dim), and so has a bias of layers stacked by `nn.scan`:
counting axes would shrink both.

>>> import jax.numpy as jnp
>>> decay_mask({"query": {"kernel": jnp.ones((8, 2, 4)), "bias": jnp.ones((2, 4))}})
{'query': {'bias': False, 'kernel': True}}
"""

import re
from typing import Any

import jax
import numpy as np

# Words in a name that mean: shifts, scales (also of norms), temperatures, positions, class tokens.
_SHIFTS = {"bias", "biases", "offset", "beta", "shift", "shifts"}
_SCALES = {"scale", "scales", "gain", "gamma", "slope", "temperature", "temperatures"}
_PLACES = {"pos", "posembed", "posemb", "position", "positions", "positional", "pe", "wpe"}
# `b` means a bias if a name begins with it, as b_q does; lora_b is a matrix.
_LETTER = "b"
_LEFT_ALONE = _SHIFTS | _SCALES | _PLACES | {"cls", "class"}
_TOKENS = ("token", "tokens")  # as the last word: cls_token, mask_token, register_tokens
_TABLES = ("embedding", "embeddings")


def decay_mask(params: Any) -> Any:
    """Returns True for what weight decay shrinks: kernels and tables of tokens.

    Biases, scales of norms, temperatures and other scalars, position embeddings, and class and other
    learned tokens are left alone. Tables of tokens decay, as in CLIP's training: such a table is the
    kernel of a one-hot input.

    The same rule applies to other people's modules. A parameter decays if it has two axes or more and

    - is called `kernel`, as the matrix of every Flax layer is, or
    - has a name that means none of the above and is more than one vector, not counting axes of size 1.
      The table of `nn.Embed` is always called `embedding`: there the layer's name decides, or, if that
      is Flax's default `Embed_0`, the name of the layer around it if it means positions.

    So a matrix with an unknown name decays. If you do not want that, build the optimizer in optax with
    a mask of your own: `optax.adamw(schedule, mask=...)`.

    Example:
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
    """Returns the names along a path of JAX; list indices and the boxes of Flax are not names.

    Example:
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
    """Returns what the names of layers around a table say about it."""
    *around, own = ["", "", *layers]
    if re.fullmatch(r"Embed_\d+", own):
        return [word for word in _words(around[-1]) if word in _PLACES]
    return _words(own)


def _words(name: str) -> list[str]:
    """Splits a name into words: `pos_embedding` and `posEmbedding` are both two."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
