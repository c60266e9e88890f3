"""Scores of frozen features on a CPU, beside scikit-learn's: time, memory and what they find.

    python -m benchmarks.scores       # three minutes

kNN and the linear probe, with choice of the penalty on validation, of digits' pixels and of generated
features, 20,000 x 512 in ten classes. Every figure is of a process of its own, which makes the
features, notes its memory, and calls the function once, which compiles, and then three times. The
processes of a row follow each other. Written to `--out`: `scores.json` and `scores.md`.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SETS = ("digits", "generated")
SCORES, BY = ("kNN", "linear probe"), ("here", "scikit-learn")
K, TEMPERATURE = 20, 0.07


def features(name: str, rows: int, dim: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and labels for training, validation and test; generated ones as 10 to 2 to 3."""
    if name == "digits":
        from jaxcon.data.sources import load

        digits = load("digits")
        splits = (digits.train, digits.validation, digits.test)
        return [(s.images.reshape(len(s), -1).astype(np.float32), s.labels) for s in splits]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, rows * 3 // 2)
    x = rng.normal(size=(len(y), dim)) + 0.15 * rng.normal(size=(10, dim))[y]
    x = (x @ (np.eye(dim) + rng.normal(size=(dim, dim)) / 20)).astype(np.float32)
    ends = (0, rows, rows * 6 // 5, len(y))
    return [(x[a:b], y[a:b]) for a, b in itertools.pairwise(ends)]


def here(score: str, train: Any, validation: Any, test: Any) -> float:
    """The score by jaxcon."""
    from jaxcon.evaluation.knn import knn_accuracy
    from jaxcon.evaluation.linear_probe import linear_probe_accuracy

    if score == "kNN":
        return knn_accuracy(*train, *test, k=K, temperature=TEMPERATURE)
    held = {"validation_x": validation[0], "validation_y": validation[1]}
    return linear_probe_accuracy(*train, *test, **held)


def in_scikit_learn(score: str, train: Any, validation: Any, test: Any) -> float:
    """The score by scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    if score == "kNN":

        def weights(distance: Any) -> Any:
            return np.exp((1 - distance) / TEMPERATURE)

        model = KNeighborsClassifier(K, metric="cosine", weights=weights, algorithm="brute")
        return model.fit(*train).score(*test)
    scaler = StandardScaler().fit(train[0])
    x = [scaler.transform(rows) for rows, _ in (train, validation, test)]

    def fitted(rows: Any, labels: Any, c: float) -> Any:
        return LogisticRegression(C=c, max_iter=300).fit(rows, labels)

    strengths = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    found = [fitted(x[0], train[1], c).score(x[1], validation[1]) for c in strengths]
    both = np.concatenate(x[:2]), np.concatenate([train[1], validation[1]])
    return fitted(*both, strengths[int(np.argmax(found))]).score(x[2], test[1])


def peak_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(score: str, call: Callable[..., float], repeats: int, *of: Any) -> dict[str, float]:
    """Seconds of the first call and the median of those after it, MiB more than before, the score."""
    splits = features(*of)
    call(score, *((x[:100], y[:100]) for x, y in features("digits", 0, 0)))  # loads what it imports
    before, seconds, found = peak_mib(), [], 0.0
    for _ in range(1 + repeats):
        start = time.perf_counter()
        found = call(score, *splits)
        seconds.append(time.perf_counter() - start)
    return {
        "first": seconds[0],
        "seconds": float(np.median(seconds[1:])),
        "MiB": peak_mib() - before,
        "score": found,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as markdown."""
    heads = (
        "features",
        "score",
        "here, s (first)",
        "MiB",
        "found",
        "scikit-learn, s",
        "MiB",
        "found",
    )
    lines = [
        "# Scores of frozen features on a CPU",
        "",
        "`python -m benchmarks.scores`: seconds of a call (of the first one, which compiles), MiB",
        "beyond the features, and the score. The processes of a row followed each other. Others used",
        "the machine too: compare within rows.",
        "",
        f"| {' | '.join(heads)} | time, here / theirs |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, scores in figures.items():
        for score, by in scores.items():
            ours, theirs = (by[who] for who in BY)
            lines.append(
                f"| {name} | {score} | {ours['seconds']:.2f} ({ours['first']:.2f}) | "
                f"{ours['MiB']:.0f} | {ours['score']:.2%} | {theirs['seconds']:.2f} | "
                f"{theirs['MiB']:.0f} | {theirs['score']:.2%} | "
                f"{ours['seconds'] / theirs['seconds']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--rows", type=int, default=20_000, help="generated rows for training")
    parser.add_argument("--dim", type=int, default=512, help="their width")
    parser.add_argument("--repeats", type=int, default=3, help="calls that are timed")
    parser.add_argument("--one", nargs=3, help="features, score and by whom: one figure, as JSON")
    args = parser.parse_args()
    if args.one:
        name, score, by = args.one
        call = here if by == BY[0] else in_scikit_learn
        print(json.dumps(measure(score, call, args.repeats, name, args.rows, args.dim)))
        return
    flags = [f"--{flag}={getattr(args, flag)}" for flag in ("rows", "dim", "repeats")]
    titles = ("digits, 1,259 x 64", f"generated, {args.rows:,} x {args.dim}")
    figures: dict[str, Any] = {}
    for name, title in zip(SETS, titles, strict=True):
        for score in SCORES:
            for by in BY:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.scores",
                    *flags,
                    "--one",
                    name,
                    score,
                    by,
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                figures.setdefault(title, {}).setdefault(score, {})[by] = found
                print(name, score, by, found, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scores.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (args.out / "scores.md").write_text(table(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
