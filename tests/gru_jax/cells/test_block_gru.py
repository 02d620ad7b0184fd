"""The block-diagonal GRU: against the equations of DreamerV3, with dense matrices, parameters and wrong arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, BlockGRU, BlockGRUParams, step, unroll
from gru_jax.cells.gates import (
    block_matmul,
    block_matmul_input_gradient,
    block_matmul_weight_gradient,
    matmul,
    matmul_input_gradient,
    matmul_weight_gradient,
)

I, H, BLOCKS = 3, 8, 2
RNG = np.random.default_rng(0)


def random_params(cell, dtype=jnp.float64):
    drawn = jax.eval_shape(lambda: cell.init(jax.random.key(0), I, H))
    return jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape), dtype), drawn)


def dense(U):
    """Returns a block-diagonal matrix (G, K, N) with all its zeros, (G K, G N)."""
    G, K, N = U.shape
    whole = np.zeros((G * K, G * N))
    for k in range(G):
        whole[k * K : (k + 1) * K, k * N : (k + 1) * N] = U[k]
    return whole


def dreamer_core(kernel, bias, deter, x, g):
    """The last lines of `RSSM._core` of DreamerV3, a layer of blocks on [deter, x], where every block gets all of x."""
    grouped = np.concatenate([deter.reshape(-1, g, H // g), np.repeat(x[:, None], g, 1)], -1)
    pre_activations = np.einsum("bki,kio->bko", grouped, kernel) + bias.reshape(g, 3 * H // g)
    reset, cand, update = (part.reshape(-1, H) for part in np.split(pre_activations, 3, -1))
    reset = 1 / (1 + np.exp(-reset))
    cand = np.tanh(reset * cand)
    update = 1 / (1 + np.exp(-(update - 1)))
    return update * cand + (1 - update) * deter


@pytest.mark.usefixtures("x64")
def test_steps_equal_the_equations_of_dreamer():
    """Its kernel has the rows of U of a block, followed by the columns of W of this block's units."""
    cell, size = BlockGRU(BLOCKS), H // BLOCKS
    params = random_params(cell)
    W = np.asarray(params.W).reshape(I, 3, BLOCKS, size)
    of_inputs = W.transpose(2, 0, 1, 3).reshape(BLOCKS, I, 3 * size)
    kernel = np.concatenate([np.asarray(params.U), of_inputs], axis=1)
    bias = np.asarray(params.b).reshape(3, BLOCKS, size).transpose(1, 0, 2).ravel()
    deter, xs = RNG.normal(size=(5, H)), RNG.normal(size=(5, 4, I))
    ys, _ = unroll(cell, params, jnp.asarray(xs), jnp.asarray(deter))
    for t in range(4):
        deter = dreamer_core(kernel, bias, deter, xs[:, t], BLOCKS)
        np.testing.assert_allclose(ys[:, t], deter, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_norm_divides_the_pre_activations_of_all_gates_by_their_root_mean_square():
    cell = BlockGRU(BLOCKS, norm="rms")
    params = random_params(cell)
    h, x = RNG.normal(size=(5, H)), RNG.normal(size=(5, I))
    from_h = (h @ dense(params.U)).reshape(5, BLOCKS, 3, H // BLOCKS).transpose(0, 2, 1, 3).reshape(5, 3 * H)
    a = x @ np.asarray(params.W) + from_h
    a = np.asarray(params.gain) * a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-4) + np.asarray(params.b)
    a_r, a_n, a_u = np.split(a, 3, -1)
    n, u = np.tanh(a_n / (1 + np.exp(-a_r))), 1 / (1 + np.exp(1 - a_u))
    y, _ = step(cell, params, jnp.asarray(h), jnp.asarray(x))
    np.testing.assert_allclose(y, (1 - u) * h + u * n, rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("norm", [None, "rms"])
def test_a_dense_matrix_with_the_same_blocks_gives_the_same_results(norm):
    """The dense matrix has zeros between the blocks, and is a single block of another cell."""
    cell, whole = BlockGRU(BLOCKS, norm), BlockGRU(1, norm)
    params = random_params(cell)
    U = np.asarray(params.U).reshape(BLOCKS, H // BLOCKS, 3, H // BLOCKS)
    U = np.concatenate([dense(U[:, :, gate]) for gate in range(3)], axis=-1)[None]
    xs, h0 = jnp.asarray(RNG.normal(size=(2, 6, I))), jnp.asarray(RNG.normal(size=(2, H)))

    def loss(params, cell):
        ys, _ = unroll(cell, params, xs, h0)
        return (ys**2 * jnp.arange(H)[None, None]).sum(), ys

    gradient, ys = jax.grad(loss, has_aux=True)(params, cell)
    whole_gradient, whole_ys = jax.grad(loss, has_aux=True)(params._replace(U=jnp.asarray(U)), whole)
    np.testing.assert_allclose(ys, whole_ys, rtol=1e-12)
    np.testing.assert_allclose(gradient.W, whole_gradient.W, rtol=1e-10, atol=1e-12)
    kept = np.asarray(whole_gradient.U[0]).reshape(H, 3, H)
    size = H // BLOCKS
    for k in range(BLOCKS):
        units = slice(k * size, (k + 1) * size)
        np.testing.assert_allclose(gradient.U[k].reshape(size, 3, size), kept[units, :, units], rtol=1e-10, atol=1e-12)


def test_defaults_are_those_of_dreamer():
    cell = BlockGRU()
    assert (cell.blocks, cell.norm) == (8, None)
    params = cell.init(jax.random.key(0), 3, 16)
    kept = step(cell, jax.tree.map(jnp.zeros_like, params), jnp.ones((16,)), jnp.ones((3,)))[1]
    np.testing.assert_allclose(kept, 1 - 1 / (1 + np.exp(1.0)), rtol=1e-6)  # u = sigmoid(-1)


def test_parameters_have_the_documented_shapes():
    params = BlockGRU(4, "rms").init(jax.random.key(0), 3, 12, jnp.float16)
    assert jax.tree.map(jnp.shape, params) == BlockGRUParams((3, 36), (4, 3, 9), (36,), (36,))
    assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.float16)}
    assert BlockGRU(4).init(jax.random.key(0), 3, 12).gain is None
    assert sum(leaf.size for leaf in jax.tree.leaves(BlockGRU(4).init(jax.random.key(0), 3, 12))) == 252


def test_gates_of_blocks_are_initialized_separately():
    params = BlockGRU(2).init(jax.random.key(0), 3, 8)
    matrices = [block[:, gate * 4 : (gate + 1) * 4] for block in params.U for gate in range(3)]
    for k, U in enumerate(matrices):
        np.testing.assert_allclose(U @ U.T, np.eye(4), atol=1e-5)
        assert all(np.abs(U - other).max() > 0.1 for other in matrices[:k])
    np.testing.assert_array_equal(params.b, 0)
    np.testing.assert_allclose(np.abs(params.W).max(), np.sqrt(6 / 11), rtol=0.2)  # Glorot's bound


def test_products_of_blocks_equal_those_of_the_dense_matrix():
    x, g, w = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((2, 5, 8), (2, 5, 6), (2, 4, 3)))
    whole = jnp.asarray(dense(w), jnp.float32)
    np.testing.assert_allclose(block_matmul(x, w), matmul(x, whole), rtol=1e-5, atol=1e-5)
    gradient = block_matmul_input_gradient(g, w)
    np.testing.assert_allclose(gradient, matmul_input_gradient(g, whole), rtol=1e-5, atol=1e-5)
    blocks = block_matmul_weight_gradient(x, g, 2)
    kept = matmul_weight_gradient(x, g)
    np.testing.assert_allclose(blocks, [kept[:4, :3], kept[4:, 3:]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hidden_size", [7, 12, 100])
def test_blocks_that_do_not_divide_the_hidden_size_are_an_error(hidden_size):
    with pytest.raises(ValueError, match=rf"^init: hidden_size: expected a multiple of blocks=8, got {hidden_size}$"):
        BlockGRU().init(jax.random.key(0), 3, hidden_size)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: BlockGRU(0), ValueError, "BlockGRU: blocks: expected a positive integer, got 0"),
        (lambda: BlockGRU(2.0), TypeError, "BlockGRU: blocks: expected a positive integer, got 2.0"),  # type: ignore[arg-type]
        (lambda: BlockGRU(norm="layer"), ValueError, "BlockGRU: norm: expected one of None, 'rms', got 'layer'"),
        (lambda: BlockGRU(b_init="chrono"), ValueError, "BlockGRU: b_init: expected one of 'zeros', 'uniform'"),
    ],
)
def test_wrong_hyperparameters_are_an_error(make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make()


def test_parameters_of_another_cell_are_an_error():
    params = BlockGRU(2).init(jax.random.key(0), I, H)
    for cell, changed, message in (
        (BlockGRU(4), params, r"params.U: expected shape \(4, 2, 6\), got \(2, 4, 12\)"),
        (BlockGRU(3), params, r"params.W: expected shape \(I, 3H\), H a multiple of blocks=3, got H=8"),
        (
            BlockGRU(2),
            params._replace(U=params.U[:, :, 1:]),
            r"params.U: expected shape \(2, 4, 12\), got \(2, 4, 11\)",
        ),
        (BlockGRU(2), params._replace(W=params.W[:, 1:]), "params.W: expected an axis 3H that 3 divides, got 23"),
        (BlockGRU(2), params._replace(b=params.b[3:]), r"params.b: expected shape \(24,\), got \(21,\)"),
        (BlockGRU(2, "rms"), params, r'params.gain: expected an array \(3H,\) for norm="rms", got None'),
        (BlockGRU(2), params._replace(gain=jnp.ones(24)), "params.gain: expected None for norm=None, got an array"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            unroll(cell, changed, jnp.ones((1, 2, I)))
    with pytest.raises(TypeError, match=r"^params: expected BlockGRUParams, got GRUParams$"):
        unroll(BlockGRU(2), GRU().init(jax.random.key(0), I, H), jnp.ones((1, 2, I)))
