"""What was fixed before the first run of the study, in numbers and in words, and its limits."""

from collections.abc import Sequence

from experiments.uncertainty_study.losses import NAMES
from experiments.uncertainty_study.pieces import Protocol, estimate, pieces
from experiments.uncertainty_study.runs import DIM, VOCABULARY, WARMUP, WEIGHT_DECAY
from experiments.uncertainty_study.statistics import FALL, LEVEL, SPIKE, WINDOW

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

# Losses with a deviation for each sample, and their controls. The first decides the answer; the others
# are reported as well.
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


def protocol_text(protocol: Protocol) -> str:
    """Returns what the page says before any result."""
    every = pieces(protocol)
    seconds = sum(estimate(piece, {}, protocol) for piece in every)
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
    """Returns numbers as words.

    Example:
      >>> listed((0.001, 0.016, 1))
      '0.001, 0.016 and 1'
    """
    *first, last = (f"{number:g}" for number in numbers)
    return f"{', '.join(first)} and {last}" if first else last
