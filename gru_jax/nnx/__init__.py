"""Flax NNX modules: layers around `gru_jax.unroll`, and cells for `flax.nnx.RNN`.

Example: a classifier of sequences of different lengths, with dropout, and with weight decay of the matrices only.
  >>> class Classifier(nnx.Module):
  ...     def __init__(self, rngs: nnx.Rngs):
  ...         self.layers = GRU(8, 32, num_layers=2, dropout=0.2, rngs=rngs)
  ...         self.readout = nnx.Linear(32, 2, rngs=rngs)
  ...
  ...     def __call__(self, xs, lengths):
  ...         ys, state = self.layers(xs, lengths=lengths)
  ...         ((_,), (h,)) = state  # Of the second layer, after the last step of each sequence.
  ...         return self.readout(h)
  >>> @nnx.jit
  ... def train_step(model, optimizer, xs, lengths, labels):
  ...     def loss_fn(model):
  ...         logits = model(xs, lengths)
  ...         return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  ...
  ...     loss, grads = nnx.value_and_grad(loss_fn)(model)
  ...     optimizer.update(model, grads)
  ...     return loss
  >>> def is_matrix(path, _):
  ...     return path[-1] in ("W", "U", "kernel")  # Not b, b_hn, bias.
  >>> model = Classifier(nnx.Rngs(0))
  >>> tx = optax.adamw(3e-3, weight_decay=0.01, mask=lambda params: nnx.map_state(is_matrix, params))
  >>> optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
  >>> xs = jax.random.normal(jax.random.key(1), (64, 20, 8))
  >>> lengths = jax.random.randint(jax.random.key(2), (64,), 5, 21)
  >>> labels = (xs[:, 0, 0] > 0).astype(int)  # Whether a sequence begins with a positive number.
  >>> losses = [train_step(model, optimizer, xs, lengths, labels) for _ in range(100)]
  >>> model.eval()  # Turns dropout off; model.train() turns it on.
  >>> accuracy = (model(xs, lengths).argmax(-1) == labels).mean()
  >>> print(f"accuracy {accuracy:.0%}")
  accuracy 100%
"""

from typing import TYPE_CHECKING, Any

from gru_jax.cells import CELLS
from gru_jax.nnx._cells import ElmanCell, GRUCell, LSTMCell, RecurrentCell
from gru_jax.nnx._grud import GRUD, GRUDState
from gru_jax.nnx._layers import GRU, LSTM, Elman, Recurrent
from gru_jax.nnx._specialize import specialize

__all__ = [
    "GRU",
    "GRUD",
    "LSTM",
    "Elman",
    "ElmanCell",
    "GRUCell",
    "GRUDState",
    "LSTMCell",
    "Recurrent",
    "RecurrentCell",
]

for _kind in CELLS.values():
    if _kind.__name__ not in __all__:
        for _module in (specialize(Recurrent, _kind), specialize(RecurrentCell, _kind)):
            globals()[_module.__name__] = _module
            __all__ += [_module.__name__]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
