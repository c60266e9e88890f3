"""The page of the study: what was fixed beforehand, and what the runs that exist say to it."""

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
    """Return the page in Markdown.

    Args:
      protocol: of the study.
      records: that are there.
      before: title, question and protocol.
      after: limits.
      comparisons: for each loss with deviations its controls; the answer is that of the first.
      figures: captions by file name.
      folder: of the figures, as seen from the page.
      discussion: written by hand, if there is one.
    """
    done, planned = len(records), len(pieces(protocol))
    status = f"**{done} of {planned} runs are done.**"
    if not records:
        results = f"No results yet: {status}"
    else:
        seconds = sum(record.seconds for record in records.values())
        kinds = ", ".join(sorted({record.device for record in records.values()}))
        pairs = sum(piece.batch_size * piece.steps for piece in records)
        speed = pairs / max(seconds, 0.1)  # a record's are rounded to tenths
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
