"""A tokenizer: a byte-level BPE, trained on the captions at hand, that makes rows of numbers of texts.

Any text can be encoded, and comes back lower-cased, in Unicode's composed form (NFC), blanks and all:
whatever no merge covers is spelled in bytes.

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
      vocabulary: number of tokens, including padding.
      length: number of tokens in a row of `encode`.
    """

    def __init__(self, model: Any, length: int) -> None:
        self._model = model
        self.length = length
        self.vocabulary: int = model.get_vocab_size()

    @classmethod
    def train(
        cls, texts: Iterable[str], *, vocabulary: int = 4096, max_length: int = 64
    ) -> Tokenizer:
        """Learns merges from texts, until there are `vocabulary` tokens or nothing is left to merge.

        Example:
          >>> Tokenizer.train(["blue", "blue green", "green"]).vocabulary  # 256 bytes, merges, padding
          266

        Args:
          texts: at least one that is not blank.
          vocabulary: the most tokens to learn, at least 257: bytes and padding.
          max_length: number of tokens in a row, at least 1. It does not follow from these texts, as
            later ones may be longer. Longer texts lose their end.

        Raises:
          ValueError: if settings are out of range, there is nothing to learn from, or not all are
            texts.
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
        """Converts texts to token numbers; shorter texts are padded with 0, longer ones are cut.

        Args:
          texts: any texts.
          warn: whether to warn if texts are cut: those that begin alike may become the same.

        Returns:
          int32 `[len(texts), length]`.

        Raises:
          ValueError: if something is not a text, including halves of surrogate pairs.
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
                "alike may have become the same",
                stacklevel=2,
            )
        return rows

    def count_cut(self, texts: Sequence[str]) -> int:
        """Counts the texts that `encode` would cut."""
        return sum(len(e.ids) > self.length for e in self._model.encode_batch(_as_texts(texts)))

    def decode(self, tokens: np.ndarray) -> list[str]:
        """Returns the texts, lower-cased and composed, without padding and the blank put in front."""
        rows = [[int(token) for token in row if token != PADDING] for row in tokens]
        return [text.removeprefix(" ") for text in self._model.decode_batch(rows)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one JSON file, in the format of the `tokenizers` package."""
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
    """Returns a list that the model can take; the model's own one message would name nothing."""
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
                f"texts: number {number} holds half of a surrogate pair, which is not a character: "
                f"{ascii(text)[:80]}; was it read with another encoding?"
            )
    return texts
