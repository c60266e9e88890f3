"""Texts to rows of token numbers: a byte-level BPE, trained on the captions at hand.

Any text can be encoded, and comes back lower-cased: what no merge covers is spelled in bytes.

    >>> tokenizer = Tokenizer.train(["a red circle", "a red square"] * 3)
    >>> tokens = tokenizer.encode(["a red circle", "red"])
    >>> tokens.shape, tokenizer.decode(tokens)
    ((2, 3), ['a red circle', 'red'])
"""

from __future__ import annotations

import os
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

        Rows are as long as the longest text, at most `max_length`.

        Example:
          >>> Tokenizer.train(["blue", "blue green", "green"]).length
          2

        Args:
          texts: at least one that is not blank.
          vocabulary: at most so many tokens, at least 257: bytes and padding.
          max_length: at least 1; longer texts lose their end.

        Raises:
          ValueError: for settings out of range, or no text to learn from.
        """
        from tokenizers import Tokenizer as Model
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        if vocabulary < 257:
            raise ValueError(f"vocabulary must be at least 257 (bytes, padding), got {vocabulary}")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        texts = list(texts)
        if not any(text.strip() for text in texts):
            raise ValueError(f"a tokenizer learns from texts; all {len(texts)} given are blank")
        model = Model(models.BPE())
        model.normalizer = normalizers.Lowercase()
        # "red" at the start of a text becomes the same token as " red" within it.
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
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
        longest = max(len(encoded.ids) for encoded in model.encode_batch(texts))
        return cls(model, min(longest, max_length))

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Numbers of the tokens; shorter texts are padded with 0, longer ones cut.

        Returns:
          int32 `[len(texts), length]`.
        """
        rows = np.full((len(texts), self.length), PADDING, np.int32)
        for row, encoded in zip(rows, self._model.encode_batch(list(texts)), strict=True):
            ids = encoded.ids[: self.length]
            row[: len(ids)] = ids
        return rows

    def decode(self, tokens: np.ndarray) -> list[str]:
        """The texts again, lower-cased, without padding and without the blank added in front."""
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
