"""The Linear Recurrent Unit (LRU): a diagonal complex recurrence, and its gradient, derived by hand.

Reference: Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", 2023.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.tree_util import register_static

from gru_jax import _arguments as arguments
from gru_jax._types import Array, DType
from gru_jax.cells.base import Product, check_init, check_shapes, zeros
from gru_jax.cells.gates import matmul, matmul_input_gradient, matmul_weight_gradient


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LRUParams")
class LRUParams(NamedTuple):
    """The parameters of an LRU.

    Attributes:
      nu_log: (H,), log of the rate of decay: |lambda| = exp(-exp(nu_log)).
      theta_log: (H,), log of the angle of lambda.
      B_re: (I, H), input weights, real part.
      B_im: (I, H), input weights, imaginary part.
      C_re: (H, H), output weights, real part.
      C_im: (H, H), output weights, imaginary part.
      D: (I, H), weights from the input to the output.
      gamma_log: (H,), log of the scale of the inputs.
    """

    nu_log: Any
    theta_log: Any
    B_re: Any
    B_im: Any
    C_re: Any
    C_im: Any
    D: Any
    gamma_log: Any


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LRUState")
class LRUState(NamedTuple):
    """The complex state of an LRU as two real arrays.

    Attributes:
      re: (..., H), the real part.
      im: (..., H), the imaginary part.
    """

    re: Any
    im: Any


@register_static
@dataclass(frozen=True)
class LRU:
    """A Linear Recurrent Unit. With input x and complex state h, a step is

        h' = lambda * h + exp(gamma_log) * (B x)        lambda = exp(-exp(nu_log) + i exp(theta_log))
        y  = Re(C h') + D x

    The output y is not fed back. `unroll` computes it for all steps at once, after the states. As h' is linear in h,
    `unroll` with `backend="associative"` computes all states in parallel. Where a mask is false, y is Re(C h).

    The paper's D is diagonal. Here it is a matrix, since I and H may differ. In 16 bits the rounded lambda has another
    memory: use matmul_dtype for speed, and float32 parameters.

    Args:
      r_min: the smallest |lambda| that `init` draws.
      r_max: the largest |lambda| that `init` draws. The ring from r_min to r_max is filled evenly.
      max_phase: the largest angle of lambda that `init` draws.

    Example:
      >>> cell = LRU(r_min=0.9, r_max=0.999)
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> cell.initial_state(128, (32,)).re.shape
      (32, 128)

    Reference: Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", 2023.
    """

    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 6.28

    linear: ClassVar[bool] = True

    def __post_init__(self):
        for name in ("r_min", "r_max", "max_phase"):
            arguments.finite_number(f"LRU: {name}", getattr(self, name))
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(f"LRU: r_min, r_max: expected 0 <= r_min < r_max <= 1, got {self.r_min}, {self.r_max}")
        if self.max_phase <= 0:
            raise ValueError(f"LRU: max_phase: expected a positive number, got {self.max_phase}")

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> LRUParams:
        """Initializes the parameters as in the paper: B, C and D are normal, lambda is uniform on a ring.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          LRUParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        wide = jnp.promote_types(dtype, jnp.float32)
        keys = jax.random.split(key, 7)
        tiny = float(jnp.finfo(wide).tiny)
        squared = jax.random.uniform(keys[0], (hidden_size,), wide, max(self.r_min**2, tiny), self.r_max**2)
        angle = jax.random.uniform(keys[1], (hidden_size,), wide, tiny, self.max_phase)

        def normal(key: Array, rows: int, variance: float) -> Array:
            return (jax.random.normal(key, (rows, hidden_size), wide) * math.sqrt(variance)).astype(dtype)

        return LRUParams(
            nu_log=jnp.log(-0.5 * jnp.log(squared)).astype(dtype),
            theta_log=jnp.log(angle).astype(dtype),
            B_re=normal(keys[2], input_size, 0.5 / input_size),
            B_im=normal(keys[3], input_size, 0.5 / input_size),
            C_re=normal(keys[4], hidden_size, 1 / hidden_size),
            C_im=normal(keys[5], hidden_size, 1 / hidden_size),
            D=normal(keys[6], input_size, 1 / input_size),
            gamma_log=(0.5 * jnp.log1p(-squared)).astype(dtype),
        )

    def infer_sizes(self, params: LRUParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        H, inputs, outputs = ("H",), ("I", "H"), ("H", "H")
        shapes = LRUParams(H, H, inputs, inputs, outputs, outputs, inputs, H)
        return check_shapes(params, LRUParams, shapes._asdict())

    def initial_state(
        self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32
    ) -> LRUState:
        """Returns zeros (*batch_shape, H) for both parts."""
        return LRUState(zeros(batch_shape, hidden_size, dtype), zeros(batch_shape, hidden_size, dtype))

    def project(self, params: LRUParams, xs: Array, matmul_dtype: DType | None = None) -> LRUState:
        """Returns the real and the imaginary part of `B x`: (..., I) -> two arrays (..., H)."""
        return LRUState(matmul(xs, params.B_re, matmul_dtype), matmul(xs, params.B_im, matmul_dtype))

    def step(
        self, params: LRUParams, state: LRUState, gate_inputs: LRUState, matmul_dtype: DType | None = None
    ) -> LRUState:
        """Returns the state after a step, arrays (..., H), given the state before it and the gate inputs."""
        new = _scale(jnp.exp(params.gamma_log), gate_inputs)
        return jax.tree.map(jnp.add, _times(_eigenvalues(params), state), new)

    def output(self, state: LRUState) -> LRUState:
        """Returns the state, arrays (..., H), which `readout` maps to the output."""
        return state

    def readout(self, params: LRUParams, states: LRUState, xs: Array, matmul_dtype: DType | None = None) -> Array:
        """Returns `Re(C h) + D x` (..., H) for the states after steps, arrays (..., H), and their inputs (..., I)."""
        real, imaginary = matmul(states.re, params.C_re, matmul_dtype), matmul(states.im, params.C_im, matmul_dtype)
        return real - imaginary + matmul(xs, params.D, matmul_dtype)

    # The gradient. Let g be the cotangent of h' as a complex number, real part with respect to the real part and
    # imaginary with respect to the imaginary, and u = B x. The cotangent of h is conj(lambda) g, of u it is
    # exp(gamma_log) g, and of lambda the sum of conj(h) g. The derivatives of lambda are -exp(nu_log) lambda and
    # i exp(theta_log) lambda.

    def recurrent_matrices(self, params: LRUParams) -> tuple[()]:
        """Returns an empty tuple: no matrix multiplies the state."""
        return ()

    def step_with_residuals(
        self, params: LRUParams, products: tuple[Product, ...], state: LRUState, gate_inputs: LRUState
    ) -> tuple[LRUState, None]:
        """Returns the state after a step, arrays (..., H), and None: there are no products."""
        return self.step(params, state, gate_inputs), None

    def linearize(
        self, params: LRUParams, before: LRUState, after: LRUState, gate_inputs: LRUState, residuals: None
    ) -> LRUState:
        """Returns the gate inputs: the other factors do not depend on the step."""
        return gate_inputs

    def pullback(
        self,
        params: LRUParams,
        transposed_products: tuple[Product, ...],
        coefficients: LRUState,
        cotangent: LRUState,
    ) -> tuple[LRUState, LRUState]:
        """Returns the cotangents of h and of h', arrays (..., H)."""
        re, im = _eigenvalues(params)
        return _times((re, -im), cotangent), cotangent

    def gradients(
        self,
        params: LRUParams,
        xs: Array,
        before: LRUState,
        coefficients: LRUState,
        step_cotangents: LRUState,
        matmul_dtype: DType | None = None,
    ) -> tuple[LRUParams, Array]:
        """Returns the gradients of the parameters, None for those of `readout`, and of the inputs (..., I)."""
        g, h, u = step_cotangents, before, coefficients
        rows = tuple(range(xs.ndim - 1))
        re, im = _eigenvalues(params)
        g_re, g_im = (h.re * g.re + h.im * g.im).sum(rows), (h.re * g.im - h.im * g.re).sum(rows)
        gamma = jnp.exp(params.gamma_log)
        g_u = _scale(gamma, g)
        gradient = LRUParams(
            nu_log=-jnp.exp(params.nu_log) * (re * g_re + im * g_im),
            theta_log=jnp.exp(params.theta_log) * (re * g_im - im * g_re),
            B_re=matmul_weight_gradient(xs, g_u.re, matmul_dtype),
            B_im=matmul_weight_gradient(xs, g_u.im, matmul_dtype),
            C_re=None,
            C_im=None,
            D=None,
            gamma_log=gamma * (g.re * u.re + g.im * u.im).sum(rows),
        )
        g_xs = matmul_input_gradient(g_u.re, params.B_re, matmul_dtype)
        return gradient, g_xs + matmul_input_gradient(g_u.im, params.B_im, matmul_dtype)

    def readout_gradients(
        self, params: LRUParams, states: LRUState, xs: Array, cotangent: Array, matmul_dtype: DType | None = None
    ) -> tuple[LRUParams, LRUState, Array]:
        """Returns the gradients of C and D, None for the other parameters, of the states and of the inputs (..., I)."""
        g = cotangent
        gradient = LRUParams(
            nu_log=None,
            theta_log=None,
            B_re=None,
            B_im=None,
            C_re=matmul_weight_gradient(states.re, g, matmul_dtype),
            C_im=-matmul_weight_gradient(states.im, g, matmul_dtype),
            D=matmul_weight_gradient(xs, g, matmul_dtype),
            gamma_log=None,
        )
        g_re, g_im = (matmul_input_gradient(g, C, matmul_dtype) for C in (params.C_re, params.C_im))
        return gradient, LRUState(g_re, -g_im), matmul_input_gradient(g, params.D, matmul_dtype)


def _eigenvalues(params: LRUParams) -> tuple[Array, Array]:
    """Returns the real and the imaginary part of lambda, (H,)."""
    radius, angle = jnp.exp(-jnp.exp(params.nu_log)), jnp.exp(params.theta_log)
    return radius * jnp.cos(angle), radius * jnp.sin(angle)


def _times(factor: tuple[Array, Array], state: LRUState) -> LRUState:
    """Returns the product of a complex factor (H,) and a complex state (..., H)."""
    re, im = (jnp.broadcast_to(part, state.re.shape) for part in factor)
    return LRUState(re * state.re - im * state.im, re * state.im + im * state.re)


def _scale(factor: Array, state: LRUState) -> LRUState:
    return LRUState(*(jnp.broadcast_to(factor, part.shape) * part for part in state))
