"""From the frames of a connectionist temporal classification to symbols. Class 0 is the blank.

A path names a class for each frame; its labelling is what remains once repeats are merged and then blanks dropped.
The probability of a labelling is the sum over its paths.

References: Graves et al., "Connectionist Temporal Classification", 2006; Hannun et al., "First-Pass Large Vocabulary
Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014 (prefix beam search).

How far transcripts are from what was said, by jiwer.
"""

import heapq
import itertools
import math
from collections.abc import Sequence

import numpy as np

BLANK = 0


def greedy(log_probs: np.ndarray) -> list[int]:
    """Returns the labelling of the likeliest path.

    Args:
      log_probs: (T, V), normalised over V.
    """
    best = log_probs.argmax(axis=-1).tolist()
    return [label for label, _ in itertools.groupby(best) if label != BLANK]


def prefix_beam(
    log_probs: np.ndarray, width: int, least_log_prob: float = -math.inf
) -> list[tuple[tuple[int, ...], float]]:
    """Searches the likeliest labellings: after each frame the `width` likeliest beginnings are kept.

    Each beginning carries two probabilities, of its paths that end in a blank and of those that end in its last
    label: only after a blank does the same label begin anew. A width as large as the number of labellings is
    exact, and width 1 is what `greedy` gives wherever each frame is nearly sure of its class.

    Args:
      log_probs: (T, V), normalised over V.
      width: how many beginnings are kept, at least 1.
      least_log_prob: labels less likely than this do not extend a beginning at that frame, for speed.

    Returns:
      (labelling, log probability of the paths found), the likeliest first, at most `width`.
    """
    if width < 1:
        raise ValueError(f"width: expected at least 1, got {width}")
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in log_probs.tolist():
        labels = [label for label, score in enumerate(frame) if label != BLANK and score >= least_log_prob]
        blanks: dict[tuple[int, ...], float] = {}
        spoken: dict[tuple[int, ...], float] = {}
        for prefix, (after_blank, after_label) in beams.items():
            either = log_add(after_blank, after_label)
            blanks[prefix] = either + frame[BLANK]
            if prefix:
                spoken[prefix] = log_add(spoken.get(prefix, -math.inf), after_label + frame[prefix[-1]])
            for label in labels:
                before = after_blank if prefix and label == prefix[-1] else either
                longer = (*prefix, label)
                spoken[longer] = log_add(spoken.get(longer, -math.inf), before + frame[label])
        grown = {
            prefix: (blanks.get(prefix, -math.inf), spoken.get(prefix, -math.inf))
            for prefix in blanks.keys() | spoken.keys()
        }
        # Ties go to the labelling that sorts first, so that the answer does not depend on a set's order.
        beams = dict(heapq.nsmallest(width, grown.items(), key=lambda item: (-log_add(*item[1]), item[0])))
    return [(prefix, log_add(*ends)) for prefix, ends in beams.items()]


def log_add(one: float, other: float) -> float:
    """log(exp(one) + exp(other)); minus infinity stands for zero."""
    low, high = min(one, other), max(one, other)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """Returns "wer" and "cer" in percent: insertions, deletions and substitutions per word, and per character.

    Errors and words are summed over all utterances before they are divided. Spaces are characters.

    Args:
      references: what was said; none is empty.
      hypotheses: as many transcripts.
    """
    import jiwer

    rates = {"wer": jiwer.wer, "cer": jiwer.cer}
    return {name: 100 * float(rate(list(references), list(hypotheses))) for name, rate in rates.items()}
