"""Files of text are UTF-8, whatever the locale: in a bare container Python would take ASCII."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(
    p for room in ("jaxcon", "experiments", "benchmarks") for p in ROOT.glob(f"{room}/**/*.py")
)
TEXT = {"read_text": 0, "write_text": 1, "open": None}


def without_encoding(source):
    """Lines that read or write text and leave the encoding to the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "attr", getattr(function, "id", ""))
        owner = getattr(getattr(function, "value", None), "id", "")
        if name not in TEXT or owner in ("Image", "os", "tarfile", "zipfile"):
            continue
        if name == "open":  # of builtins the mode is the second argument, of a path the first
            mode = node.args[1:2] if isinstance(function, ast.Name) else node.args[:1]
            mode = [*mode, *(k.value for k in node.keywords if k.arg == "mode")]
            if any(isinstance(m, ast.Constant) and "b" in str(m.value) for m in mode):
                continue
        elif name == "write_text" and isinstance(function, ast.Name):
            continue  # `jaxcon.training.files`'s
        elif len(node.args) > TEXT[name]:
            continue
        if not any(k.arg == "encoding" for k in node.keywords):
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_names_the_encoding_of_what_it_reads_and_writes(path):
    assert not list(without_encoding(path.read_text(encoding="utf-8")))


def test_what_leaves_it_to_the_locale_is_found():
    wrong = "p.read_text()\np.write_text(x)\nopen(p)\np.open('a')\n"
    right = "p.read_text('utf-8')\nopen(p, 'rb')\np.open('w', encoding='utf-8')\nImage.open(p)\n"
    assert sorted(without_encoding(wrong + right)) == [1, 2, 3, 4]
