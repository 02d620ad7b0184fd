"""The encoder-decoder: masking, causality, single steps against teacher forcing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.translation.model import EncoderDecoder, EncoderDecoderConfig

B, S, T, V = 3, 5, 4, 11
KINDS = [("gru", "additive", 1), ("lstm", "additive", 2), ("gru", "none", 1)]


def make(**options):
    sizes = {"hidden_size": 6, "embedding_size": 4}
    return EncoderDecoder(EncoderDecoderConfig(**sizes | options), V, V + 1, nnx.Rngs(0))


def draw():
    rng = np.random.default_rng(0)
    return rng.integers(0, V, (B, S)), np.array([5, 2, 1]), rng.integers(0, V + 1, (B, T))


@pytest.mark.parametrize(("cell", "attention", "num_layers"), KINDS)
def test_padding_changes_no_logits_and_the_decoder_is_causal(cell, attention, num_layers):
    model, (source, lengths, inputs) = make(cell=cell, attention=attention, num_layers=num_layers), draw()
    call = jax.jit(model)
    logits = call(source, lengths, inputs)
    assert logits.shape == (B, T, V + 1)
    padded = np.where(np.arange(S) < lengths[:, None], source, (source + 1) % V)
    np.testing.assert_array_equal(call(padded, lengths, inputs), logits)
    other = (source + (np.arange(S) == 0)) % V
    assert (call(other, lengths, inputs) != logits).any(axis=(1, 2)).all()
    later = inputs.copy()
    later[:, -1] = (later[:, -1] + 1) % V
    np.testing.assert_array_equal(call(source, lengths, later)[:, :-1], logits[:, :-1])
    assert (call(source, lengths, later)[:, -1] != logits[:, -1]).any()
    alone = call(source[1:2, :2], lengths[1:2], inputs[1:2])
    np.testing.assert_allclose(alone[0], logits[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("cell", "attention", "num_layers"), KINDS)
def test_teacher_forcing_equals_single_steps(cell, attention, num_layers):
    model, (source, lengths, inputs) = make(cell=cell, attention=attention, num_layers=num_layers), draw()
    targets = np.roll(inputs, -1, axis=1)

    @jax.jit
    def stepped():
        read, state = model.encode(source, lengths)
        total = jnp.zeros(B)
        for t in range(T):
            logits, state = model.step(read, inputs[:, t], state)
            total += jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, t, None], axis=-1)[:, 0]
        return total

    logits = jax.nn.log_softmax(jax.jit(model)(source, lengths, inputs))
    forced = np.take_along_axis(np.asarray(logits), targets[..., None], axis=-1).sum((1, 2))
    np.testing.assert_allclose(stepped(), forced, rtol=1e-5)


def test_alignment_is_a_distribution_over_the_source():
    model, (source, lengths, inputs) = make(), draw()
    weights = jax.jit(model.alignment)(source, lengths, inputs)
    assert weights.shape == (B, T, S)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert not np.asarray(weights)[1, :, 2:].any()
    with pytest.raises(ValueError, match=r'config\.attention: expected "additive", got "none"'):
        make(attention="none").alignment(source, lengths, inputs)


def test_tied_weights_share_one_array():
    def count(**options):
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(make(**options))))

    assert count(tied=False) - count() == (V + 1) * 4


def test_attention_size_without_attention_raises():
    with pytest.raises(UserError, match='attention_size: expected the default for attention="none", got 7'):
        EncoderDecoderConfig(attention="none", attention_size=7)
