"""Contrastive learning in JAX, in the order in which data flows through it.

    views -> encoder -> embeddings -> similarity -> loss -> step -> evaluation -> report

Every name below is a module to import by itself; importing `jaxcon` loads none of them.

    jaxcon.similarity    l2_normalize; cosine, dot-product and squared-distance matrices
    jaxcon.collectives   gather, mean, ring over a mapped axis; the identity with axis_name=None
    jaxcon.streaming     the engine that reduces a similarity matrix tile by tile
    jaxcon.losses        the losses: pure functions from embeddings to a scalar
    jaxcon.diagnostics   chance level, contrastive accuracy, collapse report
    jaxcon.plots         similarity heat-map, spectra, curves
    jaxcon.augment       random image transforms, key first; two_views(key, images)
    jaxcon.encoders      flax encoders, projection heads, learnable temperature
    jaxcon.stores        runs and prepared datasets in object stores, gs:// and s3://
    jaxcon.data          datasets that we ship, and sources for your own
    jaxcon.training      state, optimizers, sharded step, loop, checkpoints
    jaxcon.evaluation    kNN, linear probe: arrays in, floats out
    jaxcon.planning      memory and traffic of a compiled program, speeds of machines
    jaxcon.report        a run's table, figures and self-contained page
    jaxcon.runs          a trained encoder, ready for use: jaxcon.load_run(folder)

Up to `diagnostics` only `jax` and `chex` are needed; from `plots` on, install
`jaxcon[experiments]`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcon.runs import load_run as load_run

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load_run":  # loaded on demand: it needs everything above
        try:
            from jaxcon.runs import load_run
        except ModuleNotFoundError as error:
            raise ImportError(
                f"jaxcon.load_run needs {error.name}: pip install 'jaxcon[experiments]'"
            ) from error
        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
