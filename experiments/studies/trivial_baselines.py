"""The score of a trivial answer on the test split of each task.

python -m experiments.studies.trivial_baselines

Everything is counted on the training split and scored on the test split, in the units of the task's own metric:

- digits and MNIST: the most frequent class is always the answer;
- music: each key sounds as often as in training, or as often as after a step in which it was on, or off;
- text: each character is as frequent as in training, or as it is after the character before it;
- translation: the source is the translation.

Forecasts have `experiments.studies.forecast_baselines`; other tasks have baselines by definition. The results go
to experiments/results/studies/trivial_baselines.json; experiments/results/published.toml names them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from experiments.reporting.tables import table
from experiments.runner import cli
from experiments.studies import results
from experiments.tasks.images.digits import Digits, DigitsConfig
from experiments.tasks.images.mnist import MNIST, MNISTConfig
from experiments.tasks.music.task import Music, MusicConfig
from experiments.tasks.text.char_lm import CharLM, CharLMConfig
from experiments.tasks.text.ptb_char import PTBChar, PTBCharConfig
from experiments.tasks.translation.multi30k import Multi30k, Multi30kConfig, sacrebleu_metrics

results.define_flags()
DATA_DIR = cli.define_data_dir()

COLLECTIONS = ("jsb", "nottingham", "musedata", "piano_midi")
DIRECTIONS = ("de-en", "en-de", "en-fr")


def main(arguments: Sequence[str]) -> None:
    """Scores every baseline, or reads what was recorded; writes trivial_baselines.json; prints the scores."""
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
        texts = task.trained_on, task.splits["test"], len(task.vocabulary)
        scores[f"{name}.frequency"] = character_frequency(*texts) / unit
        scores[f"{name}.previous"] = character_after_character(*texts) / unit
    for direction in DIRECTIONS:
        task = Multi30k(Multi30kConfig(direction=direction), data_dir)
        scores |= {f"multi30k_{''.join(task.languages)}.{name}": score for name, score in source_as_target(task)}
    return scores


def majority(task: Digits | MNIST) -> float:
    """Returns the accuracy in percent of always answering the most frequent class of the training split."""
    train, test = labels(task.eval_batches("train")), labels(task.eval_batches("test"))
    return 100 * float(np.mean(test == np.bincount(train).argmax()))


def labels(batches: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Returns the labels of the examples that are not padding."""
    return np.concatenate([batch["labels"][batch["weights"] > 0] for batch in batches])


def key_frequency(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> float:
    """Returns the nats a step of keys that are independent of everything; steps 2 to T of a piece are scored."""
    on, off = (np.sum([(roll[1:] == value).sum(0) for roll in train], axis=0) for value in (1, 0))
    return _nats_a_step(test, lambda before: np.broadcast_to(_smoothed(on, off), before.shape))


def key_after_key(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> float:
    """Returns the nats a step of keys each of which depends on whether it sounded at the step before."""

    def share(earlier: int) -> np.ndarray:
        counts = (
            np.sum([((roll[:-1] == earlier) & (roll[1:] == value)).sum(0) for roll in train], axis=0)
            for value in (1, 0)
        )
        return _smoothed(*counts)

    after_off, after_on = share(0), share(1)
    return _nats_a_step(test, lambda before: np.where(before == 1, after_on, after_off))


def _smoothed(on: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Half a count is added to each, so that no key is impossible."""
    return (on + 0.5) / (on + off + 1)


def _nats_a_step(pieces: Sequence[np.ndarray], predict: Callable[[np.ndarray], np.ndarray]) -> float:
    total, steps = 0.0, 0
    for roll in pieces:
        chance = predict(roll[:-1])
        total -= float(np.log(np.where(roll[1:] == 1, chance, 1 - chance)).sum())
        steps += len(roll) - 1
    return total / steps


def character_frequency(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """Returns the nats a character, from the second on, of the training text's frequencies, one added to each count."""
    counts = np.bincount(train, minlength=size) + 1
    return -float(np.log(counts / counts.sum())[test[1:]].mean())


def character_after_character(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """Returns the nats a character, given the one before it; one is added to the count of each pair."""
    counts = np.ones((size, size))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    logs = np.log(counts / counts.sum(axis=1, keepdims=True))
    return -float(logs[test[:-1], test[1:]].mean())


def source_as_target(task: Multi30k) -> Iterable[tuple[str, float]]:
    """Yields BLEU and chrF of the test split's sources as they are."""
    sources, references = (task.lines("test", language) for language in task.languages)
    for name, metric in sacrebleu_metrics(task.config.lowercase).items():
        yield name, metric.corpus_score(list(sources), [list(references)]).score


if __name__ == "__main__":
    cli.run(main)
