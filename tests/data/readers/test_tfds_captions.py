"""Captions of TFDS datasets: which feature holds them, and datasets that have none."""

import io
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxcon.data.captions import load_pairs
from jaxcon.data.sources import load
from jaxcon.data.splits import DataError


class TwoCaptions(tfds.core.GeneratorBasedBuilder):
    """Like coco_captions: a sequence of records with a text; some images have none."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        captions = tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64})
        image = tfds.features.Image(shape=(None, None, 3))
        features = tfds.features.FeaturesDict({"image": image, "captions": captions})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0), "test": self._generate_examples(100)}

    def _generate_examples(self, first):
        for number in range(first, first + 20):
            pixels = Image.fromarray(np.full((9, 12, 3), number, np.uint8))
            texts = [f"number {number}", "a grey picture"] if number % 4 else [" "]
            captions = [{"text": text, "id": i} for i, text in enumerate(texts)]
            yield number, {"image": pixels, "captions": captions}


def test_any_tfds_name_with_captions(tmp_path):
    dataset = load_pairs("two_captions", data_dir=tmp_path)
    assert len(dataset.test) == 15
    assert len(dataset.train) + len(dataset.validation) == 15
    assert dataset.classes == {}
    for image, captions in zip(dataset.test.images.images, dataset.test.captions, strict=True):
        assert image.shape == (9, 9, 3)
        assert captions == (f"number {image[0, 0, 0]}", "a grey picture")


class OddPhotographs(TwoCaptions):
    """Photographs of 40 x 30 but for one, with a text that is no caption."""

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3))
        texts = {
            "file_name": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        features = tfds.features.FeaturesDict({"image": image, **texts})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _generate_examples(self, first):
        for number in range(first, first + 20):
            pixels = Image.new("RGB", (30, 40) if number else (1, 1))
            yield number, {"image": pixels, "file_name": f"{number}.jpg", "label": number % 2}


def test_a_text_of_another_name_is_no_caption(tmp_path):
    named = r"odd_photographs has no captions: of its features image, file_name, label, none"
    with pytest.raises(DataError, match=named):
        load_pairs("odd_photographs", data_dir=tmp_path)


@pytest.mark.parametrize(("asked", "side"), [(None, 30), (7, 7)])
def test_one_odd_photograph_of_tfds_does_not_decide_the_size(tmp_path, asked, side):
    dataset = load("odd_photographs", data_dir=tmp_path, image_size=asked)
    assert dataset.train.image_shape == dataset.test.image_shape == (side, side, 3)


def test_photographs_are_trained_on_as_tfds_stores_them(tmp_path):
    dataset = load("odd_photographs", data_dir=tmp_path, image_size=20)
    assert not dataset.train.in_memory
    assert dataset.test.in_memory
    for part in (dataset.train, dataset.validation, dataset.test):
        assert len(part.originals) == len(part) == len(part.labels)
        assert part.zoom == 1
    again = pickle.loads(pickle.dumps(dataset.train.originals))
    for i in range(len(again)):
        with Image.open(io.BytesIO(again[i])) as image:
            assert image.size in ((30, 40), (1, 1))
    assert dataset.train.originals.place(0).startswith("train[")
    pairs = load_pairs("two_captions", data_dir=tmp_path)
    for row, (number,) in enumerate(t[:1] for t in pairs.train.captions):
        with Image.open(io.BytesIO(pairs.train.images.originals[row])) as image:
            assert number == f"number {image.getpixel((0, 0))[0]}"
        assert (pairs.train.images.images[row] == int(number.split()[1])).all()


def test_a_dataset_without_captions_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no captions: of its features image, label, position"):
        load_pairs("digits", data_dir=tmp_path)
