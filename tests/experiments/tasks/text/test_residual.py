"""Residual blocks against a loop in NumPy; streaming, chunks and training with every cell."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
from experiments.runner import devices
from experiments.runner.config import load, resolve
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.step import initial_state, make_train_step
from experiments.schema import UserError
from experiments.tasks.text.char_lm import CharLM
from experiments.tasks.text.corpus import Vocabulary
from experiments.tasks.text.generate import generate
from experiments.tasks.text.model import LanguageModel, LanguageModelConfig
from experiments.tasks.text.residual import ResidualBlocks
from tests.gru_jax import oracle

V = 11
LINEAR = ("mingru", "minlstm", "lru")


def make(cell, **options: Any):
    sizes: dict[str, Any] = {"hidden_size": 6, "embedding_size": 4, "num_layers": 2}
    return LanguageModel(LanguageModelConfig(cell=cell, block="residual", **sizes | options), V, nnx.Rngs(0))


def symbols_of(rows, steps):
    return jax.random.randint(jax.random.key(1), (rows, steps), 0, V)


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def gelu(a):
    return 0.5 * a * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))


def loop(params, xs, K):
    """Computes blocks of minimal GRUs for one sequence (T, E), a step at a time."""
    blocks = [params["blocks"][str(number)] for number in range(2)]
    windows = [np.zeros((K - 1, xs.shape[1]))] * len(blocks)
    states, ys = [(np.zeros(6),)] * len(blocks), []
    for x in xs:
        for number in range(len(blocks)):
            block = blocks[number]
            read = np.concatenate((windows[number], x[None]))
            windows[number] = read[1:]
            x = x + (read * block["taps"]).sum(0)
            cell = block["cell"]["layers"]["0"]["0"]
            states[number] = oracle.min_gru_step(cell, states[number], norm(x, block["cell_norm"]["scale"]))
            x = x + states[number][0] @ block["project"]["kernel"] + block["project"]["bias"]
            inner = norm(x, block["mlp_norm"]["scale"]) @ block["widen"]["kernel"] + block["widen"]["bias"]
            x = x + gelu(inner) @ block["narrow"]["kernel"] + block["narrow"]["bias"]
        ys.append(norm(x, params["norm"]["scale"]))
    return np.stack(ys)


@pytest.mark.parametrize("K", [2, 4])
def test_blocks_equal_the_equations(K):
    model = make("mingru", conv_width=K, mlp_factor=3)
    state = nnx.to_pure_dict(nnx.state(model))
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    model = nnx.merge(nnx.graphdef(model), structure.unflatten(leaves))
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), structure.unflatten(leaves)["recurrent"])
    xs = np.random.default_rng(0).normal(size=(3, 9, 4))
    found, _ = model.recurrent(jnp.asarray(xs, jnp.float32))
    close(found, np.stack([loop(params, x, K) for x in xs]))


@pytest.mark.parametrize("cell", gru_jax.CELLS)
def test_single_steps_equal_unrolling(cell):
    model, symbols = make(cell, hidden_size=8), symbols_of(3, 7)

    @jax.jit
    def both():
        state, streamed = model.initial_state(3), []
        for t in range(7):
            logits, state = model.step(symbols[:, t], state)
            streamed.append(logits)
        return (jnp.stack(streamed, axis=1), state), model(symbols)

    streamed, unrolled = both()
    close(streamed, unrolled)


@pytest.mark.parametrize("cell", LINEAR)
def test_associative_backend_gives_the_same_gradients(cell):
    symbols = symbols_of(3, 9)

    def gradient(backend):
        graph, params = nnx.split(make(cell, backend=backend))
        return jax.grad(lambda params: (nnx.merge(graph, params)(symbols)[0] ** 2).mean())(params)

    close(*(nnx.to_pure_dict(gradient(backend)) for backend in ("associative", "scan")))


@pytest.mark.parametrize("options", [{}, {"conv_width": 0}, {"mlp_factor": 0}, {"conv_width": 6, "backend": "scan"}])
def test_state_is_carried_between_chunks(options):
    model, symbols = make("minlstm", **options), symbols_of(2, 8)
    state, parts = model.initial_state(2), []
    for chunk in jnp.split(symbols, [1, 3], axis=1):
        logits, state = model(chunk, state)
        parts.append(logits)
    close((jnp.concatenate(parts, axis=1), state), model(symbols))


def test_generated_text_has_the_probabilities_of_the_parallel_evaluation():
    model, vocabulary = make("mingru", backend="associative"), Vocabulary("abcdefghijk")
    text = "".join(generate(model, vocabulary, "bead", 30, 0.0, jax.random.key(0)))
    likely = jnp.argmax(model(jnp.asarray(vocabulary.encode(text))[None])[0][0], axis=-1)
    assert text[4:] == vocabulary.decode(np.asarray(likely))[3:-1]
    assert len(set(text[4:])) > 1


def test_dropout_needs_a_key_and_reaches_every_block():
    model, symbols = make("mingru", dropout=0.5), symbols_of(2, 5)
    np.testing.assert_array_equal(model(symbols)[0], model(symbols)[0])
    xs = jax.random.normal(jax.random.key(0), (2, 5, 4))
    options = {"deterministic": False, "rngs": jax.random.key(3)}
    assert isinstance(model.recurrent, ResidualBlocks)
    for block in model.recurrent.blocks.values():
        state = block.initial_state((2,))
        plain, dropped = block(xs, state, None)[0], block(xs, state, options["rngs"])[0]
        assert not np.allclose(plain, dropped)
    np.testing.assert_array_equal(model.recurrent(xs, **options)[0], model.recurrent(xs, **options)[0])
    np.testing.assert_array_equal(model.recurrent(xs, rngs=options["rngs"])[0], model.recurrent(xs)[0])


def test_sizes_follow_the_configuration():
    def shapes(**options):
        return sorted(leaf.shape for leaf in jax.tree.leaves(nnx.state(make("mingru", num_layers=1, **options))))

    block = [(4, 4), (4,), (4, 12), (12,), (6, 4), (4,), (4,), (4, 16), (16,), (16, 4), (4,)]
    ends = [(4,), (11, 4), (4, 11), (11,)]
    assert shapes() == sorted(block + ends)
    assert shapes(tied=True) == sorted(block + ends[:2])
    assert shapes(conv_width=0, mlp_factor=0) == sorted([(4,), (4, 12), (12,), (6, 4), (4,), *ends])
    with pytest.raises(UserError, match=r"^conv_width: expected 0 or at least 2, got 1$"):
        LanguageModelConfig(conv_width=1).check()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["residual-mingru", "residual-minlstm"])
def test_variants_learn(variant, tmp_path):
    """After 60 small steps, the loss is below one third of the uniform distribution's."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be, that is the question. " * 40)
    values = load("char_lm").get_config(variant)
    values.task.update({"text_file": str(path), "length": 16, "batch_size": 8, "validation_streams": 4})
    values.model.update({"hidden_size": 32, "embedding_size": 16})
    values.optimizer.update({"learning_rate": 1e-2, "warmup_steps": 5})
    values.train.update({"steps": 60, "accumulate": 2})
    config = resolve(values)
    assert config.model.block == "residual"
    task = CharLM(config.task, None)
    optimizer, schedule = make_optimizer(config.optimizer, 60), learning_rate(config.optimizer, 60)
    graph, state = initial_state(task, config, optimizer)
    mesh = devices.make_mesh(task.batch_size, 1)
    train_step = make_train_step(task, graph, optimizer, schedule, mesh, config.seed, config.train.accumulate)
    sums = {}
    for step in range(60):
        state, sums = train_step(state, task.train_batch(0, step))
    total, weight = sums["loss"]
    assert total / weight < math.log(len(task.vocabulary)) / 3
