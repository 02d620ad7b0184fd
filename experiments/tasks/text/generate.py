"""Text generation: sampling of a character language model, one symbol at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.text.corpus import Vocabulary
from experiments.tasks.text.model import LanguageModel


def generate(
    model: LanguageModel, vocabulary: Vocabulary, prompt: str, length: int, temperature: float, key: jax.Array
) -> Iterator[str]:
    """Yields the characters of the prompt, then `length` sampled ones, each fed back to the model.

    Args:
      model: a trained model.
      vocabulary: its characters.
      prompt: at least one character of the vocabulary.
      length: the number of characters to sample.
      temperature: divides the logits; 0 selects the most likely character.
      key: PRNG key, consumed.

    Raises:
      UserError: the prompt is empty or has other characters.
    """
    if not prompt:
        raise UserError("--prompt: expected at least one character, got none")
    try:
        codes = vocabulary.encode(prompt)
    except ValueError as error:
        raise UserError(f"--prompt: {str(error).removeprefix('text: ')}") from None
    step, state = make_step(model, temperature), model.initial_state(1)
    code = jnp.asarray(codes[:1])
    for t in range(len(codes) - 1 + length):
        yield vocabulary.symbols[int(code[0])]
        code, state = step(code, state, jax.random.fold_in(key, t))
        if t + 1 < len(codes):
            code = jnp.asarray(codes[t + 1 : t + 2])
    yield vocabulary.symbols[int(code[0])]


def make_step(model: LanguageModel, temperature: float) -> Callable[..., tuple[jax.Array, Any]]:
    """Returns a compiled function `(code (B,), state, key) -> (sampled code (B,), new state)`."""
    graphdef, params = nnx.split(model)

    def step(params: Any, code: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        logits, state = nnx.merge(graphdef, params).step(code, state)
        noise = temperature * jax.random.gumbel(key, logits.shape, logits.dtype)
        return jnp.argmax(logits + noise, axis=-1), state

    compiled = jax.jit(step)
    return lambda code, state, key: compiled(params, code, state, key)


def default_prompt(vocabulary: Vocabulary, seed: int) -> str:
    """Returns a line feed or a space if the vocabulary has one, else the character that the seed selects."""
    for character in "\n ":
        if character in vocabulary.symbols:
            return character
    return vocabulary.symbols[seed % len(vocabulary)]
