"""The page of `benchmarks.compiled`: its tables as markdown."""

from typing import Any

import jax

from benchmarks.dense import LOSSES
from jaxcon.planning.topologies import CHIPS

Cell = dict[str, dict[str, Any]]
INTRODUCTION = """\
# The losses as compiled for accelerators

Value and gradients, products in bfloat16, compiled on a machine without accelerators:
`python -m benchmarks.compiled`, jax {version}. **Times are estimates**: of TPUs the compiler's own
cycles, of the H100 a roofline of the kernels that its compiler makes, 2.5 us a launch. Memory is
exact. Cells are milliseconds / MiB of temporaries (kernels).
"""
FORMS = """
## Forms

Floor: the products alone, at the chip's full rate. Last column: `block_size=None` over the best form
that was tried, dense jnp included.

| chip | loss | pairs | dim | floor | dense jnp | `block_size=None` | best form | ratio |
|---|---|---:|---:|---:|---:|---:|---|---:|
"""
ALL = """
## All losses over pairs

By default, and as a whole matrix by plain operations. Losses of two sets compare as many rows of each.

| chip | loss | rows | dim | whole | default | default / whole |
|---|---|---:|---:|---:|---:|---:|
"""
SLICES = """
## Slices of many chips

A chip's share of one batch over all chips. Estimates leave out the time of sending; what is sent:
collectives in one run of the program.

| slice | loss | pairs | dim | gathered | in a ring | default | collectives of the default |
|---|---|---:|---:|---:|---:|---|---|
"""


def floor(chip: str, loss: str, pairs: int, dim: int) -> float:
    """Milliseconds of the products alone, at the chip's full rate."""
    return LOSSES[loss][2] * 2 * pairs**2 * dim / CHIPS[chip].rate / 1e9


def page(cells: dict[str, Cell]) -> str:
    """Formats all cells, keyed by part, chip, loss, rows and width."""
    text = INTRODUCTION.format(version=jax.__version__)
    for part, head, line in (
        ("forms", FORMS, _form),
        ("losses", ALL, _loss),
        ("slices", SLICES, _slice),
    ):
        found = [key for key in cells if key.startswith(part + " ")]
        if found:
            lines = (line(*_values(key), cells[key]) for key in sorted(found, key=_order))
            text += head + "\n".join(lines) + "\n"
    return text


def _values(key: str) -> tuple[str, str, int, int]:
    _, chip, loss, rows, dim = key.split()
    return chip, loss, int(rows), int(dim)


def _order(key: str) -> tuple[int, str, int, str, int, int]:
    chip, loss, rows, dim = _values(key)
    place = list(LOSSES).index(loss) if loss in LOSSES else 0
    return list(CHIPS).index(chip.partition(":")[0]), chip, place, loss, dim, rows


def _figures(one: dict[str, Any]) -> str:
    if not one:
        return "does not fit"
    return f"{one['ms']:.3g} / {one['mib']:,.0f} ({one['kernels']:,})"


def _line(*values: Any) -> str:
    return f"| {' | '.join(map(str, values))} |"


def _form(chip: str, loss: str, rows: int, dim: int, cell: Cell) -> str:
    fitting = {form: one["ms"] for form, one in cell.items() if one}
    best = min(fitting.keys() - {"default"}, key=lambda form: (fitting[form], form))
    ratio = fitting["default"] / min(fitting.values())
    return _line(
        *(
            chip,
            loss,
            f"{rows:,}",
            dim,
            f"{floor(chip, loss, rows, dim):.3g}",
            _figures(cell["dense"]),
        ),
        _figures(cell["default"]),
        f"{best}: {cell[best]['ms']:.3g} / {cell[best]['mib']:,.0f}",
        f"{ratio:.2f}",
    )


def _loss(chip: str, loss: str, rows: int, dim: int, cell: Cell) -> str:
    figures = _figures(cell["whole"]), _figures(cell["default"])
    ratio = f"{cell['default']['ms'] / cell['whole']['ms']:.2f}" if cell["whole"] else ""
    return _line(chip, f"`{loss}`", f"{rows:,}", dim, *figures, ratio)


def _slice(topology: str, loss: str, rows: int, dim: int, cell: Cell) -> str:
    default = cell["default"]
    form = "ring" if "collective-permute" in default["collectives"] else "gathered"
    sent = ", ".join(f"{times} {name}" for name, times in default["collectives"].items())
    return _line(
        *(topology, loss, f"{rows:,}", dim, _figures(cell["gather"]), _figures(cell["ring"])),
        f"{form}: {_figures(default)}",
        sent,
    )
