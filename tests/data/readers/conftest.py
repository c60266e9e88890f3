"""A folder of twelve pictures, which tables name."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    for name in [f"images/{i:02}.png" for i in range(12)]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), int(path.stem) * 20, np.uint8)).save(path)
    return tmp_path
