"""What CONTRIBUTING says is enough for a new encoder and a new experiment."""

import re
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


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the tree, changed in the places that CONTRIBUTING names, and in no others."""
    root = tmp_path_factory.mktemp("tree")
    copy(root, "jaxcon", "experiments")
    (root / "experiments" / "toy.py").write_text(block("Adding an experiment"))
    encoders = root / "jaxcon" / "encoders"
    (encoders / "linear.py").write_text(block("Adding an encoder"))
    line = "from jaxcon.encoders.linear import Linear\n"
    insert(encoders / "__init__.py", "from jaxcon.encoders.mlp import MLP\n", line)
    insert(encoders / "describe.py", "from jaxcon.encoders.mlp import MLP\n", line)
    insert(encoders / "describe.py", "TextTransformer, ProjectionHead, Side)", "Linear, ")
    flag = re.search(r"`(\"linear\": Entry.*?,)`", TEXT)
    assert flag is not None
    insert(root / "experiments/running/encoders.py", '    "vit": Entry', f"    {flag[1]}\n")
    return root


def test_a_new_experiment_trains_a_new_encoder_and_its_run_is_used(tree):
    flags = ["--encoder=linear", "--epochs=1", "--workdir=run", "--batch-size=64"]
    command = [sys.executable, "-m", "experiments.toy", *flags]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "training linear with a projection head" in done.stdout
    assert (tree / "run" / "report.html").exists()
    use = "import jaxcon, numpy as np; run = jaxcon.load_run('run'); print(jaxcon.__file__); "
    use += "print(run.embed_images(np.zeros((2, 8, 8, 1), np.uint8)).shape)"
    used = subprocess.run(
        [sys.executable, "-c", use], cwd=tree, capture_output=True, text=True, check=True
    )
    assert used.stdout.splitlines() == [str(tree / "jaxcon" / "__init__.py"), "(2, 8)"]


def test_the_help_names_the_new_encoder(tree):
    command = [sys.executable, "-m", "experiments.simclr", "--help"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    assert "linear" in done.stdout
