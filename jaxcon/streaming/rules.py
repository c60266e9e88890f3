"""The rule for `block_size=None`: how each platform evaluates, by how much there is to reduce.

All forms give the same values. Up to `whole_pairs` it is one matrix on every platform, by plain
operations and in any mode of differentiation. Beyond that it is a sweep over tiles: each platform has
its own `Line`, which says how to cut the matrix, a `Cut`:

| platform | two sets of rows | one set of rows, each pair once |
|---|---|---|
| `cpu` | one tile up to 2^24 pairs; then squares of 512 | squares of 512 |
| `tpu` | one tile up to 2^26 pairs; then panels, 2,048 rows with all columns | then squares of 4,096 |
| `cuda`, others | the same; exponentials in bfloat16 where the rows are | then squares of 8,192 |

The line for CPUs is measured (`docs/benchmarks/forms.md`), that for TPUs rests on estimates of their
compiler and that for GPUs on a roofline of their compiler's kernels (`docs/benchmarks/compiled.md`).
CPUs keep the tiles of up to 2^26 pairs for the backward pass; losses that are sums, as SigLIP, keep
none and take squares of 1,024, and squared distances take squares of 512 from the start.
A tile of 2^26 pairs holds 256 MiB in float32. In a ring, where a device's rows meet one visitor after
the other, tiles of a TPU hold 2^24 pairs, and rows of one kind are always squares: half of a device's
own pairs are then left out, and less is held.

| number | is | rests on |
|---|---|---|
| `whole_pairs` | 2^21 | up to 1,440 pairs of CLIP or SigLIP tiles gain a tenth in 4 lines of 32 |
| `whole_pairs_of_one_set` | 2^18 | an eighth, because tiles save half of the products |
| `copied_entries` | 2^23 | 32 MiB in float32: below, a normalized copy costs little and is faster |
| `ring_rows` | 4,096 | fewer rows a visit keep no accelerator busy: on 8 H100 a ring is behind |
| `gathered_pairs` | 2^26 | up to here the gathered candidates are one tile, or are kept |
| `mined_pairs` | 2^22 | 16 MiB in float32, a few of which are held; 128 anchors of 32,768 candidates |

>>> import jax.numpy as jnp
>>> from jaxcon.streaming import rules
>>> rule = rules.current()
>>> rule.whole(1024, 1024), rule.whole(1024, None)
(True, False)
>>> for platform, cut in rule.cuts(32768, 32768, jnp.bfloat16):
...     print(platform, cut.rows, cut.cols)
cpu 512 512
tpu 2048 32768
cuda 2048 32768
>>> with rules.in_force(rules.everywhere(rules.LINES["cpu"])):  # a TPU evaluates like a CPU
...     print(rules.current().cuts(32768, 32768, jnp.float32)[0][1].rows)
512
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp


class Cut(NamedTuple):
    """How a sweep cuts a matrix.

    Attributes:
      rows, cols: the largest numbers of rows and of columns of a tile.
      half: whether each unordered pair of one set of rows is visited once; the tiles are then square.
      keep: whether the tiles of the forward sweep are kept for the backward sweep.
      ready: whether rows that must be normalized are all normalized ahead, not in every tile.
      rounded: whether exponentials are written in bfloat16.
      in_turns: whether one store gets its two gradients in two turns of a loop. For two updates side by
        side, XLA copies the whole store on CPUs.
    """

    rows: int
    cols: int
    half: bool = True
    keep: bool = False
    ready: bool = False
    rounded: bool = False
    in_turns: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """What one platform's cuts are made from.

    Attributes:
      block: the largest edge of a square tile.
      lanes: each edge is a multiple of this, where there are several.
      kept_pairs: tiles are kept up to this many pairs.
      panel_rows: rows of a tile that holds as many columns as it can; 0: all tiles are square.
      sum_rows: the same, or the edge of squares, where a sweep finds value and gradient at once, if
        another number is better: on GPUs a tile is then held twice.
      tile_pairs: the most pairs that such a tile holds; up to this many in all are one tile. Without
        panels, only products of two sets that are kept are one tile.
      visit_pairs: the same of rows and visitors in a ring, if another number is better there; rows and
        visitors of one kind are square tiles always.
      rounded: whether exponentials of bfloat16 rows are written in bfloat16.
      in_turns: as in `Cut`.
    """

    block: int
    lanes: int
    kept_pairs: int = 0
    panel_rows: int = 0
    sum_rows: int = 0
    tile_pairs: int = 0
    visit_pairs: int = 0
    rounded: bool = False
    in_turns: bool = False

    def edge(self, n: int, largest: int) -> int:
        """Returns an edge that leaves n rows little to fill up: 513 are two blocks of 272, not 512."""
        blocks = -(-n // largest)
        return n if blocks <= 1 else -(-n // blocks // self.lanes) * self.lanes

    def cut(
        self,
        n: int,
        m: int | None,
        *,
        rounded: bool = False,
        keep: bool = True,
        at_once: bool = False,
        ring: bool = False,
        distances: bool = False,
    ) -> Cut:
        """Returns the cut of n rows and m columns; the other arguments are those of `Rule.cuts`."""
        pairs = n * (n if m is None else m)
        if not self.panel_rows:
            keep = keep and not at_once and not ring and pairs <= self.kept_pairs
            if keep and m is not None and pairs <= self.tile_pairs and not distances:
                return self._cut(n, m, rounded=rounded, keep=True)
            block = (at_once and self.sum_rows) or self.block
            edges = self.edge(n, block), self.edge(n if m is None else m, block)
            return self._cut(*edges, rounded=rounded, keep=keep)
        tile_pairs = (ring and self.visit_pairs) or self.tile_pairs
        if pairs <= tile_pairs and not (ring and m is None):
            edges = n, n if m is None else m
            return self._cut(*edges, rounded=rounded, half=False, ready=True)
        if m is None:
            edge = self.edge(n, self.block)
            return self._cut(edge, edge, rounded=rounded, ready=True)
        rows = self.edge(n, (at_once and self.sum_rows) or self.panel_rows)
        cols = self.edge(m, max(tile_pairs // rows, 1))
        return self._cut(rows, cols, rounded=rounded, ready=True)

    def squares(self, edge: int, *, rounded: bool) -> Cut:
        """Returns the cut into square tiles of the size that a caller asks for."""
        return self._cut(edge, edge, rounded=rounded)

    def _cut(self, rows: int, cols: int, *, rounded: bool, **flags: bool) -> Cut:
        rounded = rounded and self.rounded
        return Cut(rows, cols, rounded=rounded, in_turns=self.in_turns, **flags)


LINES = {
    "cpu": Line(512, 16, kept_pairs=2**26, sum_rows=1024, tile_pairs=2**24, in_turns=True),
    "tpu": Line(4096, 256, panel_rows=2048, tile_pairs=2**26, visit_pairs=2**24),
    "cuda": Line(8192, 128, panel_rows=2048, sum_rows=896, tile_pairs=2**26, rounded=True),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """The thresholds of a choice of form; the module's docstring says what each rests on.

    Attributes:
      whole_pairs: up to this many pairs of two sets of rows are one matrix.
      whole_pairs_of_one_set: likewise the pairs of a set of rows with itself.
      copied_entries: up to this many numbers in all, rows are normalized before a sweep.
      ring_rows: from this many rows of a device on, candidates may travel instead of being gathered.
      gathered_pairs: up to this many pairs of a device's rows with all candidates they are gathered.
      mined_pairs: `triplet_loss` mines blocks of anchors with at most this many pairs.
      lines: one for each platform. The last also serves those that are not named.
    """

    whole_pairs: int = 2**21
    whole_pairs_of_one_set: int = 2**18
    copied_entries: int = 2**23
    ring_rows: int = 4096
    gathered_pairs: int = 2**26
    mined_pairs: int = 2**22
    lines: tuple[tuple[str, Line], ...] = tuple(LINES.items())

    def whole(self, n: int, m: int | None) -> bool:
        """Returns whether n rows and m columns are one matrix; m None: the columns are the rows."""
        limit, m = (self.whole_pairs_of_one_set, n) if m is None else (self.whole_pairs, m)
        return n * m <= limit

    def copies(self, entries: int) -> bool:
        """Returns whether rows of this many numbers are normalized before a sweep, on any platform."""
        return entries <= self.copied_entries

    def travels(self, n: int, devices: int) -> bool:
        """Returns whether all devices' candidates, n of each, travel instead of being gathered."""
        return devices > 1 and n >= self.ring_rows and n * n * devices > self.gathered_pairs

    def cuts(
        self,
        n: int,
        m: int | None,
        dtype: Any,
        *,
        block_size: int | None = None,
        keep: bool = True,
        at_once: bool = False,
        ring: bool = False,
        distances: bool = False,
    ) -> tuple[tuple[str, Cut], ...]:
        """Returns each platform's cut of n rows and m columns; m None: the columns are the rows.

        Args:
          n: rows of one device, and m: columns.
          dtype: of the rows as they are multiplied.
          block_size: the edge of square tiles that a caller asks for, the same for all.
          keep: whether tiles may be kept.
          at_once: whether one sweep finds value and gradient.
          ring: whether the columns are those of a visitor in a ring.
          distances: whether tiles hold squared distances, of which several matrices are made.
        """
        rounded = jnp.dtype(dtype) == jnp.bfloat16
        cuts = {}
        for platform, line in self.lines:
            if block_size is None:
                cut = line.cut(
                    n,
                    m,
                    rounded=rounded,
                    keep=keep,
                    at_once=at_once,
                    ring=ring,
                    distances=distances,
                )
            else:
                cut = line.squares(block_size, rounded=rounded)
            # So that two sets are one form where platforms differ in nothing else.
            cuts[platform] = cut if m is None else cut._replace(in_turns=False)
        return tuple(cuts.items())


def everywhere(line: Line, **thresholds: int) -> Rule:
    """Returns a rule that has every platform follow one line, with any given thresholds of `Rule`."""
    return Rule(**thresholds, lines=(("every", line),))


_IN_FORCE: contextvars.ContextVar[Rule | None] = contextvars.ContextVar("rule", default=None)
_STANDARD = Rule()


def current() -> Rule:
    """Returns the rule in force: the standard one, except inside `in_force`."""
    return _IN_FORCE.get() or _STANDARD


@contextlib.contextmanager
def in_force(rule: Rule) -> Iterator[None]:
    """Makes reductions called, or traced by `jax.jit`, inside the block follow this rule."""
    token = _IN_FORCE.set(rule)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)
