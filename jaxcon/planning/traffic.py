"""What a compiled program sends between devices, read from its text.

XLA prints a program's collectives with the shape of their result, and how often a loop runs, so the
floats that a device sends in a step can be counted without running it.
"""

import math
import re

_COLLECTIVE = re.compile(
    r"= \(?f32\[([\d,]+)\].* (all-gather|reduce-scatter|all-reduce|collective-permute)(-start)?\("
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?(%\S+) \(.*?\{\n(.*?)^\}", re.M | re.S)


def floats_sent(program: str, devices: int, *, at_least: int = 1) -> dict[str, int]:
    """Counts the floats that a device sends in a step, by collective operation.

    Counts as bandwidth-optimal algorithms send them: P - 1 parts of P in an all-gather or a
    reduce-scatter, twice that in an all-reduce. An operation in a loop counts as often as it runs.

    Args:
      program: `jitted.lower(...).compile().as_text()`.
      devices: the number P of devices that the program runs on.
      at_least: collectives with smaller results are left out.

    Returns:
      Numbers of floats by operation, for those operations that occur.
    """
    computations = dict(_COMPUTATION.findall(program))
    entry = re.search(r"^ENTRY (%\S+) ", program, re.M)
    assert entry is not None

    def count(name: str) -> dict[str, int]:
        sent: dict[str, int] = {}

        def add(more: dict[str, int], times: int = 1) -> None:
            for operation, floats in more.items():
                sent[operation] = sent.get(operation, 0) + times * floats

        for line in computations[name].splitlines():
            if found := _COLLECTIVE.search(line):
                size = math.prod(map(int, found[1].split(",")))
                if size >= at_least:
                    add({found[2]: _sent(found[2], size, devices)})
            if loop := re.search(r" while\(.*body=(%[\w.\-]+)", line):
                times = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                assert times is not None, "a loop of unknown length"
                add(count(loop[1]), int(times[1]))
            elif call := re.search(r" call\(.*to_apply=(%[\w.\-]+)", line):
                add(count(call[1]))
        return sent

    return count(entry[1])


def _sent(operation: str, size: int, devices: int) -> int:
    """Returns the floats that leave a device, given the number of floats in the result."""
    if operation == "all-gather":
        return size // devices * (devices - 1)
    if operation == "reduce-scatter":
        return size * (devices - 1)
    if operation == "all-reduce":
        return 2 * size * (devices - 1) // devices
    return size
