"""Decoding of connectionist temporal classification (CTC), and word and character error rates.

A path is one class per frame; class 0 is the blank. Merging repeats and then removing blanks gives its labeling. The
probability of a labeling is the sum over its paths.

References: Graves et al., "Connectionist Temporal Classification", 2006; Hannun et al., "First-Pass Large Vocabulary
Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014 (prefix beam search).
"""

import heapq
import itertools
import math
from collections.abc import Sequence

import numpy as np

BLANK = 0


def greedy(log_probs: np.ndarray) -> list[int]:
    """Returns the labeling of the most likely path.

    Args:
      log_probs: (T, V), normalized over V.
    """
    best = log_probs.argmax(axis=-1).tolist()
    return [label for label, _ in itertools.groupby(best) if label != BLANK]


def prefix_beam(
    log_probs: np.ndarray, width: int, least_log_prob: float = -math.inf
) -> list[tuple[tuple[int, ...], float]]:
    """Searches for the most likely labelings, keeping the `width` most likely prefixes after each frame.

    Each prefix has two probabilities: of its paths that end in a blank, and of its paths that end in its last label. A
    label can be repeated only after a blank. The search is exact if `width` is at least the number of labelings.

    Args:
      log_probs: (T, V), normalized over V.
      width: the number of prefixes, at least 1.
      least_log_prob: labels below this log-probability do not extend a prefix at that frame, for speed.

    Returns:
      at most `width` pairs of a labeling and the log-probability of its paths that were found, most likely first.
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
        # Ties are broken by the labels, so that the result does not depend on the order of a set.
        beams = dict(heapq.nsmallest(width, grown.items(), key=lambda item: (-log_add(*item[1]), item[0])))
    return [(prefix, log_add(*ends)) for prefix, ends in beams.items()]


def log_add(one: float, other: float) -> float:
    """Returns log(exp(one) + exp(other)), also for minus infinity."""
    low, high = min(one, other), max(one, other)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """Returns the word and character error rates "wer" and "cer" in percent, over all utterances together.

    Args:
      references: the true texts, none empty. Spaces count as characters.
      hypotheses: a transcript for each.
    """
    import jiwer

    rates = {"wer": jiwer.wer, "cer": jiwer.cer}
    return {name: 100 * float(rate(list(references), list(hypotheses))) for name, rate in rates.items()}
