"""The page of the study: what was fixed beforehand, and what the runs so far say about it."""

from collections.abc import Mapping, Sequence

from experiments.uncertainty_study.answer import answer_text
from experiments.uncertainty_study.pieces import Protocol, Records, pieces
from experiments.uncertainty_study.tables import result_tables


def write(
    protocol: Protocol,
    records: Records,
    *,
    before: str,
    after: str,
    comparisons: Mapping[str, Sequence[str]],
    figures: Mapping[str, str],
    folder: str,
    discussion: str = "",
) -> str:
    """Returns the page in Markdown.

    Args:
      protocol: the protocol of the study.
      records: the records that are there.
      before: title, question and protocol.
      after: limits.
      comparisons: maps each loss with deviations to its controls; the first decides the answer.
      figures: captions by file name.
      folder: folder of the figures, relative to the page.
      discussion: a discussion written by hand, or an empty text.
    """
    done, planned = len(records), len(pieces(protocol))
    status = f"**{done} of {planned} runs are done.**"
    if not records:
        results = f"No results yet: {status}"
    else:
        seconds = sum(record.seconds for record in records.values())
        kinds = ", ".join(sorted({record.device for record in records.values()}))
        pairs = sum(piece.batch_size * piece.steps for piece in records)
        speed = pairs / max(seconds, 0.1)  # the seconds of a record are rounded to tenths
        note = (
            f"{status} They took {seconds / 3600:.1f} hours in all, {speed:,.0f} pairs a second with "
            f"compilation and evaluation; devices: {kinds}."
        )
        drawn = [
            f"![Figure {number}]({folder}/{name})\n\n*Figure {number}.* {caption}"
            for number, (name, caption) in enumerate(figures.items(), start=1)
        ]
        results = "\n\n".join([note, *result_tables(protocol, records, comparisons), *drawn])
    answer = answer_text(protocol, records, comparisons)
    sections = [before, "## Results", results, "## Answer", answer]
    if discussion:
        sections += ["## Discussion, written after the results", discussion.strip()]
    return "\n\n".join([*sections, "## Limits", after]) + "\n"
