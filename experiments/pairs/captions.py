"""The tokens of captions: learned from those of training, kept by a run, cut where they are long."""

import numpy as np

from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.data.pairs import CaptionTokens
from jaxcon.encoders.tokenizer import Tokenizer

GRADE_WEIGHTS = {1: 1.0, 2: 3.0, 3: 4.0, 4: 3.0}


def make_tokenizer(dataset: PairDataset, vocabulary: int, context_length: int = 64) -> Tokenizer:
    """Return the tokenizer of the training captions."""
    texts = [text for captions in dataset.train.captions for text in captions]
    return Tokenizer.train(texts, vocabulary=vocabulary, max_length=context_length)


def cut_note(dataset: PairDataset, tokenizer: Tokenizer) -> str | None:
    """Return a line on captions that lose their end: cut, two may become one row of tokens."""
    parts = (dataset.train, dataset.validation, dataset.test)
    texts = [text for part in parts for captions in part.captions for text in captions]
    count = tokenizer.count_cut(texts)
    if not count:
        return None
    return (
        f"{count:,} of {len(texts):,} captions were cut at {tokenizer.length} tokens; a larger "
        "--context-length reads more of them"
    )


def caption_tokens(split: PairSplit, tokenizer: Tokenizer) -> CaptionTokens:
    """Return the tokens of all captions; how often one is drawn depends on its grade.

    One of grade 1 teaches little. One that tells all is found by colours and corners before shapes
    are needed, which those of grades 2 and 3 cannot do without.
    """
    texts = [text for captions in split.captions for text in captions]
    weights = None
    if split.grades is not None:
        weights = np.array([GRADE_WEIGHTS[grade] for grades in split.grades for grade in grades])
    counts = [len(captions) for captions in split.captions]
    return CaptionTokens(tokenizer.encode(texts, warn=False), counts, weights)
