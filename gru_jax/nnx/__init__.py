"""Flax NNX modules: layers that own the parameters of `gru_jax.unroll`, and cells for `flax.nnx.RNN`.

Example, a classifier of sequences of several lengths, with dropout, and weight decay of matrices alone:
  >>> class Classifier(nnx.Module):
  ...     def __init__(self, rngs: nnx.Rngs):
  ...         self.layers = GRU(8, 32, num_layers=2, dropout=0.2, rngs=rngs)
  ...         self.readout = nnx.Linear(32, 2, rngs=rngs)
  ...
  ...     def __call__(self, xs, lengths):
  ...         ys, state = self.layers(xs, lengths=lengths)
  ...         ((_,), (h,)) = state  # of the second layer, at each sequence's last step
  ...         return self.readout(h)
  >>> def is_matrix(path, _):
  ...     return path[-1] in ("W", "U", "kernel")  # not b, b_hn, bias
  >>> @nnx.jit
  ... def train_step(model, optimizer, xs, lengths, labels):
  ...     def loss(model):
  ...         logits = model(xs, lengths)
  ...         return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  ...
  ...     value, gradient = nnx.value_and_grad(loss)(model)
  ...     optimizer.update(model, gradient)
  ...     return value
  >>> model = Classifier(nnx.Rngs(0))  # its dropout draws from these Rngs
  >>> decayed = lambda params: nnx.map_state(is_matrix, params)
  >>> optimizer = nnx.Optimizer(model, optax.adamw(3e-3, weight_decay=0.01, mask=decayed), wrt=nnx.Param)
  >>> xs = jax.random.normal(jax.random.key(1), (64, 20, 8))
  >>> lengths = jax.random.randint(jax.random.key(2), (64,), 5, 21)
  >>> labels = (xs[:, 0, 0] > 0).astype(int)  # whether a sequence begins with a positive number
  >>> losses = [train_step(model, optimizer, xs, lengths, labels) for _ in range(100)]
  >>> model.eval()  # drops nothing from here on; model.train() does again
  >>> accuracy = (model(xs, lengths).argmax(-1) == labels).mean()
  >>> print(f"accuracy {accuracy:.0%}")
  accuracy 100%
"""

from gru_jax.nnx.cells import ElmanCell, GRUCell, LSTMCell, RecurrentCell
from gru_jax.nnx.layers import GRU, LSTM, Elman, Recurrent

__all__ = ["GRU", "LSTM", "Elman", "ElmanCell", "GRUCell", "LSTMCell", "Recurrent", "RecurrentCell"]
