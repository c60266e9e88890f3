"""A file imports only lower floors, nothing in a circle, and no private name of another file.

Importing the losses loads nothing heavy.
"""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = {
    "jaxcon.typing": 0,
    "jaxcon.stores": 1,
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
    "jaxcon.planning": 4,
    "jaxcon.report": 5,
    "jaxcon.runs": 5,
    "experiments.running": 6,
    "experiments.images": 7,
    "experiments.pairs": 7,
    "experiments.uncertainty_study": 8,
    "experiments.collapse_study": 8,
    "experiments": 9,  # the pages: one command each
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
        ("experiments/running/run.py", "from experiments.images import two_views"),
        ("experiments/images/page.py", "from experiments.pairs.model import DualEncoder"),
        ("experiments/pairs/page.py", "from experiments import clip"),
    ],
)
def test_a_wrong_import_is_caught(place, line, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(f"def late():\n    {line}\n")
    assert list(wrong_imports(path))


def dotted(path):
    """The name of a file as a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in FILES}


def graph(files):
    """Which of these modules a module imports, at its top or late."""
    arrows = {}
    for module, path in files.items():
        parts = path.relative_to(ROOT).with_suffix("").parts
        named = [(name, name.rpartition(".")[0]) for name in imported(path, parts[:-1])]
        arrows[module] = {
            next(n for n in pair if n in files) for pair in named if files.keys() & pair
        }
    return arrows


def circles(arrows):
    """What is left of a graph when, again and again, its leaves and its roots are taken away."""
    left = dict(arrows)
    while free := [m for m, others in left.items() if not (others - {m}) & left.keys()]:
        for module in free:
            del left[module]
    while free := [m for m in left if not any(m in left[o] for o in left if o != m)]:
        for module in free:
            del left[module]
    return sorted(left)


def private_names(path):
    """The underscore names that a file imports, but for the private files of its own room."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for name in imported(path, package):
        parts = tuple(name.split("."))
        for k, part in enumerate(parts):
            holder, file = parts[:k], ".".join(parts[: k + 1])
            own = file in MODULES and package[: len(holder)] == holder
            if part.startswith("_") and ".".join(holder) in MODULES and not own:
                yield name


def test_nothing_imports_in_a_circle():
    assert circles(graph(MODULES)) == []


def test_circles_are_seen():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(arrows) == ["b", "c"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_of_another_file_is_imported(path):
    assert not list(private_names(path))


def test_a_private_name_is_caught(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "jaxcon/data/pairs.py"
    path.parent.mkdir(parents=True)
    wrong = ["jaxcon.losses._negatives", "jaxcon.losses._x.rows", "jaxcon.data.batching._place"]
    lines = [f"from {name.rpartition('.')[0]} import {name.rpartition('.')[2]}\n" for name in wrong]
    path.write_text("from __future__ import annotations\n" + "".join(lines))
    assert list(private_names(path)) == wrong


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
