import hashlib

import numpy as np
import pytest

from jaxcon.data.splits import Split, split_indices


def test_parts_are_disjoint_and_complete():
    parts = split_indices([str(i) for i in range(103)])
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(103))
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 72,
        "validation": 10,
        "test": 21,
    }


def test_every_class_gives_its_share():
    labels = np.repeat([0, 1, 2], [50, 20, 10])
    parts = split_indices([str(i) for i in range(80)], labels)
    assert np.bincount(labels[parts["test"]]).tolist() == [10, 4, 2]
    assert np.bincount(labels[parts["validation"]]).tolist() == [5, 2, 1]


def test_test_images_have_the_smallest_hashes():
    keys = [f"cat/{i}.png" for i in range(40)]
    by_hash = sorted(range(40), key=lambda i: hashlib.sha256(keys[i].encode()).hexdigest())
    assert split_indices(keys)["test"].tolist() == sorted(by_hash[:8])


def test_a_key_keeps_its_part_when_the_order_of_files_changes():
    keys = [f"{i}.png" for i in range(30)]
    forward, backward = split_indices(keys), split_indices(keys[::-1])
    for part in forward:
        assert {keys[i] for i in forward[part]} == {keys[::-1][i] for i in backward[part]}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_examples_are_all_train(count):
    assert len(split_indices([str(i) for i in range(count)])["train"]) == count


def test_labels_are_read_once_and_only_when_asked():
    calls = []

    def read():
        calls.append(1)
        return np.array([1, 2], np.int32)

    split = Split(np.zeros((2, 4, 4, 1), np.uint8), read)
    assert not calls
    assert split.labels is split.labels
    assert len(calls) == 1
