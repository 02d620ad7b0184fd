"""Matrix products of rounded operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.precision import product


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients(dtype, tolerance, transposed):
    rng = np.random.default_rng(0)
    x, w, g = (rng.normal(size=shape) for shape in ((3, 4, 6), (6, 5), (3, 4, 5)))
    given = [jnp.asarray(a, jnp.float32) for a in (x, w.T if transposed else w)]
    y, vjp = jax.vjp(lambda x, w: product(x, w, dtype, transposed), *given)
    x_gradient, w_gradient = vjp(jnp.asarray(g, jnp.float32))
    scale = {"rtol": tolerance, "atol": tolerance * 4}
    np.testing.assert_allclose(y, x @ w, **scale)
    np.testing.assert_allclose(x_gradient, g @ w.T, **scale)
    expected = np.einsum("btk,btn->kn", x, g)
    np.testing.assert_allclose(w_gradient, expected.T if transposed else expected, **scale)
    assert {y.dtype, x_gradient.dtype, w_gradient.dtype} == {jnp.dtype(jnp.float32)}


def test_gradients_have_the_dtypes_of_their_arrays():
    with jax.enable_x64(True):
        x, w = jnp.ones((2, 3), jnp.float64), jnp.ones((3, 4), jnp.float32)
        gradients = jax.grad(lambda x, w: product(x, w, jnp.bfloat16).sum(), (0, 1))(x, w)
    assert [gradient.dtype for gradient in gradients] == [jnp.float64, jnp.float32]


def test_operands_are_rounded_in_forward_and_backward_pass():
    x, w = jnp.full((1, 1), 1 + 2**-10), jnp.ones((1, 1))  # bfloat16 cannot represent 1 + 2⁻¹⁰
    assert product(x, w, jnp.float32)[0, 0] == x[0, 0]
    assert product(x, w, jnp.bfloat16)[0, 0] == 1
    gradient = jax.grad(lambda w: product(x, w, jnp.bfloat16).sum())(w)
    assert gradient[0, 0] == 1


def test_products_round_their_operands_only():
    x, w, g = (jax.random.normal(jax.random.key(k), shape) for k, shape in enumerate([(2, 5, 3), (3, 4), (2, 5, 4)]))
    for dtype in ("float32", "bfloat16"):
        y, pullback = jax.vjp(lambda x, w, dtype=dtype: product(x, w, dtype), x, w)
        a, b, c = (np.asarray(array.astype(dtype), np.float64) for array in (x, w, g))
        expected = a @ b, c @ b.T, np.einsum("btk,btn->kn", a, c)
        for found, value in zip((y, *pullback(g)), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
