"""The rule of `block_size=None`: the form that a reduction takes, by how much there is to reduce.

All forms give the same values. `whole`: one matrix, by plain operations, in any mode of
differentiation. `kept`: tiles, which the backward pass finds again. `tiles`: computed again there.

The numbers come from `docs/benchmarks/forms.md`, of 2 CPU cores, and serve all backends:

| number | is | rests on |
|---|---|---|
| `whole_pairs` | 2^21 | up to 1,440 pairs of CLIP or SigLIP tiles gain a tenth in 4 lines of 32 |
| `whole_pairs_of_one_set` | 2^18 | an eighth, for tiles save half of the products |
| `kept_pairs` | 2^26 | 256 MiB in float32, for a product that need not be computed again |
| `copied_entries` | 2^23 | 32 MiB in float32: a normalized copy of fewer is no burden, and faster |
| `block` | 512 | at 2,048 pairs the best of 256, 512 and 1,024 in four cases of six |
| `lanes` | 16 | blocks are multiples of the numbers in a vector |

>>> from jaxcon.streaming import rules
>>> rules.current().form(1024, 1024), rules.current().form(1024, None)
('whole', 'kept')
>>> with rules.in_force(rules.Rule(whole_pairs=0)):
...     print(rules.current().form(1024, 1024))
kept
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Literal

from jaxcon.typing import AxisName

Form = Literal["whole", "kept", "tiles"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The thresholds of a choice of form; the module's docstring says what each rests on.

    Attributes:
      whole_pairs: up to so many pairs of two sets of rows are one matrix.
      whole_pairs_of_one_set: likewise the pairs of a set of rows with itself.
      kept_pairs: up to so many pairs the tiles are kept.
      copied_entries: up to so many numbers in all rows, these are normalized before a sweep.
      block: the largest edge of a tile of no given size.
      lanes: what such an edge is a multiple of.
    """

    whole_pairs: int = 2**21
    whole_pairs_of_one_set: int = 2**18
    kept_pairs: int = 2**26
    copied_entries: int = 2**23
    block: int = 512
    lanes: int = 16

    def form(
        self, n: int, m: int | None, *, block_size: int | None = None, ring: AxisName = None
    ) -> Form:
        """The form of a reduction over n rows and m columns; m None: the columns are the rows.

        A given block size asks for tiles, and a ring has no other form.
        """
        if block_size is not None or ring is not None:
            return "tiles"
        whole, m = (self.whole_pairs_of_one_set, n) if m is None else (self.whole_pairs, m)
        if n * m <= whole:
            return "whole"
        return "kept" if n * m <= self.kept_pairs else "tiles"

    def copies(self, entries: int) -> bool:
        """Whether rows of so many numbers in all are normalized before a sweep, not in each tile."""
        return entries <= self.copied_entries

    def even_block(self, n: int) -> int:
        """A block size that leaves n rows little to fill up: 513 are two blocks of 272, not of 512."""
        blocks = -(-n // self.block)
        return -(-n // blocks // self.lanes) * self.lanes


_IN_FORCE: contextvars.ContextVar[Rule | None] = contextvars.ContextVar("rule", default=None)
_MEASURED = Rule()


def current() -> Rule:
    """The rule in force: the measured one, but inside `in_force`."""
    return _IN_FORCE.get() or _MEASURED


@contextlib.contextmanager
def in_force(rule: Rule) -> Iterator[None]:
    """Has reductions that are called, or traced by `jax.jit`, inside the block follow this rule."""
    token = _IN_FORCE.set(rule)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)
