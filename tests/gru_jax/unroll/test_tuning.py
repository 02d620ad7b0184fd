"""Packed matrices, bulk computation in rows and block lengths do not change values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LRU, LSTM, BlockGRU, LayerNormGRU, unroll
from gru_jax._unroll.tuning import choose_block_length, choose_memory, in_rows, pack, pack_transpose

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("platform", "amx"), [("cpu", True), ("cpu", False), ("gpu", False), ("tpu", False)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("rows", "K", "N"), [(2, 8, 24), (32, 256, 768), (33, 250, 750), (2, 448, 1344), (1, 512, 1600), (128, 1024, 48)]
)
def test_packed_products_equal_the_product_with_the_matrix(rows, K, N, dtype, platform, amx, monkeypatch):
    monkeypatch.setattr("gru_jax._unroll.tuning.has_amx", lambda: amx)
    w = jnp.asarray(RNG.normal(size=(K, N)), dtype)
    exact = np.asarray(w, np.float64)
    for packed, matrix in (
        (pack(w, rows, platform, dtype), exact),
        (pack_transpose(w, rows, platform, dtype), exact.T),
    ):
        x = jnp.asarray(RNG.normal(size=(rows, matrix.shape[0])), dtype)
        expected = np.asarray(x, np.float64) @ matrix
        got = np.asarray(jax.jit(packed.__call__)(x.astype(jnp.float32)), np.float64)
        assert got.shape == expected.shape
        assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "G", "K", "N"), [(2, 4, 3, 9), (32, 2, 128, 384), (2, 3, 1024, 48)])
def test_packed_products_of_blocks_equal_those_of_each_block(rows, G, K, N, dtype, platform):
    w = jnp.asarray(RNG.normal(size=(G, K, N)), dtype)
    exact = np.asarray(w, np.float64)
    for packed, blocks in (
        (pack(w, rows, platform, dtype), exact),
        (pack_transpose(w, rows, platform, dtype), exact.swapaxes(1, 2)),
    ):
        x = jnp.asarray(RNG.normal(size=(rows, G * blocks.shape[1])), dtype)
        parts = np.split(np.asarray(x, np.float64), G, -1)
        expected = np.concatenate([part @ block for part, block in zip(parts, blocks, strict=True)], -1)
        got = np.asarray(jax.jit(lambda x, packed=packed: packed(x))(x.astype(jnp.float32)), np.float64)
        assert got.shape == expected.shape
        assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_matrices_have_one_part_on_accelerators(platform):
    w = jnp.ones((1024, 3072))
    for packed in (pack(w, 64, platform), pack_transpose(w, 64, platform)):
        assert len(packed.parts) == 1
        assert not packed.transposed


@pytest.mark.parametrize("matmul_dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("cell", [GRU(), GRU("after"), LSTM()])
def test_gradients_of_large_layers_equal_the_scan_backend(cell, matmul_dtype):
    """H is large enough that the matrices of both passes are packed in parts; `vmap` maps over the weights."""
    H, B, T = 464, 4, 3
    params = jax.vmap(lambda key: cell.init(key, 3, H))(jax.random.split(jax.random.key(0), 2))
    xs = jnp.asarray(RNG.normal(size=(T, B, 3)), jnp.float32)

    def gradient(backend):
        def loss(params):
            ys, _ = unroll(cell, params, xs, time_major=True, backend=backend, matmul_dtype=matmul_dtype)
            return (ys**2).sum()

        return jax.jit(jax.vmap(jax.grad(loss)))(params)

    for name, got, expected in zip(type(params)._fields, gradient("fused"), gradient("scan"), strict=True):
        if expected is not None:
            error = jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected)
            assert error < (1e-5 if matmul_dtype is None else 2e-2), name


@pytest.mark.parametrize(("platform", "shape"), [("cpu", (3, 2, 5)), ("tpu", (6, 5))])
def test_bulk_functions_get_rows_on_accelerators(platform, shape):
    shapes = []

    def function(tree):
        shapes.append(tree["a"].shape)
        return tree["a"] * 2, tree["b"] + 1

    a, b = jnp.arange(30.0).reshape(3, 2, 5), jnp.arange(6.0).reshape(3, 2)
    doubled, more = in_rows(function, platform, {"a": a, "b": b})
    assert shapes == [shape]
    np.testing.assert_array_equal(doubled, 2 * a)
    np.testing.assert_array_equal(more, b + 1)


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("cell", [GRU(), LSTM(), LayerNormGRU(), BlockGRU(2), LRU()])
def test_programs_for_accelerators_have_the_same_gradients(cell, backend, monkeypatch):
    params = cell.init(jax.random.key(0), 3, 4)
    xs = jax.random.normal(jax.random.key(1), (2, 7, 3))

    def loss(params, xs):
        options = {"backend": backend, "block_length": 3, "memory": "recompute"}
        return (unroll(cell, params, xs, lengths=jnp.array([7, 4]), **options)[0] ** 2).sum()

    expected = jax.grad(loss, argnums=(0, 1))(params, xs)
    monkeypatch.setattr("gru_jax._unroll.unroll._platform", lambda: "tpu")
    got = jax.grad(loss, argnums=(0, 1))(params, xs)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_default_device_sets_the_platform():
    cell = GRU()
    params, xs = cell.init(jax.random.key(0), 3, 4), jnp.ones((2, 7, 3))

    def program(device):
        with jax.default_device(device):
            return str(jax.make_jaxpr(lambda params, xs: unroll(cell, params, xs))(params, xs))

    assert "optimization_barrier" in program("tpu")
    assert "optimization_barrier" not in program("cpu")


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_short_sequences_are_one_block(platform):
    assert choose_block_length(100, 16 * 32 * 128 * 4, platform) == 100
    assert choose_block_length(1, 10**9, platform) == 1


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("T", [1000, 1024, 1009, 65536])
def test_long_sequences_have_blocks_that_divide_them_if_a_divisor_is_near(T, platform):
    lengths = [choose_block_length(T, 16 * size, platform) for size in (64 * 128 * 4, 64 * 512 * 4, 10**8)]
    assert lengths == sorted(lengths, reverse=True)
    assert all(1 < length <= T for length in lengths)
    assert lengths[-1] < T / 20
    assert all(T % length == 0 for length in lengths) or T == 1009  # a prime


@pytest.mark.parametrize("amx", [False, True])
def test_narrow_products_are_recomputed_where_they_are_cheap(amx, monkeypatch):
    monkeypatch.setattr("gru_jax._unroll.tuning.has_amx", lambda: amx)
    state = jnp.zeros((32, 512))
    assert choose_memory(state, 100, "cpu", None, several_blocks=True) == "save"
    assert choose_memory(state, 100, "cpu", jnp.bfloat16, several_blocks=True) == ("recompute" if amx else "save")
    assert choose_memory(state, 1000, "cpu", jnp.bfloat16, several_blocks=True) == "recompute"
    assert choose_memory(state, 100, "gpu", jnp.bfloat16, several_blocks=False) == "recompute"


def test_large_products_without_a_matrix_unit_read_the_transpose_in_parts(monkeypatch):
    monkeypatch.setattr("gru_jax._unroll.tuning.has_amx", lambda: False)
    w = jnp.ones((512, 1536))
    halves = pack_transpose(w, 64, "cpu")
    assert [part.shape for part in halves.parts] == [(1536, 256), (1536, 256)]
    sums = pack_transpose(w.astype(jnp.bfloat16), 64, "cpu")
    assert [part.shape for part in sums.parts] == [(768, 512), (768, 512)]
    assert [part.shape for part in pack(jnp.ones((1024, 3072)), 16, "cpu").parts] == [(1024, 3072)]


def test_machine_has_a_matrix_unit_if_the_system_says_so(monkeypatch):
    from gru_jax._unroll import tuning

    for text, expected in (("flags : avx512f amx_tile", True), ("flags : avx512f avx512_bf16", False)):
        monkeypatch.setattr(tuning.Path, "exists", lambda path: True)
        monkeypatch.setattr(tuning.Path, "read_text", lambda path, encoding, text=text: text)
        assert tuning.has_amx.__wrapped__() is expected
    monkeypatch.setattr(tuning.Path, "exists", lambda path: False)
    assert tuning.has_amx.__wrapped__() is False
