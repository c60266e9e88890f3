"""Round trips, lengths, padding, and the same tokenizer each time."""

import json
import os
import subprocess
import sys
import unicodedata
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcon.data.shipped.scenes import make_example
from jaxcon.encoders.tokenizer import Tokenizer

CAPTIONS = [text for number in range(400) for text in make_example(number, test=False).captions]
TOKENIZER = Tokenizer.train(CAPTIONS)


def test_captions_come_back():
    tokens = TOKENIZER.encode(CAPTIONS)
    assert tokens.dtype == np.int32
    assert tokens.shape == (len(CAPTIONS), TOKENIZER.length)
    assert tokens.max() < TOKENIZER.vocabulary
    assert TOKENIZER.decode(tokens) == CAPTIONS


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(min_size=1, max_size=12))
def test_any_text_comes_back_in_lower_case(text):
    tokenizer = Tokenizer(TOKENIZER._model, length=64)
    composed = unicodedata.normalize("NFC", text)
    expected = unicodedata.normalize("NFC", "".join(c.lower() for c in composed))
    assert tokenizer.decode(tokenizer.encode([text])) == [expected]


def test_blanks_and_composed_letters_come_back_as_they_are():
    """And what looks alike is one row: an accent may be a character of its own."""
    texts = [" red", "  red", "red ", "red", "a  b", "Café Ångström", "한국어", "İ"]
    apart = [unicodedata.normalize("NFD", text) for text in texts]
    lower = [unicodedata.normalize("NFC", unicodedata.normalize("NFC", t).lower()) for t in texts]
    tokens = TOKENIZER.encode(texts)
    assert TOKENIZER.decode(tokens) == lower
    np.testing.assert_array_equal(TOKENIZER.encode(apart), tokens)
    assert len(np.unique(tokens[:4], axis=0)) == 4


def test_rows_are_as_long_as_asked_whatever_was_learned_from():
    """A row as long as the longest caption would make one of "red circle" and "red square"."""
    tokenizer = Tokenizer.train(["red", "blue"])
    assert tokenizer.length == 64
    circle, square = tokenizer.encode(["red circle", "red square"])
    assert (circle != square).any()


def test_texts_that_are_cut_are_counted_and_told():
    tokenizer = Tokenizer.train(CAPTIONS, max_length=3)
    texts = ["a small red circle", "a small red square", "a red circle"]
    with pytest.warns(
        UserWarning, match=r"2 of 3 texts were cut at 3 tokens; those that begin alike"
    ):
        rows = tokenizer.encode(texts)
    assert (rows[0] == rows[1]).all()
    assert tokenizer.count_cut(texts) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.encode(texts, warn=False)
        tokenizer.encode(texts[2:])


def test_a_tokenizer_of_before_is_read_as_it_was(tmp_path):
    """Its file says how to normalize: a blank in front where there is none, no composed form."""
    file = tmp_path / "tokenizer.json"
    TOKENIZER.save(file)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "Lowercase"}
    content["pre_tokenizer"]["add_prefix_space"] = True
    file.write_text(json.dumps(content), encoding="utf-8")
    before = Tokenizer.load(file, length=TOKENIZER.length)
    np.testing.assert_array_equal(before.encode(CAPTIONS), TOKENIZER.encode(CAPTIONS))


def test_a_file_of_letters_that_ascii_lacks(tmp_path):
    """Under a locale without UTF-8, as in a bare container."""
    code = (
        "import sys; from jaxcon.encoders.tokenizer import Tokenizer\n"
        "texts = [chr(0xe9) * 3, chr(0x732b) * 2] * 3\n"
        "one = Tokenizer.train(texts); one.save(sys.argv[1])\n"
        "two = Tokenizer.load(sys.argv[1], length=one.length)\n"
        "assert (two.encode(texts) == one.encode(texts)).all()"
    )
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "tokenizer.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr


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
    rows = tokenizer.encode(["a small red circle at the top left"], warn=False)
    assert tokenizer.decode(rows) == ["a small red circle"]


def test_training_twice_gives_the_same(tmp_path):
    Tokenizer.train(CAPTIONS).save(tmp_path / "a.json")
    Tokenizer.train(CAPTIONS).save(tmp_path / "b.json")
    first, second = (json.loads((tmp_path / f"{x}.json").read_text())["model"] for x in "ab")
    assert first == second


def test_the_vocabulary_is_bounded_and_learned():
    small = Tokenizer.train(CAPTIONS, vocabulary=280, max_length=256)
    assert small.vocabulary == 280
    assert small.decode(small.encode(CAPTIONS[:20])) == CAPTIONS[:20]
    assert not small.count_cut(CAPTIONS)


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


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["red", "a \ud83d square"], r"number 1 holds half of a surrogate pair.*a \\ud83d square"),
        (["red", 5], "got int 5 at 1"),
        ([b"red"], "got bytes b'red' at 0"),
        ("red", "expected a list of texts, got one, 'red'"),
    ],
)
def test_what_is_no_text_is_refused_by_name(texts, said):
    for call in (TOKENIZER.encode, TOKENIZER.count_cut, Tokenizer.train):
        with pytest.raises(ValueError, match=said):
            call(texts)
