"""A file imports only lower floors, and importing the losses loads nothing heavy."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = {
    "jaxcon.typing": 0,
    "jaxcon.similarity": 1,
    "jaxcon.collectives": 1,
    "jaxcon.streaming": 2,
    "jaxcon.losses": 3,
    "jaxcon.augment": 3,
    "jaxcon.encoders": 3,
    "jaxcon.data": 3,
    "jaxcon.diagnostics": 4,
    "jaxcon.plots": 4,
    "jaxcon.training": 4,
    "jaxcon.evaluation": 4,
    "jaxcon.report": 5,
    "jaxcon.runs": 5,
    "experiments": 6,
}
# The package hands out one name of a floor above, and loads it when it is asked for.
LATE = {"jaxcon.runs.load_run"}
HANDED_FUNCTIONS = {"jaxcon.training": {"jaxcon.losses", "jaxcon.encoders"}}
HEAVY = ["flax", "optax", "orbax", "tensorflow", "tensorflow_datasets", "matplotlib"]
FILES = sorted([*ROOT.glob("jaxcon/**/*.py"), *ROOT.glob("experiments/**/*.py")])


def room(module):
    """The entry of FLOORS that a dotted module name lies in; None for the package itself."""
    return next((r for r in FLOORS if module == r or module.startswith(f"{r}.")), None)


def imported(path, package):
    """Dotted names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def wrong_imports(path):
    """The imports of a file that break the law."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    own = room(".".join(parts))
    for name in imported(path, parts[:-1]):
        other = room(name)
        if other is None or other == own or (own is None and name in LATE):
            continue
        if own is None or FLOORS[other] >= FLOORS[own] or other in HANDED_FUNCTIONS.get(own, ()):
            yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_lower_floors_only(path):
    assert not list(wrong_imports(path))


def test_every_file_of_the_package_has_a_floor():
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in FILES]
    assert not [m for m in modules if room(m) is None and m != "jaxcon.__init__"]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("jaxcon/similarity.py", "from jaxcon import collectives"),
        ("jaxcon/losses/softmax.py", "from jaxcon.training import step"),
        ("jaxcon/losses/softmax.py", "from ..training import step"),
        ("jaxcon/training/step.py", "import jaxcon.losses.softmax"),
        ("jaxcon/encoders/vit.py", "from jaxcon.losses import clip_loss"),
        ("jaxcon/__init__.py", "from jaxcon import losses"),
    ],
)
def test_a_wrong_import_is_caught(place, line, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(f"def late():\n    {line}\n")
    assert list(wrong_imports(path))


@pytest.mark.parametrize("module", ["jaxcon.losses", "jaxcon"])
def test_importing_the_losses_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.split() == []


def test_importing_jaxcon_alone_does_not_load_jax():
    code = "import sys, jaxcon; print('jax' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "False"
