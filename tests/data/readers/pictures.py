"""The same pictures as a folder, as tar shards and as parquet."""

import io
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image


def picture(seed=0, size=(40, 30), kind="JPEG"):
    """The bytes of a picture of noise, of size (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def members(names=("cat", "dog"), number=10):
    """Names and bytes of pictures of different sizes, in folders of classes."""
    return {
        f"{name}/{i}.jpg": picture(100 * c + i, size=(40 + i, 30))
        for c, name in enumerate(names)
        for i in range(number)
    }


def write_folder(root, contents):
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(file, contents, *, form=tarfile.PAX_FORMAT):
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as tar:
        for name, content in contents.items():
            content = content if isinstance(content, bytes) else content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def write_parquet(file, columns, *, rows_a_group=3, metadata=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, file, row_group_size=rows_a_group)
    return file


def assert_same(one, other):
    """Raises unless two datasets have the same splits, names, labels, bytes and views."""
    assert one.class_names == other.class_names
    for part in ("train", "validation", "test"):
        a, b = getattr(one, part), getattr(other, part)
        assert tuple(a.names) == tuple(b.names)
        assert (a.labels is None) == (b.labels is None)
        assert a.labels is None or a.labels.tolist() == b.labels.tolist()
        for i in range(len(a)):
            assert a.originals[i] == b.originals[i]
            np.testing.assert_array_equal(a.images[i], b.images[i])
