"""Caption tokens: learned from the training captions, kept with the run, cut where too long."""

import numpy as np

from jaxcon.data.captions import PairDataset, PairSplit
from jaxcon.data.pairs import CaptionTokens
from jaxcon.encoders.tokenizer import Tokenizer

GRADE_WEIGHTS = {1: 1.0, 2: 3.0, 3: 4.0, 4: 3.0}


def make_tokenizer(dataset: PairDataset, vocabulary: int, context_length: int = 64) -> Tokenizer:
    """Returns a tokenizer trained on the training captions."""
    texts = [text for captions in dataset.train.captions for text in captions]
    return Tokenizer.train(texts, vocabulary=vocabulary, max_length=context_length)


def cut_note(dataset: PairDataset, tokenizer: Tokenizer) -> str | None:
    """Returns a warning if captions lose their end, else None: once cut, two may look the same."""
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
    """Returns the tokens of all captions; how often one is drawn depends on its grade.

    A caption of grade 1 teaches little. One that says everything can be matched by colours and
    corners alone, before shapes are learned; captions of grades 2 and 3 need the shapes.
    """
    texts = [text for captions in split.captions for text in captions]
    weights = None
    if split.grades is not None:
        weights = np.array([GRADE_WEIGHTS[grade] for grades in split.grades for grade in grades])
    counts = [len(captions) for captions in split.captions]
    return CaptionTokens(tokenizer.encode(texts, warn=False), counts, weights)
