"""Texts to rows of token numbers: a byte-level BPE, trained on the captions at hand.

Any text can be encoded, and comes back lower-cased, in Unicode's composed form (NFC), blanks and all:
what no merge covers is spelled in bytes.

    >>> tokenizer = Tokenizer.train(["a red circle", "a red square"] * 3, max_length=8)
    >>> tokens = tokenizer.encode(["a red circle", "red"])
    >>> tokens.shape, tokenizer.decode(tokens)
    ((2, 8), ['a red circle', 'red'])
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PADDING = 0


class Tokenizer:
    """A trained vocabulary; number 0 is padding and stands for no text.

    Attributes:
      vocabulary: number of tokens, padding among them.
      length: tokens in a row of `encode`.
    """

    def __init__(self, model: Any, length: int) -> None:
        self._model = model
        self.length = length
        self.vocabulary: int = model.get_vocab_size()

    @classmethod
    def train(
        cls, texts: Iterable[str], *, vocabulary: int = 4096, max_length: int = 64
    ) -> Tokenizer:
        """Learns merges from texts, until `vocabulary` tokens or until nothing is left to merge.

        Example:
          >>> Tokenizer.train(["blue", "blue green", "green"]).vocabulary  # 256 bytes, merges, padding
          266

        Args:
          texts: at least one that is not blank.
          vocabulary: at most so many tokens, at least 257: bytes and padding.
          max_length: tokens in a row, at least 1, whatever the texts to learn from: those to come may
            be longer than these. Longer texts lose their end.

        Raises:
          ValueError: for settings out of range, no text to learn from, or what is no text.
        """
        from tokenizers import Tokenizer as Model
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        if vocabulary < 257:
            raise ValueError(f"vocabulary must be at least 257 (bytes, padding), got {vocabulary}")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        texts = _as_texts(texts)
        if not any(text.strip() for text in texts):
            raise ValueError(f"a tokenizer learns from texts; all {len(texts)} given are blank")
        model = Model(models.BPE())
        # An accent may be a character of its own or not, in what looks and means the same; lower case
        # may take a composed one apart. A blank in front makes "red" the token that it is in "a red".
        model.normalizer = normalizers.Sequence(
            [
                normalizers.NFC(),
                normalizers.Lowercase(),
                normalizers.NFC(),
                normalizers.Prepend(" "),
            ]
        )
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            show_progress=False,
            special_tokens=["[PAD]"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        model.train_from_iterator(texts, trainer)
        # A text that spells "[PAD]" means these five characters.
        model.encode_special_tokens = True
        return cls(model, max_length)

    def encode(self, texts: Sequence[str], *, warn: bool = True) -> np.ndarray:
        """Numbers of the tokens; shorter texts are padded with 0, longer ones cut.

        Args:
          texts: any.
          warn: whether to issue a warning where texts are cut: those that begin alike may become one.

        Returns:
          int32 `[len(texts), length]`.

        Raises:
          ValueError: for what is no text, halves of surrogate pairs among them.
        """
        texts = _as_texts(texts)
        rows = np.full((len(texts), self.length), PADDING, np.int32)
        cut = 0
        for row, encoded in zip(rows, self._model.encode_batch(texts), strict=True):
            ids = encoded.ids[: self.length]
            row[: len(ids)] = ids
            cut += len(encoded.ids) > self.length
        if cut and warn:
            warnings.warn(
                f"{cut:,} of {len(texts):,} texts were cut at {self.length} tokens; those that begin "
                "alike may have become one",
                stacklevel=2,
            )
        return rows

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many texts `encode` would cut."""
        return sum(len(e.ids) > self.length for e in self._model.encode_batch(_as_texts(texts)))

    def decode(self, tokens: np.ndarray) -> list[str]:
        """The texts again, lower-cased and composed, without padding and the blank added in front."""
        rows = [[int(token) for token in row if token != PADDING] for row in tokens]
        return [text.removeprefix(" ") for text in self._model.decode_batch(rows)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one JSON file, of the format of the `tokenizers` package."""
        Path(path).write_text(self._model.to_str(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, length: int) -> Tokenizer:
        """Reads what `save` wrote.

        Example:
          >>> import tempfile
          >>> tokenizer = Tokenizer.train(["a red circle", "a red square"])
          >>> with tempfile.NamedTemporaryFile(suffix=".json") as file:
          ...     tokenizer.save(file.name)
          ...     again = Tokenizer.load(file.name, length=tokenizer.length)
          >>> bool((again.encode(["red"]) == tokenizer.encode(["red"])).all())
          True
        """
        from tokenizers import Tokenizer as Model

        model = Model.from_str(Path(path).read_text(encoding="utf-8"))
        model.encode_special_tokens = True  # not part of the file
        return cls(model, length)


def _as_texts(texts: Iterable[str]) -> list[str]:
    """A list of what the model can take: it has one message for all else, which names nothing."""
    if isinstance(texts, str | bytes):
        raise ValueError(f"texts: expected a list of texts, got one, {ascii(texts)[:80]}")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"texts: expected texts, got {type(text).__name__} {ascii(text)[:80]} at {number}"
            )
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(
                f"texts: number {number} holds half of a surrogate pair, which is no character: "
                f"{ascii(text)[:80]}; was it read with another encoding?"
            )
    return texts
