"""Words that mean a split: in names of folders, of tar shards and of tables."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "tests", "testing", "tst", "eval", "evaluation"),
}
HELD_OUT = {*SPLIT_WORDS["validation"], *SPLIT_WORDS["test"]}
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
SAY_NOTHING = {"data", "dataset", "images", "image", "img", "imgs", "seg", "set", "split"}


def split_of(name: str) -> str | None:
    """Returns the split that a folder's name means, or None.

    Example:
      >>> [split_of(name) for name in ("Train", "seg_test", "val2017", "TestSet", "training shoes")]
      ['train', 'test', 'validation', 'test', None]
    """
    words = telling_words(name)
    return _SPLIT_OF.get(words[0]) if len(words) == 1 else None


def telling_words(name: str) -> list[str]:
    """Returns the words of a name, in lower case, without those that any dataset's may have.

    Example:
      >>> telling_words("petsTrain_images-2017")
      ['pets', 'train']
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    words = [re.sub(r"(?<=.)(set|data|images)$", "", w) for w in re.findall(r"[^\W\d_]+", apart)]
    return [word for word in words if word not in SAY_NOTHING]


def splits_of(names: Sequence[str]) -> dict[str, str]:
    """Returns the splits that sibling folders mean, by themselves or as parts of one thing.

    If names are alike except for the word of a split, that word decides.

    Example:
      >>> splits_of(["pets_test", "pets_train", "vans"])
      {'pets_test': 'test', 'pets_train': 'train'}
      >>> splits_of(["bus_station", "train_station"])
      {}
    """
    meant: dict[str, str] = {}
    alike: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        words = telling_words(name)
        found = [word for word in words if word in _SPLIT_OF]
        if len(found) == 1:
            alike[tuple(word for word in words if word not in found)][name] = _SPLIT_OF[found[0]]
    for rest, group in alike.items():
        if not rest or len(set(group.values())) > 1:
            meant |= group
    return {name: meant[name] for name in names if name in meant}
