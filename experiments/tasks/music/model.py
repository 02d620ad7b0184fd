"""Recurrent layers with a distribution over the set of keys of the next step."""

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
    """Extends `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      input_dropout: dropout rate of the input keys.
      chord: "independent", the keys of a step are independent given the steps before; or "ordered", each key is also
        conditioned on the lower keys of its own step.
      chord_size: U, hidden units between the lower keys and a key, for chord="ordered"; 0 for direct connections only.
    """

    input_dropout: Rate = 0.0
    chord: Literal["independent", "ordered"] = "independent"
    chord_size: Natural = 0

    def check(self):
        super().check()
        known = self.chord == "ordered" or self.chord_size == 0
        require("chord_size", known, 'the default unless chord="ordered"', self.chord_size)


class Polyphony(nnx.Module):
    """Maps steps (B, T, K) of K keys to logits (B, T, K) of the keys of each next step.

    Independent keys: p(v_t | v_<t) = prod_k p(v_t,k | v_<t), with logits = W h + b. Ordered keys: logit k also depends
    on the lower keys of its own step, v_<k, so that the product is the joint probability of the chord:
    logits = W h + b + A v + C relu(D v + E h + c). Masks keep every key from the keys that are not below it. A is
    strictly triangular; a hidden unit of degree d reads the keys below d and feeds the keys from d on.

    Reference: Boulanger-Lewandowski et al., "Modeling Temporal Dependencies in High-Dimensional Sequences", 2012 (a
    distribution over chords on a recurrent network); Germain et al., "MADE: Masked Autoencoder for Distribution
    Estimation", 2015 (the masks).
    """

    def __init__(self, config: PolyphonyConfig, keys: int, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
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
        resets: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """Predicts the next steps of piano rolls.

        Args:
          rolls: (B, T, K) float, 1 where a key sounds.
          following: (B, T, K) float, the next steps, for which logits are computed.
          h0: the initial state; None for zeros.
          lengths: (B,) int, the steps of each sequence; None for T.
          resets: (B, T) bool, where the state starts from zeros; None for nowhere.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          logits (B, T, K) of `following`, undefined past a length, and the final state.
        """
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        rolls = gru_jax.dropout(rolls, self.config.input_dropout, keys[0])
        options = {"lengths": lengths, "resets": resets, "deterministic": keys[1] is None, "rngs": keys[1]}
        ys, h_last = self.recurrent(rolls, h0, **options)
        return self.logits(gru_jax.dropout(ys, self.config.dropout, keys[2]), following), h_last

    def logits(self, ys: jax.Array, following: jax.Array) -> jax.Array:
        """Returns logits (..., K) given ys (..., H) and, for ordered keys, `following` (..., K)."""
        logits = self.readout(ys)
        if self.below is None:
            return logits
        direct, into, out_of = masks(following.shape[-1], self.config.chord_size)
        logits = logits + following @ (self.below.kernel[...] * direct)
        if self.heard is None or self.into is None or self.out_of is None:
            return logits
        units = jax.nn.relu(self.heard(ys) + following @ (self.into.kernel[...] * into))
        return logits + units @ (self.out_of.kernel[...] * out_of)

    def sample_step(self, roll: jax.Array, h: Any, temperature: float, key: jax.Array) -> tuple[jax.Array, Any]:
        """Runs one step and samples the next one, from the lowest key up.

        Args:
          roll: (B, K) float, the current step.
          h: the state.
          temperature: divides the logits; 0 selects every key with a probability above one half.
          key: PRNG key, consumed.

        Returns:
          the next step (B, K), 1 where a key sounds, and the new state.
        """
        ys, h = self.recurrent(roll[:, None], h)
        noise = temperature * jax.random.logistic(key, roll.shape)

        def sample_key(k: jax.Array, following: jax.Array) -> jax.Array:
            sounds = self.logits(ys[:, 0], following)[:, k] + noise[:, k] > 0
            return following.at[:, k].set(sounds.astype(following.dtype))

        return jax.lax.fori_loop(0, roll.shape[-1], sample_key, jnp.zeros_like(roll)), h

    def initial_state(self, rows: int) -> Any:
        """Returns the zero state of all layers for `rows` sequences."""
        return self.recurrent.initial_state((rows,))


def masks(keys: int, units: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the bool masks of the connections key to key (K, K), key to unit (K, U) and unit to key (U, K)."""
    key, degree = np.arange(keys), 1 + np.arange(units) % (keys - 1)
    below = key[:, None] < key[None, :]
    return below, key[:, None] < degree[None, :], degree[:, None] <= key[None, :]
