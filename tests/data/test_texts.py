"""Texts in one block: the same as a tuple of strings, in a fraction of the memory."""

import pickle

import numpy as np
import pytest

from jaxcon.data.texts import Grouped, Texts

WORDS = ("a", "", "grün", "caf\udce9.jpg", "x" * 1000, "日本")


def test_texts_are_like_a_tuple_of_them():
    texts = Texts.of(WORDS)
    assert texts == WORDS
    assert (texts,) == (WORDS,)
    assert texts != WORDS[:-1]
    assert texts != ("b", *WORDS[1:])
    assert tuple(texts) == WORDS
    assert texts[-1] == "日本"
    assert texts[1:3] == WORDS[1:3]
    assert texts.index("grün") == 2
    assert "b" not in texts
    assert pickle.loads(pickle.dumps(texts)) == WORDS
    with pytest.raises(IndexError):
        texts[6]
    assert Texts.of([]) == ()


def test_texts_that_are_taken_and_joined():
    taken = Texts.of(WORDS).take([4, 2, 0]).take(np.array([1, 2]))
    assert taken == ("grün", "a")
    assert taken.packed() == taken
    assert len(taken.packed().block) == 6
    assert Texts.join([taken, Texts.of([]), Texts.of(["z"])]) == ("grün", "a", "z")
    assert Texts.join([]) == ()


def test_groups_are_like_a_tuple_of_tuples():
    groups = (("a", "b"), (), ("c",))
    packed = Grouped.of(groups)
    assert packed == groups
    assert (packed,) == (groups,)
    assert packed[-1] == ("c",)
    assert packed.take([2, 0]) == (("c",), ("a", "b"))
    assert packed.take([2, 0]).counts().tolist() == [1, 2]
    assert packed.take([2, 0]).take([1])[0:1] == (("a", "b"),)
    assert packed.number == 3
    assert Grouped.join([packed, Grouped.of([["d"]])]) == (*groups, ("d",))
    assert pickle.loads(pickle.dumps(packed)) == groups
