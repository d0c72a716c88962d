"""What a test on simulated listeners says, in sentences and as a table of what is heard."""

from __future__ import annotations

from collections.abc import Sequence

from dsaml_jax.evaluation.bootstrap import Interval
from dsaml_jax.evaluation.decoding import CueDecoding
from dsaml_jax.evaluation.results import Results
from dsaml_jax.reports.tables import aligned, interval_text, results_table


def conclusion(results: Results) -> str:
    """States how much of what the ratings could tell was used, with intervals over annotators.

    Returns:
      A paragraph; "" without ideal rows.
    """
    headroom = results.headroom
    if headroom is None:
        return ""
    sentences = [
        f"One rated song could give {interval_text(headroom.available, star=False)} CCC: so much "
        "an ideal method gains from it.",
        f"This model gains {interval_text(headroom.gained, star=False)} over {headroom.baseline}, "
        f"{_percent(headroom.share)} of it ({headroom.baseline} is the strongest population row on "
        "validation).",
    ]
    curve = results.songs_curve
    if curve is not None and curve.ideal:
        gains = [
            f"{interval_text(gained, star=False)} of {interval_text(ideal, star=False)} with "
            f"{songs} song{'s' if songs > 1 else ''}"
            for songs, gained, ideal in zip(curve.songs, curve.adapted, curve.ideal, strict=True)
        ]
        sentences.append(
            f"Over the {curve.annotators} listeners who rated more than {curve.songs[-1]} songs: "
            f"{', '.join(gains)}."
        )
    control = results.differences.get("wrong_listener", {}).get("ccc")
    if control is not None:
        sentences.append(
            "Adapting to this listener rather than to someone else's rating of the same song makes "
            f"a difference of {interval_text(control, star=False)}."
        )
    return "\n".join(sentences)


def summary_text(results: Results, order: Sequence[str] = ()) -> str:
    """Formats the table of a test with its legend, and the conclusion if there is one."""
    parts = [results_table(results, order)]
    if results.headroom is not None:
        parts.append(conclusion(results))
    return "\n\n".join(parts)


def decoding_table(decoding: CueDecoding) -> str:
    """Formats the R² of decoded cues as a Markdown table, one line for each kind of features."""
    first = next(iter(decoding.values()))
    cues = list(next(iter(first.values())))
    lines = [["features", "level", *cues]]
    for name, levels in decoding.items():
        for level, scores in levels.items():
            numbers = ["-" if scores[cue] is None else f"{scores[cue]:z.2f}" for cue in cues]
            lines.append([name, level, *numbers])
    return "\n".join(aligned(lines, len(cues) + 1))


def _percent(share: Interval) -> str:
    if share.mean is None:
        return "an unknown share"
    ends = "-" if share.low is None else f"{share.low:z.1%}, {share.high:z.1%}"
    return f"{share.mean:z.1%} [{ends}]"
