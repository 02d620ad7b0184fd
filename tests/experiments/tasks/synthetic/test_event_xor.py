"""Event lists of the event XOR task."""

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.synthetic import event_xor
from experiments.tasks.synthetic.event_xor import LONGEST, EventClassifier, EventXorModelConfig


def events_of(bits):
    """Encodes one stream in a loop: [(bit, elapsed steps), ...]."""
    events, elapsed = [], 0
    for i, bit in enumerate(bits):
        elapsed += 1
        if i == 0 or bit != bits[i - 1]:
            events.append((bit, elapsed))
            elapsed = 0
    return events + ([(bits[-1], elapsed)] if elapsed else [])


def test_events_are_the_changes_and_the_last_bit():
    rng = np.random.default_rng(0)
    bits, sizes = rng.integers(0, 2, (300, LONGEST)), rng.integers(2, LONGEST, 300)
    bits[0], bits[1], bits[2] = 0, 1, np.arange(LONGEST) % 2
    found = event_xor.encode(bits, sizes)
    for n in range(300):
        expected = events_of(list(bits[n, : sizes[n]]))
        length = found["lengths"][n]
        shown = zip(found["events"][n, :length], found["elapsed"][n, :length], strict=True)
        assert [((bit + 1) / 2, time) for bit, time in shown] == expected
        assert not found["events"][n, length:].any()
        assert not found["elapsed"][n, length:].any()
        assert found["labels"][n] == bits[n, : sizes[n]].sum() % 2


def test_elapsed_times_sum_to_the_size_of_the_stream_and_labels_are_balanced():
    found = event_xor.draw(np.random.default_rng(1), 20_000)
    sizes = found["elapsed"].sum(axis=1)
    assert (sizes.min(), sizes.max()) == (2, LONGEST - 1)
    assert abs(found["labels"].mean() - 0.5) < 0.015


def test_splits_do_not_share_their_streams():
    task = event_xor.EventXor(event_xor.EventXorConfig(train_count=500, eval_count=500), None)
    rows = {split: task.splits[split]["elapsed"][:100] for split in ("train", "validation", "test")}
    assert not np.array_equal(rows["train"], rows["validation"])
    assert not np.array_equal(rows["validation"], rows["test"])


@pytest.mark.parametrize("elapsed", ["input", "decay", "gru_d"])
def test_padding_does_not_change_logits(elapsed):
    model = EventClassifier(EventXorModelConfig(hidden_size=8, elapsed=elapsed), nnx.Rngs(0))
    batch = event_xor.draw(np.random.default_rng(2), 5)
    given = [jax.numpy.asarray(batch[name]) for name in ("events", "elapsed", "lengths")]
    past = np.arange(LONGEST)[None] >= batch["lengths"][:, None]
    other = [np.where(past, 7.0, array).astype(np.float32) for array in (batch["events"], batch["elapsed"])]
    np.testing.assert_array_equal(model(*given), model(*other, given[2]))


@pytest.mark.parametrize("elapsed", ["input", "decay", "gru_d"])
def test_elapsed_times_change_logits(elapsed):
    model = EventClassifier(EventXorModelConfig(hidden_size=8, elapsed=elapsed), nnx.Rngs(0))
    batch = event_xor.draw(np.random.default_rng(3), 5)
    given = [jax.numpy.asarray(batch[name]) for name in ("events", "elapsed", "lengths")]
    assert np.abs(model(*given) - model(given[0], 2 * given[1], given[2])).min() > 1e-6


@pytest.mark.parametrize("options", [{"weight_dropout": 0.1}, {"zoneout": 0.1}, {"matmul_dtype": "bfloat16"}])
def test_gru_d_refuses_keys_that_it_does_not_use(options):
    with pytest.raises(UserError, match=r'^elapsed: expected "input" or "decay", or no other key than'):
        EventXorModelConfig(elapsed="gru_d", **options)
