"""What CONTRIBUTING says is enough for a new encoder, dataset, optimizer and experiment."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.trees import ROOT, copy, insert

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def block(heading: str) -> str:
    """The code below a heading."""
    section = TEXT.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    return textwrap.dedent(re.findall(r" *```python\n(.*?)```", section, re.DOTALL)[0])


def line(start: str) -> str:
    """The line of a table that is given by its start."""
    given = re.search(rf"`({re.escape(start)}.*?,)`", TEXT)
    assert given is not None
    return f"    {given[1]}\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree, changed in the places that CONTRIBUTING names, and in no others."""
    root = tmp_path_factory.mktemp("tree")
    copy(root, "jaxcon", "experiments", "tests")
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, root)
    (root / "experiments" / "toy.py").write_text(block("Adding an experiment"))
    encoders = root / "jaxcon" / "encoders"
    (encoders / "linear.py").write_text(block("Adding an encoder"))
    importing = "from jaxcon.encoders.linear import Linear\n"
    insert(encoders / "__init__.py", "from jaxcon.encoders.mlp import MLP\n", importing)
    insert(encoders / "describe.py", "from jaxcon.encoders.mlp import MLP\n", importing)
    insert(encoders / "describe.py", "TextTransformer, ProjectionHead, Side)", "Linear, ")
    running = root / "experiments" / "running"
    insert(running / "encoders.py", '    "vit": Entry', line('"linear": Entry'))
    shipped = root / "jaxcon" / "data" / "shipped"
    (shipped / "stripes.py").write_text(block("Adding a dataset"))
    insert(shipped / "__init__.py", '    "digits": "Jaxcon', line('"stripes": "'))
    recipes = root / "experiments" / "images" / "recipes.py"
    insert(recipes, '    "digits": DIGITS', line('"stripes": DIGITS'))
    optimizers = root / "jaxcon" / "training" / "optimizers.py"
    insert(optimizers, "def sgd(", f"{block('Adding an optimizer')}\n\n")
    insert(running / "optimizers.py", '    "sgd": Rule', line('"lion": Rule'))
    return root


def run(tree, *command):
    """A command of the copy, with a cache of its own."""
    environ = {**os.environ, "PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(tree / "cache")}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    return done.stdout


def test_a_new_experiment_trains_what_is_new_and_its_run_is_used(tree):
    new = ["--encoder=linear", "--dataset=stripes", "--optimizer=lion"]
    flags = [*new, "--epochs=1", "--workdir=run", "--batch-size=64"]
    said = run(tree, "-m", "experiments.toy", *flags)
    assert "found 192 images of 2 classes (lie, stand): 64 train, 64 validation, 64 test" in said
    assert "training linear with a projection head" in said
    assert (tree / "run" / "report.html").exists()
    config = json.loads((tree / "run" / "config.json").read_text())
    kept = [config[name] for name in ("encoder", "dataset", "optimizer")]
    assert kept == ["linear", "stripes", "lion"]
    assert (config["learning_rate"], config["weight_decay"]) == (2e-4, 1e-3)
    assert config["warmup_epochs"] == 0.1  # of the recipe
    use = "import jaxcon, numpy as np; run = jaxcon.load_run('run'); print(jaxcon.__file__); "
    use += "print(run.embed_images(np.zeros((2, 8, 8, 1), np.uint8)).shape)"
    assert run(tree, "-c", use).splitlines() == [str(tree / "jaxcon" / "__init__.py"), "(2, 8)"]


def test_the_help_names_what_is_new(tree):
    said = run(tree, "-m", "experiments.simclr", "--help")
    assert "linear" in said
    assert "lion" in said


def test_a_mistyped_name_is_told_the_new_dataset(tree):
    code = "from jaxcon.data.sources import load; load('stripe')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True)
    assert "did you mean stripes" in done.stderr
    assert "(stripes, digits, scenes, folder:PATH" in done.stderr


@pytest.mark.slow
def test_a_new_optimizer_is_held_to_what_every_optimizer_is(tree):
    files = [f"tests/training/test_{name}.py" for name in ("optimizers", "decay", "sums")]
    flags = ["-q", "-k", "lion", "-p", "no:cacheprovider", "-p", "no:xdist"]
    said = run(tree, "-m", "pytest", *files, *flags)
    assert said.count(".") > 15
