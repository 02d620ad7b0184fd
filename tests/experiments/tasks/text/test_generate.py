"""Samples of a language model against its probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.text.corpus import Vocabulary
from experiments.tasks.text.generate import default_prompt, generate, make_step
from experiments.tasks.text.model import LanguageModel, LanguageModelConfig

ROWS = 20_000


@pytest.fixture(scope="module")
def model():
    model = LanguageModel(LanguageModelConfig(hidden_size=8, embedding_size=4), 5, nnx.Rngs(0))
    return nnx.merge(nnx.graphdef(model), jax.tree.map(lambda leaf: 3 * leaf, nnx.state(model)))


def drawn(model, temperature):
    codes = jnp.full(ROWS, 2)
    return np.asarray(make_step(model, temperature)(codes, model.initial_state(ROWS), jax.random.key(0))[0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_symbols_are_sampled_with_their_probabilities(model, temperature):
    logits = np.asarray(model.step(jnp.full(1, 2), model.initial_state(1))[0][0], np.float64)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    frequencies = np.bincount(drawn(model, temperature), minlength=5) / ROWS
    assert np.all(np.abs(frequencies - expected) < 5 * np.sqrt(expected * (1 - expected) / ROWS))
    assert expected.max() > 1.5 * expected.min()


@pytest.mark.parametrize("temperature", [0.0, 1e-40])
def test_temperature_zero_selects_the_most_likely_symbol(model, temperature):
    logits = model.step(jnp.full(1, 2), model.initial_state(1))[0][0]
    assert set(drawn(model, temperature)) == {int(jnp.argmax(logits))}


@pytest.mark.parametrize(
    ("symbols", "seed", "prompt"),
    [("\n ab", 3, "\n"), (" abc", 3, " "), ("abc", 0, "a"), ("abc", 4, "b")],
)
def test_default_prompt_is_in_the_vocabulary(symbols, seed, prompt):
    assert default_prompt(Vocabulary(symbols), seed) == prompt


def test_prompts_are_continued_and_unknown_characters_raise(model):
    vocabulary = Vocabulary("abc é")
    text = "".join(generate(model, vocabulary, "caé", 20, 1.0, jax.random.key(0)))
    assert text.startswith("caé")
    assert len(text) == 23
    for stranger in ("x", "\udcff"):
        with pytest.raises(UserError, match=r"--prompt: .* got '(x|\\udcff)' in line 1, column 2"):
            next(generate(model, vocabulary, f"a{stranger}", 1, 1.0, jax.random.key(0)))
