"""Round trips, lengths, padding, and the same tokenizer each time."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcon.data.scenes import make_example
from jaxcon.encoders.tokenizer import Tokenizer

CAPTIONS = [text for number in range(400) for text in make_example(number, test=False).captions]
TOKENIZER = Tokenizer.train(CAPTIONS)


def test_captions_come_back():
    tokens = TOKENIZER.encode(CAPTIONS)
    assert tokens.dtype == np.int32
    assert tokens.shape == (len(CAPTIONS), TOKENIZER.length)
    assert tokens.max() < TOKENIZER.vocabulary
    assert TOKENIZER.decode(tokens) == CAPTIONS
    assert (tokens[:, -1] > 0).any()  # not longer than needed


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(min_size=1, max_size=12))
def test_any_text_comes_back_in_lower_case(text):
    tokenizer = Tokenizer(TOKENIZER._model, length=64)
    expected = "".join(character.lower() for character in text).removeprefix(" ")
    assert tokenizer.decode(tokenizer.encode([text])) == [expected]


def test_words_are_single_tokens_wherever_they_stand():
    rows = TOKENIZER.encode(["red circle", "a small red circle", "RED"])
    red = rows[2, 0]
    assert np.count_nonzero(rows, axis=1).tolist() == [2, 4, 1]
    assert rows[0, 0] == red == rows[1, 2]


def test_padding_is_at_the_end_and_means_nothing_else():
    tokens = TOKENIZER.encode(["red", "[PAD]", ""])
    assert tokens[0, 0] > 0
    assert not tokens[0, 1:].any()
    assert np.count_nonzero(tokens[1]) >= 3
    assert TOKENIZER.decode(tokens) == ["red", "[pad]", ""]
    assert not tokens[2].any()


def test_long_texts_lose_their_end():
    tokenizer = Tokenizer.train(CAPTIONS, max_length=4)
    assert tokenizer.length == 4
    assert tokenizer.decode(tokenizer.encode(["a small red circle at the top left"])) == [
        "a small red circle"
    ]


def test_training_twice_gives_the_same(tmp_path):
    Tokenizer.train(CAPTIONS).save(tmp_path / "a.json")
    Tokenizer.train(CAPTIONS).save(tmp_path / "b.json")
    first, second = (json.loads((tmp_path / f"{x}.json").read_text())["model"] for x in "ab")
    assert first == second


def test_the_vocabulary_is_bounded_and_learned():
    small = Tokenizer.train(CAPTIONS, vocabulary=280, max_length=256)
    assert small.vocabulary == 280
    assert small.decode(small.encode(CAPTIONS[:20])) == CAPTIONS[:20]
    assert small.length > TOKENIZER.length


def test_settings_are_refused():
    with pytest.raises(ValueError, match="vocabulary must be at least 257"):
        Tokenizer.train(["a"], vocabulary=100)
    with pytest.raises(ValueError, match="all 2 given are blank"):
        Tokenizer.train(["", "  "])
    with pytest.raises(ValueError, match="max_length must be at least 1"):
        Tokenizer.train(["a"], max_length=0)


def test_files_are_the_same_whatever_the_locale(tmp_path):
    """A byte-level vocabulary has letters that ASCII lacks."""
    program = (
        "import sys; from jaxcon.encoders.tokenizer import Tokenizer;"
        "Tokenizer.train([chr(252) * 2]).save(sys.argv[1]); Tokenizer.load(sys.argv[1], length=3)"
    )
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", program, str(tmp_path / "ascii.json")]
    subprocess.run(command, check=True, env={**os.environ, **plain})
    Tokenizer.train(["üü"]).save(tmp_path / "here.json")
    assert (tmp_path / "ascii.json").read_bytes() == (tmp_path / "here.json").read_bytes()
