"""Recurrent layers and a distribution over the sets of keys that may sound next."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gru_jax
from experiments.schema import Natural, Rate, require
from experiments.tasks.recurrent import RecurrentConfig, recurrent


@dataclasses.dataclass(frozen=True)
class PolyphonyConfig(RecurrentConfig):
    """As `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      input_dropout: the rate at which keys are dropped from what is read in training.
      chord: how the keys of one step hang together: "independent" of each other, given the steps before; or "ordered",
        each given those below it as well, so that the model knows which keys are struck together.
      chord_size: units between the keys below and a key, for chord="ordered"; 0 for direct connections alone.
    """

    input_dropout: Rate = 0.0
    chord: Literal["independent", "ordered"] = "independent"
    chord_size: Natural = 0

    def check(self):
        super().check()
        known = self.chord == "ordered" or self.chord_size == 0
        require("chord_size", known, 'the default unless chord="ordered"', self.chord_size)


class Polyphony(nnx.Module):
    """Steps (B, T, K) of K keys -> logits (B, T, K) of each next step's keys.

    Independent keys: p(v_t | v_<t) = prod_k sigmoid(logits_k), logits = W h + b. Ordered keys: logits_k also depends on
    the keys below it at its own step, v_<k, so that the product is the probability of the set, whatever its keys have
    to do with each other: logits = W h + b + A v + C relu(D v + E h + c). Masks keep a key from what is not below it: A
    has no entry on its diagonal or above, and a unit of degree d reads the keys below d and serves those from d on.

    Reference: Boulanger-Lewandowski et al., "Modeling Temporal Dependencies in High-Dimensional Sequences", 2012 (a
    distribution over chords on top of a recurrent network); Germain et al., "MADE: Masked Autoencoder for Distribution
    Estimation", 2015 (the masks).
    """

    def __init__(self, config: PolyphonyConfig, keys: int, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`."""
        self.config = config
        self.recurrent = recurrent(config, keys, rngs)
        self.readout = nnx.Linear(config.hidden_size, keys, rngs=rngs)
        ordered, units = config.chord == "ordered", config.chord_size
        self.below = nnx.Linear(keys, keys, use_bias=False, rngs=rngs) if ordered else None
        self.heard = nnx.Linear(config.hidden_size, units, rngs=rngs) if units else None
        self.into = nnx.Linear(keys, units, use_bias=False, rngs=rngs) if units else None
        self.out_of = nnx.Linear(units, keys, use_bias=False, rngs=rngs) if units else None

    def __call__(
        self,
        rolls: jax.Array,
        following: jax.Array,
        h0: Any = None,
        *,
        lengths: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """Reads music, and says what comes next.

        Args:
          rolls: (B, T, K), 1 where a key sounds.
          following: (B, T, K), each step's successor, whose probability is asked for.
          h0: the state before; None for zeros.
          lengths: (B,), steps of each sequence; None for T.
          key: for dropout, consumed; None for none.

        Returns:
          logits (B, T, K) of `following`, of which steps past a length mean nothing, and the state after.
        """
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        rolls = gru_jax.dropout(rolls, self.config.input_dropout, keys[0])
        ys, h_last = self.recurrent(rolls, h0, lengths=lengths, deterministic=keys[1] is None, rngs=keys[1])
        return self.logits(gru_jax.dropout(ys, self.config.dropout, keys[2]), following), h_last

    def logits(self, ys: jax.Array, following: jax.Array) -> jax.Array:
        """Returns each key's logit (..., K), given ys (..., H) and, where ordered, the keys below it in `following`."""
        logits = self.readout(ys)
        if self.below is None:
            return logits
        direct, into, out_of = masks(following.shape[-1], self.config.chord_size)
        logits = logits + following @ (self.below.kernel[...] * direct)
        if self.heard is None or self.into is None or self.out_of is None:
            return logits
        units = jax.nn.relu(self.heard(ys) + following @ (self.into.kernel[...] * into))
        return logits + units @ (self.out_of.kernel[...] * out_of)

    def draw(self, roll: jax.Array, h: Any, temperature: float, key: jax.Array) -> tuple[jax.Array, Any]:
        """Reads one step and draws the next, from the lowest key up.

        Args:
          roll: (B, K), the step's keys.
          h: the state before.
          temperature: divides the logits; 0 takes every key that is likelier to sound than not.
          key: consumed.

        Returns:
          (B, K), 1 where a key sounds, and the state after.
        """
        ys, h = self.recurrent(roll[:, None], h)
        noise = temperature * jax.random.logistic(key, roll.shape)

        def decide(place: jax.Array, drawn: jax.Array) -> jax.Array:
            sounds = self.logits(ys[:, 0], drawn)[:, place] + noise[:, place] > 0
            return drawn.at[:, place].set(sounds.astype(drawn.dtype))

        return jax.lax.fori_loop(0, roll.shape[-1], decide, jnp.zeros_like(roll)), h

    def initial_state(self, rows: int) -> Any:
        """Returns the zero state of all layers for `rows` sequences."""
        return self.recurrent.initial_state((rows,))


def masks(keys: int, units: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns which connections there are: key to key (K, K), key to unit (K, U) and unit to key (U, K)."""
    key, degree = np.arange(keys), 1 + np.arange(units) % (keys - 1)
    below = key[:, None] < key[None, :]
    return below, key[:, None] < degree[None, :], degree[:, None] <= key[None, :]
