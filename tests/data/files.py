"""Image files byte by byte: kinds that Pillow reads and does not write."""

import struct
import zlib

import numpy as np


def tiff(pixels, *, order="<", photometric=1, sample_format=1, extra=None, turn=1, **stored):
    """A TIFF of one strip, or of one for each plane.

    Args:
      pixels: `[height, width]` or `[height, width, samples]`, of the dtype that is stored.
      order: "<" or ">", the byte order.
      photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK, 6 YCbCr, 8 LAB.
      sample_format: 1 unsigned, 2 signed, 3 floats.
      extra: the meaning of a last sample: 1 premultiplied alpha, 2 alpha.
      turn: orientation.
      **stored: `bits` a sample and `width` in pixels, where they are not those of the array;
        `deflate=True` to compress; `planes=True` for samples one after the other.
    """
    height, columns, samples = (*pixels.shape, 1)[:3]
    planes = np.moveaxis(pixels, -1, 0) if stored.get("planes") else pixels[None]
    strips = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
    if stored.get("deflate"):
        strips = [zlib.compress(strip) for strip in strips]
    lengths = [len(strip) for strip in strips]
    tags = {256: stored.get("width", columns), 257: height, 274: turn, 277: samples, 278: height}
    tags |= {259: 8 if stored.get("deflate") else 1, 262: photometric, 284: min(2, len(strips))}
    tags |= {258: [stored.get("bits", 8 * pixels.itemsize)] * samples}
    tags |= {273: [8 + sum(lengths[:i]) for i in range(len(strips))], 279: lengths}
    tags |= {339: [sample_format] * samples} | ({338: extra} if extra is not None else {})
    start = 8 + sum(lengths)  # of the tags, which follow the pixels; long values follow the tags
    far, entries = b"", b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place = start + 2 + 12 * len(tags) + 4 + len(far)
            packed, far = struct.pack(order + "I", place), far + packed
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    table = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return magic + b"".join(strips) + table + far


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
