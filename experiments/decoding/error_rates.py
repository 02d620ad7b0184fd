"""How far transcripts are from what was said, by jiwer."""

from collections.abc import Sequence


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
