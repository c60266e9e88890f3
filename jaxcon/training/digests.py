"""The arrays of a state by name, their sizes and their digests."""

import hashlib
import json
from typing import Any

import numpy as np
from flax import serialization
from jax.tree_util import keystr, tree_flatten_with_path


def state_leaves(state: Any) -> dict[str, Any]:
    """Returns the arrays of a state by name.

    Example:
      >>> state_leaves({"params": {"kernel": 1, "bias": 2}})
      {'params.bias': 2, 'params.kernel': 1}

    Args:
      state: a flax dataclass or a tree.

    Returns:
      Leaves by dotted path.
    """
    tree = serialization.to_state_dict(state)
    return {leaf_name(path): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


def digest(array: Any) -> str:
    """Returns the SHA-256 of an array's dtype, shape and bytes.

    Example:
      >>> digest(np.zeros(2, np.float32))[:12]
      '24e76ceeb262'

    Args:
      array: an array held whole on this host.

    Returns:
      Hexadecimal digits.
    """
    array = np.asarray(array)
    header = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def state_hash(state: Any) -> str:
    """Returns one SHA-256 of all arrays of a state: equal hashes mean equal states.

    Example:
      >>> state_hash({"w": np.ones(2)}) == state_hash({"w": np.ones(2)})
      True

    Args:
      state: a flax dataclass or a tree.

    Returns:
      Hexadecimal digits.
    """
    leaves = {name: digest(leaf) for name, leaf in state_leaves(state).items()}
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()


def state_bytes(state: Any) -> int:
    """Returns the size of a state's arrays, or of their shapes (`jax.eval_shape`).

    Example:
      >>> state_bytes({"w": np.ones(2, np.float32), "b": np.ones((), np.float32)})
      12

    Args:
      state: a flax dataclass or a tree.
    """
    leaves = state_leaves(state).values()
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in leaves)


def leaf_name(path: tuple[Any, ...]) -> str:
    """Returns the dotted path of a leaf, from its keys; collections are named as in flax."""
    return keystr(path, simple=True, separator=".").removeprefix("carried.")
