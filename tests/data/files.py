"""Image files byte by byte: kinds that Pillow reads and does not write."""

import struct
import zlib

import numpy as np


def tiff(pixels, *, order="<", photometric=1, sample_format=1, extra=None, turn=1, **stored):
    """An uncompressed TIFF of one strip.

    Args:
      pixels: `[height, width]` or `[height, width, samples]`, of the dtype that is stored.
      order: "<" or ">", the byte order.
      photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK, 6 YCbCr, 8 LAB.
      sample_format: 1 unsigned, 2 signed, 3 floats.
      extra: the meaning of a last sample: 1 premultiplied alpha, 2 alpha.
      turn: orientation.
      **stored: `bits` a sample and `width` in pixels, where they are not those of the array.
    """
    height, columns, samples = (*pixels.shape, 1)[:3]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    short = {
        256: stored.get("width", columns),
        257: height,
        258: [stored.get("bits", 8 * pixels.itemsize)] * samples,
        259: 1,
    }
    short |= {
        262: photometric,
        274: turn,
        277: samples,
        278: height,
        339: [sample_format] * samples,
    }
    if extra is not None:
        short[338] = extra
    long = {273: 0, 279: len(data)}
    start = 8 + 2 + 12 * len(short | long) + 4
    far, entries = b"", b""
    for tag, value in sorted((short | long).items()):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"{order}{len(values)}{'I' if tag in long else 'H'}", *values)
        if len(packed) > 4:
            packed, far = struct.pack(order + "I", start + len(far)), far + packed
        head = struct.pack(order + "HHI", tag, 4 if tag in long else 3, len(values))
        entries += head + (b"strip" if tag == 273 else packed.ljust(4, b"\0"))
    entries = entries.replace(b"strip", struct.pack(order + "I", start + len(far)))
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return magic + struct.pack(order + "H", len(short | long)) + entries + bytes(4) + far + data


def png(width, rows, *, depth, colour, clear=None, size=None):
    """A PNG of packed rows: colour 0 is grey, 2 RGB, 3 palette, 4 grey and alpha.

    Args:
      width: in pixels.
      rows: bytes of each row.
      depth: bits a sample.
      colour: kind.
      clear: samples of the transparent colour.
      size: (width, height) that the header claims; None for the true one.
    """

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", *(size or (width, len(rows))), depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header)]
    if clear is not None:
        parts.append(chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)))
    parts.append(chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def ramp(dtype):
    """`[1, 4]`: the ends of a dtype's range, and the values at a quarter and a half of it."""
    if np.issubdtype(dtype, np.floating):
        return np.array([[0, 0.25, 0.5, 1]], dtype)
    limits, span = np.iinfo(dtype), 2 ** (8 * np.dtype(dtype).itemsize)
    low = int(limits.min)
    return np.array([[low, low + span // 4, low + span // 2, limits.max]]).astype(dtype)
