"""The scores of trivial predictions on the test splits.

python -m experiments.studies.trivial_baselines

Frequencies are counted on the training split and scored on the test split with the metric of the task:

- digits and MNIST: always the most frequent class;
- music: the frequency of each key, or its frequency given whether it sounded at the previous step;
- text: the frequency of each character, or its frequency given the previous character;
- translation: the source sentence.

For forecasts, see `experiments.studies.forecast_baselines`. The baselines of other tasks follow from a definition. The
scores are written to runs/studies/trivial_baselines.json, or with --record to experiments/results/studies/, where
published.toml refers to them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from absl import flags

from experiments.reporting.tables import table
from experiments.runner import cli
from experiments.studies import results
from experiments.tasks.images.digits import Digits, DigitsConfig
from experiments.tasks.images.mnist import MNIST, MNISTConfig
from experiments.tasks.music.task import Music, MusicConfig
from experiments.tasks.text.char_lm import CharLM, CharLMConfig
from experiments.tasks.text.ptb_char import PTBChar, PTBCharConfig
from experiments.tasks.translation.multi30k import Multi30k, Multi30kConfig, sacrebleu_metrics

flags.adopt_module_key_flags(results)
DATA_DIR = cli.define_data_dir()

COLLECTIONS = ("jsb", "nottingham", "musedata", "piano_midi")
DIRECTIONS = ("de-en", "en-de", "en-fr")


def main(arguments: Sequence[str]) -> None:
    """Scores all baselines, writes trivial_baselines.json and prints the scores."""
    del arguments
    scores = results.measured("trivial_baselines", lambda: {"scores": measure(DATA_DIR.value)})["scores"]
    print(table(("baseline", "test score"), ((name, f"{value:.6g}") for name, value in scores.items())))


def measure(data_dir: str | None) -> dict[str, float]:
    """Returns the test score of each baseline, by "<task>.<baseline>"."""
    scores = {
        "digits.majority": majority(Digits(DigitsConfig(), data_dir)),
        "smnist.majority": majority(MNIST(MNISTConfig(), data_dir)),
    }
    for collection in COLLECTIONS:
        pieces = Music(MusicConfig(collection=collection), data_dir).pieces
        scores[f"{collection}.frequency"] = key_frequency(pieces["train"], pieces["test"])
        scores[f"{collection}.previous"] = key_after_key(pieces["train"], pieces["test"])
    shakespeare = CharLM(CharLMConfig(train_on_validation=True), data_dir)
    treebank = PTBChar(PTBCharConfig(), data_dir)
    for name, task, unit in (("tiny_shakespeare", shakespeare, 1.0), ("ptb_char", treebank, math.log(2))):
        texts = task.train_examples, task.splits["test"], len(task.vocabulary)
        scores[f"{name}.frequency"] = character_frequency(*texts) / unit
        scores[f"{name}.previous"] = character_after_character(*texts) / unit
    for direction in DIRECTIONS:
        task = Multi30k(Multi30kConfig(direction=direction), data_dir)
        scores |= {f"multi30k_{''.join(task.languages)}.{name}": score for name, score in source_as_target(task)}
    return scores


def majority(task: Digits | MNIST) -> float:
    """Returns the accuracy of the most frequent class of the training split, in percent."""
    train, test = labels(task.eval_batches("train")), labels(task.eval_batches("test"))
    return 100 * float(np.mean(test == np.bincount(train).argmax()))


def labels(batches: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Returns the labels of all examples that are not padding."""
    return np.concatenate([batch["labels"][batch["weights"] > 0] for batch in batches])


def key_frequency(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> float:
    """Returns nats per step if all keys are independent; steps 2 to T of each piece are scored."""
    on, off = (np.sum([(roll[1:] == value).sum(0) for roll in train], axis=0) for value in (1, 0))
    return _nats_per_step(test, lambda before: np.broadcast_to(_smoothed(on, off), before.shape))


def key_after_key(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> float:
    """Returns nats per step if each key depends on whether it sounded at the previous step."""

    def share(earlier: int) -> np.ndarray:
        counts = (
            np.sum([((roll[:-1] == earlier) & (roll[1:] == value)).sum(0) for roll in train], axis=0)
            for value in (1, 0)
        )
        return _smoothed(*counts)

    after_off, after_on = share(0), share(1)
    return _nats_per_step(test, lambda before: np.where(before == 1, after_on, after_off))


def _smoothed(on: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Returns frequencies with half a count added to both outcomes, so that no probability is 0."""
    return (on + 0.5) / (on + off + 1)


def _nats_per_step(pieces: Sequence[np.ndarray], predict: Callable[[np.ndarray], np.ndarray]) -> float:
    total, steps = 0.0, 0
    for roll in pieces:
        chance = predict(roll[:-1])
        total -= float(np.log(np.where(roll[1:] == 1, chance, 1 - chance)).sum())
        steps += len(roll) - 1
    return total / steps


def character_frequency(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """Returns nats per character for the training frequencies plus one count each; the first one is not scored."""
    counts = np.bincount(train, minlength=size) + 1
    return -float(np.log(counts / counts.sum())[test[1:]].mean())


def character_after_character(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """Returns nats per character for frequencies given the previous character, plus one count for each pair."""
    counts = np.ones((size, size))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    logs = np.log(counts / counts.sum(axis=1, keepdims=True))
    return -float(logs[test[:-1], test[1:]].mean())


def source_as_target(task: Multi30k) -> Iterable[tuple[str, float]]:
    """Yields BLEU and chrF of the untranslated sources of the test split."""
    sources, references = (task.lines("test", language) for language in task.languages)
    for name, metric in sacrebleu_metrics(task.config.lowercase).items():
        yield name, metric.corpus_score(list(sources), [list(references)]).score


if __name__ == "__main__":
    cli.run(main)
