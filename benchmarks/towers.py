"""A perceptron under a contrastive loss, as a whole batch and in chunks (GradCache).

Entries are as in `benchmarks.implementations`, but the rows that a step takes are the network's
inputs and the gradients are those of its weights. So the measured memory includes what the chunks save:
the activations of the batch.
"""

import itertools
from typing import Any

import numpy as np

from benchmarks.steps import Step, compiled_mib, peak_mib

WIDTHS = (2048, 2048, 2048, 128)
CHUNK = 256  # rows whose activations are held: 128 pairs here; there the two columns come in turn


def weights(inputs: int) -> list[np.ndarray]:
    """Returns the same initial weights for every implementation."""
    rng = np.random.default_rng(1)
    sizes = (inputs, *WIDTHS)
    return [
        (rng.normal(size=(a, b)) * np.sqrt(2 / a)).astype(np.float32)
        for a, b in itertools.pairwise(sizes)
    ]


def in_jaxcon(temperature: float, *, cached: bool) -> Step:
    """Makes a step of info_nce_loss, on the whole batch or with cached_value_and_grad."""
    import jax

    from jaxcon.losses import info_nce_loss
    from jaxcon.training import cached_value_and_grad

    def encode(params: Any, batch: Any, key: Any = None) -> Any:
        def embed(x: Any) -> Any:
            for w in params[:-1]:
                x = jax.nn.relu(x @ w)
            return x @ params[-1]

        return tuple(map(embed, batch))

    def loss(params: Any, embeddings: Any) -> Any:
        return info_nce_loss(*embeddings, temperature=temperature)

    def whole(params: Any, batch: Any) -> Any:
        return jax.value_and_grad(lambda p: loss(p, encode(p, batch)))(params)

    def chunked(params: Any, batch: Any) -> Any:
        size = min(CHUNK // 2, len(batch[0]))
        return cached_value_and_grad(encode, loss, chunk_size=size)(params, batch)

    step = jax.jit(chunked if cached else whole)
    params: list[Any] = []

    def arguments(x1: Any, x2: Any) -> Any:
        if not params:
            params.extend(map(jax.numpy.asarray, weights(x1.shape[1])))
        return params, (x1, x2)

    return Step(
        jax.device_put,
        lambda x1, x2: jax.block_until_ready(step(*arguments(x1, x2))),
        lambda x1, x2: compiled_mib(step, *arguments(x1, x2)),
    )


def in_torch(temperature: float, *, cached: bool) -> Step:
    """Makes the same step in torch, on the whole batch or with sentence-transformers' cached loss."""
    import torch
    from torch.nn import functional

    class Tower(torch.nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList(map(torch.from_numpy, weights(inputs)))

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            x = features["input_ids"]
            for w in self.weights[:-1]:
                x = functional.relu(x @ w)
            return {"sentence_embedding": x @ self.weights[-1]}

    def whole(model: Any, x1: Any, x2: Any) -> Any:
        u, v = (
            functional.normalize(model({"input_ids": x})["sentence_embedding"]) for x in (x1, x2)
        )
        return functional.cross_entropy(u @ v.T / temperature, torch.arange(len(u)))

    def chunked(model: Any, x1: Any, x2: Any) -> Any:
        from sentence_transformers.sentence_transformer import losses

        loss = losses.CachedMultipleNegativesRankingLoss(
            model, scale=1 / temperature, mini_batch_size=CHUNK
        )
        return loss([{"input_ids": x} for x in (x1, x2)], None)

    models: list[Any] = []

    def run(x1: Any, x2: Any) -> Any:
        if not models:
            models.append(torch.nn.Sequential(Tower(x1.shape[1])))  # as a SentenceTransformer is
        model = models[0]
        model.zero_grad()
        value = (chunked if cached else whole)(model, x1, x2)
        value.backward()
        return value.item(), [w.grad for w in model.parameters()]

    return Step(torch.from_numpy, run, lambda x1, x2: peak_mib(lambda: run(x1, x2)))
