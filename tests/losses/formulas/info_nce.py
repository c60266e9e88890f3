"""The formulas of jaxcon/losses/info_nce.py."""

import numpy as np

from tests.losses.formulas.anchors import all_valid, cross_entropy, unit


def info_nce(
    z1,
    z2,
    extra=None,
    *,
    ids,
    labels=None,
    negatives=None,
    negative_ids=None,
    temperature=0.07,
    in_batch=True,
    held=None,
):
    """CPC, eq. 4; MoCo, eq. 1. `extra` are an anchor's own negatives, `negatives` everyone's."""
    x, y = unit(z1), unit(z2)
    labels = np.arange(len(x)) if labels is None else labels
    values = []
    for i in range(len(x)):
        positives, others = [x[i] @ y[i] / temperature], []
        if in_batch:
            batch = range(len(y))
            positives = [x[i] @ y[j] / temperature for j in batch if labels[j] == labels[i]]
            others = [
                x[i] @ y[j] / temperature
                for j in batch
                if labels[j] != labels[i] and ids[j] != ids[i]
            ]
        if negatives is not None:
            for k, row in enumerate(unit(negatives)):
                if negative_ids is None or negative_ids[k] != ids[i]:
                    others.append(x[i] @ row / temperature)
        if extra is not None:
            others += [x[i] @ row / temperature for row in unit(extra[i])]
        values.append(cross_entropy(positives, others))
    return all_valid(values)
