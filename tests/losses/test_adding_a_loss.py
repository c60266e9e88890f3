"""The steps of CONTRIBUTING for a new loss, taken in a copy of the tree, are enough."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.trees import ROOT, copy, insert

LOSS = '''

@over_mesh
def toy_loss(
    z1: ArrayLike,
    z2: ArrayLike,
    *,
    axis_name: AxisName = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: ReduceFn = jnp.mean,
) -> Array:
    """Toy loss: one minus the cosine of the two views of an example.

    Example:
      >>> print(f"{toy_loss(jnp.eye(2), -jnp.eye(2)):.1f}")
      2.0

    Args:
      z1, z2: `[batch, *features]`, any scale.
      axis_name, where, weights, reduce_fn: see `jaxcon.typing`.

    Returns:
      A scalar in [0, 2].

    Raises:
      ValueError: for arguments of another shape, dtype or range; the message says which.

    Reference:
      none
    """
    rows = prepare({"z1": z1, "z2": z2}, axis_name=axis_name, where=where, weights=weights)
    u, v = (l2_normalize(z) for z in rows.z)
    return reduce_rows(1 - jnp.sum(u * v, axis=1), rows, reduce_fn)
'''
FORMULA = """

def toy(z1, z2, *, held=None):
    return all_valid([1 - a @ b for a, b in zip(unit(z1), unit(z2), strict=True)])
"""
ROW = "| `toy_loss(z1, z2)` | 1 - cos | none | where, weights | mean | - | - |\n"


def append(path, text):
    path.write_text(path.read_text() + text)


def contract(tree):
    """Runs the contract of the new loss in a tree."""
    flags = ["-q", "-k", "toy_loss or public_loss", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/losses", "jaxcon/losses/regularizers.py", *flags],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_loss_takes_six_files(tmp_path):
    copy(tmp_path, "jaxcon", "tests", "docs")
    for name in ("pyproject.toml", "conftest.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    append(tmp_path / "jaxcon/losses/regularizers.py", LOSS)
    face = tmp_path / "jaxcon/losses/__init__.py"
    insert(face, "__all__", "from jaxcon.losses.regularizers import toy_loss\n\n")
    insert(face, '    "triplet_loss"', '    "toy_loss",\n')
    without = contract(tmp_path)
    assert without.returncode != 0
    assert "toy_loss" in without.stdout
    cases = tmp_path / "tests/losses/cases.py"
    insert(cases, '    "variance_loss"', '    "toy_loss": ANCHORED,\n')
    case = '    form("toy_loss", regularizers.toy, symmetric=True),\n'
    insert(cases, '    form("variance_loss"', case)
    append(tmp_path / "tests/losses/formulas/regularizers.py", FORMULA)
    insert(tmp_path / "docs/losses.md", "| `variance_loss", ROW)
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("`variance_loss`", "`variance_loss` `toy_loss`"))
    done = contract(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count(".") > 30
