"""Does a learned variance of each sample help CLIP? A study in many short runs.

    python -m experiments.uncertainty --dry-run
    python -m experiments.uncertainty

Runs what is not done yet, then writes results.json, figures and the page from all there is, which
begins with the protocol. It may be stopped at any time and goes on where it was; on several CPU
cores, start it once for each, they share the work:

    taskset -c 0 python -m experiments.uncertainty & taskset -c 1 python -m experiments.uncertainty

Nothing that decides the answer is chosen after a result is known: numbers are in `SIZES`, the rules
in `BEFORE` and `experiments._study_statistics`.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from experiments import _common, _options, _study, _study_figures, _study_page, _study_statistics
from experiments._study import Protocol, Records, pieces
from experiments._study_losses import NAMES
from experiments._study_runs import DIM, VOCABULARY, WARMUP, WEIGHT_DECAY, Laboratory
from experiments._study_statistics import FALL, LEVEL, SPIKE, WINDOW
from jaxcon.data.captions import load_pairs
from jaxcon.training.checkpoint import check_writable, write_text

SIZES = {
    "small": Protocol(NAMES),
    "large": Protocol(
        NAMES,
        batch_size=256,
        steps=2000,
        seeds=tuple(range(10)),
        stability_batches=(64, 256, 1024),
        stability_steps=400,
        pairs_per_second=20_000.0,
    ),
}

# Losses with a deviation for each sample, and what they are set against. The answer is that of the
# first; the others are told beside it.
COMPARISONS = {
    "gaussian": ("clip", "gaussian-shared"),
    "gaussian-exact": ("clip", "gaussian-shared"),
    "csd": ("siglip",),
    "csd-clip": ("clip", "csd"),
}

BEFORE = """\
# Does a learned variance help CLIP?

## Question

CLIP draws each picture to its caption. A caption such as "a picture with an object" is true of many
pictures, yet all but one of them count as wrong. A proposal on a forum: let the encoders predict,
beside every embedding, a standard deviation that says how far its pair may lie. Three questions:

1. Does a deviation learned for each sample make training **more stable**?
2. Does it make the **joint space better**?
3. Do **general captions** really get the larger deviation?

## Protocol, fixed before the first run

This section is written by `python -m experiments.uncertainty` from constants in its code, and was
committed before there was a result.

### Losses

In brackets: what is learned beside the encoders, and its first value.

- **clip**: softmax cross-entropy of cosines, both ways (temperature 0.5).
- **siglip**: sigmoid loss of cosines (temperature 0.1, bias -10).
- **gaussian**: the proposal. Softmax of `-l - D exp(-2l)`, both ways, with D the squared distance of
  raw embeddings and l the log deviation of the candidate (l of each sample, 0 from a head that starts
  at zero).
- **gaussian-shared**: the same with one l for all samples, which is a temperature (l, 0).
- **gaussian-exact**: softmax of the isotropic Gaussian log-density, `-dim l - D exp(-2l) / 2` (l of
  each sample, 0).
- **csd**: PCME++. Sigmoid loss of the sampled distance `D + dim s1^2 + dim s2^2` of normalized means
  (log s of each sample, -4; scale 5, shift 5).
- **csd-clip**: csd, summed over each anchor's pairs, plus clip on the same means (all of both).

*gaussian-shared* is the ablation: it differs from *gaussian* in nothing but that the deviation is not
the sample's own. In *csd-clip* the added deterministic term is that of clip and not of siglip: the
sigmoid loss of cosines is the limit of csd at small deviations and would add nothing of another
kind, while the softmax compares candidates with each other and gives the means a strong gradient from
the first step. It shows what the deviations are worth to means that would be good without them.

Embeddings are compared in the evaluation as the loss compares them: by cosine, by log-density under
the candidate's Gaussian, by sampled distance.

### Data and batches

The `scenes` dataset: 10,000 training, 1,000 validation and 1,000 test images of one to three
objects, each with four captions, from grade 1 (true of every image) to grade 4 (all that is known).
A row of a batch is an image with one of its captions, drawn with the weights 1 : 3 : 4 : 3 of grades
1 to 4, as in `experiments.clip`. A batch so has captions that are true of several of its images, of
many where the grade is 1 or 2. Captions that are equal, or true of several images, are **not** marked
(neither `ids` nor `labels`), for any loss: row i's pair is row i alone. That ambiguity is what a
deviation is said to be good for, so nothing else may take it away.

### Model and training

The dual encoder of `experiments.clip`: a small convolutional network and a transformer of one layer
over a vocabulary of at most {vocabulary} tokens, embeddings of {dim} numbers and of norm about 1 at the
start; the same for all losses, but for the deviation's head. AdamW, weight decay {decay:g}, no
clipping of gradients; the learning rate rises over the first {warmup:.0%} of the steps and falls along
a cosine. An update that is not finite is refused; a run with 50 of them in a row ends.

1. *rates*: for each loss, the learning rates {rates}, batch {batch}, {steps} steps, seed {trial}. The
   one with the best recall@1 on validation (mean of both ways) is chosen.
2. *seeds*: for each loss at its rate, batch {batch}, {steps} steps, seeds {seeds}. Measured on the
   test images, which nothing before has seen. Runs of one seed begin with equal encoders and see
   equal batches.
3. *stability*: for each loss, the learning rates {stability_rates} with the batches
   {stability_batches}, {stability_steps} steps each, seed {trial}.

{planned} runs, about {hours:.1f} hours at an assumed {speed:,.0f} pairs a second.

### Outcomes

- **Stability**, over the {settings} settings of *stability*. A run fails if an update had to be
  refused or its embeddings cannot be compared (*not finite*), if all images or all texts point the
  same way (*collapsed*), or if its loss in the last tenth is {level:g} of that of equal embeddings or
  more (for the softmax losses: of the logarithm of the batch) and has either not fallen to {fall:g} of
  the first or comes with pairs that are found by luck alone (*at chance*; sigmoid losses begin far
  above it, and may be on their way down). A spike begins at a step after the warm-up whose loss
  exceeds the median of the {window} before by {spike:g} times their scaled median absolute deviation.
  Variation of the gradient norm is the standard deviation, after the warm-up, of the logarithm of the
  norm over the median of the {window} before.
- **Joint space**: recall@1, 5, 10 among 1,000 test images and their captions of grade 4, both ways
  (equal captions count as hits), and zero-shot accuracy for shape, colour, size and position of single
  objects. A run whose embeddings are not finite scores chance.
- **Deviations**: Spearman's correlation of a test caption's log deviation with its grade (also
  without grade 1, whose few sentences are easily learned by heart), of an image's with the number of
  its objects, and with visibility, the size of a single object.
- **Use of the space**: effective rank and uniformity of the normalized test embeddings.

Intervals are 95 % t intervals over seeds.

### How the answer is decided

The proposal is *gaussian*. It is set against *clip* and against *gaussian-shared*; a "yes" to
question 1 or 2 needs both, so that neither the squared distance nor the freedom of scale is taken for
the deviation's merit.

1. *More stable* than a control: fewer settings fail (two-sided sign test over the settings in which
   one of the two fails, p < 0.05); or no more of them fail, and of spikes and gradient-norm variation
   one is lower and neither is higher: lower where the 95 % interval of the mean difference over
   settings in which both trained lies below 0, higher where it lies above. *Less stable* is the
   mirror image, all else *no difference shown*.
2. *Better* than a control: the 95 % interval of the mean difference of recall@1, of runs of the same
   seed, lies above 0. *Worse*: below 0. All else: *no difference shown*.
3. *Yes* if the 95 % interval of the mean correlation with the grade lies below -0.3; *weakly* if below
   0; otherwise *no* (and *the opposite* if above 0).

All other comparisons (*gaussian-exact*, *csd*, *csd-clip*) are told beside it and decide nothing."""

LIMITS = """\
- Small pictures, small encoders, short runs: nothing here says what happens after days of training
  on photographs. The differences that the intervals exclude are excluded for this setting.
- The learning rate of each loss is the best of few, by one run each.
- Each setting of *stability* is one run; settings are not independent of each other, so that its
  intervals and its test are rough. A run that did not fail need not have learned much.
- Grade and length of a caption go together; a correlation with one is a correlation with both.
- The losses begin with the first values that their authors or the proposal name, but for clip's
  temperature: 0.5 and not 0.07, with which such small runs had collapsed. Adam moves a scalar by
  about the learning rate a step, so that it ends near where it began. *gaussian* and
  *gaussian-shared* can sharpen their softmax through the norm of the embeddings, which clip cannot:
  what sets both apart from clip may be that. Other first values may serve some losses better.
- The test images are not, as the protocol has it, unseen: they are those on which the prompts of
  zero-shot classification were once chosen and the network of `experiments.clip` was tried, but for
  two colours that changed since. That flatters the scores of all losses alike, not one of them
  against another.
- Zero-shot accuracy averages the scores of a prompt's three phrasings. Since the runs,
  `experiments.clip` averages their embeddings, as CLIP does; these runs were not repeated for it."""


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Run the study of losses with a learned variance, in pieces that resume, and write its page."""

    size: Literal["small", "large"] = "small"
    """small is made for two CPU cores, large for an accelerator; each has files of its own."""
    dry_run: bool = False
    """List the pieces that are left and how long they will take; do nothing."""
    only: tuple[str, ...] = ()
    """Run but the pieces of these names; * and ? stand for what varies, as in rates-clip-*."""
    budget_minutes: _options.OptionalFloat = None
    """Begin no piece that would probably end later; 0 writes the page alone."""
    output: Path = Path("docs")
    """Folder of the page; the files of the runs and the figures go to a folder beside it."""
    data_dir: _options.OptionalPath = None
    """Where scenes are prepared. Default: the user's cache folder."""
    accelerator: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """auto takes the best there is; the others mean that one, or an error."""


def protocol_text(protocol: Protocol) -> str:
    """Return what the page says before any result."""
    every = pieces(protocol)
    seconds = sum(_study.estimate(piece, {}, protocol) for piece in every)
    return BEFORE.format(
        vocabulary=VOCABULARY,
        dim=DIM,
        decay=WEIGHT_DECAY,
        warmup=WARMUP,
        rates=listed(protocol.rates),
        batch=protocol.batch_size,
        steps=protocol.steps,
        trial=protocol.trial_seed,
        seeds=listed(protocol.seeds),
        stability_rates=listed(protocol.stability_rates),
        stability_batches=listed(protocol.stability_batches),
        stability_steps=protocol.stability_steps,
        settings=len(protocol.stability_rates) * len(protocol.stability_batches),
        planned=len(every),
        hours=seconds / 3600,
        speed=protocol.pairs_per_second,
        level=LEVEL,
        fall=FALL,
        window=WINDOW,
        spike=SPIKE,
    )


def listed(numbers: Sequence[float]) -> str:
    """Return numbers as words.

    >>> listed((0.001, 0.016, 1))
    '0.001, 0.016 and 1'
    """
    *first, last = (f"{number:g}" for number in numbers)
    return f"{', '.join(first)} and {last}" if first else last


def write_results(output: Path, name: str, protocol: Protocol, records: Records) -> None:
    """Write results.json, the figures and the page, from the protocol and the records."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    summary = _study_statistics.summarize(protocol, records, COMPARISONS)
    write_text(folder / "results.json", json.dumps(summary, indent=1) + "\n")
    discussion = folder / "discussion.md"
    page = _study_page.write(
        protocol,
        records,
        before=protocol_text(protocol),
        after=LIMITS,
        comparisons=COMPARISONS,
        figures=_study_figures.draw_all(protocol, records, folder),
        folder=name,
        discussion=discussion.read_text(encoding="utf-8") if discussion.exists() else "",
    )
    write_text(output / f"{name}.md", page)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study of a command line."""
    _common.quiet_libraries()
    config = _options.parse(Uncertainty, program="uncertainty", arguments=arguments)
    protocol = SIZES[config.size]
    name = "uncertainty" if config.size == "small" else f"uncertainty-{config.size}"
    folder = config.output / name / "pieces"
    with _options.usage_errors():
        _options.check_range(config, "budget_minutes", low=0, open_low=False)
        if not config.dry_run:
            check_writable(config.output, option="--output")
        wanted = _study.select(pieces(protocol), config.only)
        records = _study.load(folder, protocol)
    _common.say(_study.overview(wanted, records, protocol))
    left = [piece for piece in wanted if piece not in records]
    if config.dry_run:
        for piece in left:
            _common.say(f"{piece.name}  {_study.estimate(piece, records, protocol):.0f} s")
        return
    if left and config.budget_minutes != 0:
        budget = None if config.budget_minutes is None else 60 * config.budget_minutes
        with _options.usage_errors():
            machine = _options.Machine(accelerator=config.accelerator)
            devices = _common.select_devices(machine)
            _common.say("loading scenes; the first time they are drawn, which takes half a minute")
            dataset = load_pairs("scenes", data_dir=config.data_dir)
        _study.work(left, folder, protocol, Laboratory(dataset, devices), budget=budget)
        records = _study.load(folder, protocol)
    write_results(config.output, name, protocol, records)
    _common.say(f"page: {config.output / name}.md ({len(records)} of {len(pieces(protocol))} runs)")


if __name__ == "__main__":
    main()
