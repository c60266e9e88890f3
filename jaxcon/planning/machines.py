"""What the vendors' data sheets say about chips and their links.

>>> MACHINES["TPU v5e, ICI"].largest
256
"""

from typing import NamedTuple


class Machine(NamedTuple):
    """A chip and its links.

    Attributes:
      links: GB/s that a chip can send on all its links together, as in a gather.
      ring: GB/s that it can send on the one link to the next chip, as in a ring.
      rate: TFLOP/s of float32 products: on TPUs six passes of bfloat16, which is `Precision.HIGHEST`.
      largest: the most chips that these links connect.
    """

    links: float
    ring: float
    rate: float
    largest: int


MACHINES = {
    "TPU v5e, ICI": Machine(200, 50, 197 / 6, 256),
    "TPU v5p, ICI": Machine(600, 100, 459 / 6, 8960),
    "TPU v6e, ICI": Machine(400, 100, 918 / 6, 256),
    "H100, NVLink": Machine(450, 450, 67, 8),
    "H100, InfiniBand NDR": Machine(50, 50, 67, 65536),
}
