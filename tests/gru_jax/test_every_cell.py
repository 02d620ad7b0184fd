"""What follows from the class of a cell: Flax modules, weight files, exported programs. For every cell."""

import dataclasses
import inspect
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx as flax_nnx
from jax import export

import gru_jax
from gru_jax import linen, nnx, unroll
from gru_jax.export import load_weights, save_weights, step_program, unroll_program

NAMES = list(gru_jax.CELLS)
B, T, I, H = 3, 5, 2, 8
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
KEY = jax.random.key(0)


def close(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def cell_of(name: str) -> Any:
    return gru_jax.CELLS[name]()


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_frozen_static_dataclasses_of_hyperparameters(name):
    cell = cell_of(name)
    assert isinstance(cell, gru_jax.Cell)
    assert type(cell).__name__.lower() == name
    assert {cell: 1}[cell_of(name)] == 1
    assert jax.tree.leaves(cell) == []  # A static node, so that jit(unroll) accepts the cell as an argument.
    with pytest.raises(dataclasses.FrozenInstanceError):
        cell.W_init = "uniform"


@pytest.mark.parametrize("zoneout", [None, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_streaming_equals_unroll_in_a_stack_of_two_layers(name, zoneout):
    stack = gru_jax.Stack(cell_of(name), num_layers=2)
    params = stack.init(KEY, I, H)
    assert stack.infer_sizes(params) == (I, H, jnp.float32)
    ys, h_last = unroll(stack, params, XS, zoneout=zoneout)
    state, outputs = stack.initial_state(H, (B,)), []
    for t in range(T):
        y, state = gru_jax.step(stack, params, state, XS[:, t], zoneout=zoneout)
        outputs.append(y)
    close((jnp.stack(outputs, 1), state), (ys, h_last))
    assert float(jnp.abs(ys).max()) > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_nnx_and_linen_layers_equal_unroll(name):
    kind = gru_jax.CELLS[name].__name__
    layer = getattr(nnx, kind)(I, H, bidirectional=True, rngs=flax_nnx.Rngs(0))
    assert layer.cell == cell_of(name)
    expected = unroll(layer.stack, layer.parameters(), XS)
    close(layer(XS), expected)
    other = getattr(linen, kind)(H, bidirectional=True)
    close(other.apply(other.to_variables(layer.parameters()), XS), expected)
    (_, state), variables = other.init_with_output(KEY, XS)
    close(unroll(other.stack, other.parameters(variables), XS)[1], state)


@pytest.mark.parametrize("name", NAMES)
def test_cells_of_flax_rnn_equal_unroll(name):
    kind = f"{gru_jax.CELLS[name].__name__}Cell"
    cell = getattr(nnx, kind)(I, H, rngs=flax_nnx.Rngs(0))
    ys, h_last = unroll(cell.cell, cell.parameters(), XS)
    close(flax_nnx.RNN(cell, return_carry=True, rngs=flax_nnx.Rngs(0))(XS), (h_last, ys))
    other = getattr(linen, kind)(H)
    variables = {"params": {"cell": other.to_variables(cell.parameters())["params"]}}
    close(nn.RNN(other, return_carry=True).apply(variables, XS), (h_last, ys))


@pytest.mark.parametrize("module", [nnx, linen])
@pytest.mark.parametrize("name", NAMES)
def test_signatures_of_modules_have_the_hyperparameters_of_the_cell(name, module):
    kind = gru_jax.CELLS[name]
    for suffix in ("", "Cell"):
        found = getattr(module, kind.__name__ + suffix)
        parameters = inspect.signature(found).parameters
        for key, parameter in inspect.signature(kind).parameters.items():
            assert parameters[key].kind is parameter.KEYWORD_ONLY
            assert (parameters[key].default, parameters[key].annotation) == (parameter.default, parameter.annotation)
        assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values())
        assert "(*" not in str(inspect.signature(found.__init__)).replace("(*,", "")
        assert pickle.loads(pickle.dumps(found)) is found
        assert f"`gru_jax.{kind.__name__}`" in found.__doc__


@pytest.mark.parametrize("kind", [gru_jax.GRU, gru_jax.LSTM, gru_jax.Elman])
def test_classes_written_out_for_type_checkers_equal_generated_ones(kind):
    """GRU, LSTM and Elman modules are written out, so that type checkers know their arguments."""
    from gru_jax.linen import _specialize
    from gru_jax.nnx._specialize import specialize

    for module, make in ((nnx, specialize), (linen, _specialize)):
        for base, suffix in ((module.Recurrent, ""), (module.RecurrentCell, "Cell")):
            written = getattr(module, kind.__name__ + suffix)
            assert inspect.signature(make(base, kind)) == inspect.signature(written)
            assert make(base, kind).__name__ == written.__name__


@pytest.mark.parametrize("name", NAMES)
def test_parameters_can_be_donated(name):
    params = cell_of(name).init(KEY, I, H)
    expected = jax.tree.map(lambda a: np.asarray(a) * 2, params)
    doubled = jax.jit(lambda params: jax.tree.map(lambda a: a * 2, params), donate_argnums=0)(params)
    close(doubled, expected)


@pytest.mark.parametrize("name", NAMES)
def test_linen_initializers_see_the_shapes_of_their_arrays(name):
    """An initializer may accept one shape only, e.g. if it returns weights that were trained elsewhere."""
    if "W_init" not in cell_of(name).__dataclass_fields__:
        pytest.skip(f"{name} has no W_init")
    shapes = set()

    def given(key, shape, dtype):
        shapes.add(shape)
        return jnp.full(shape, 0.25, dtype)

    gru_jax.CELLS[name](W_init=given).init(KEY, I, H)
    expected = shapes.copy()
    layer = getattr(linen, gru_jax.CELLS[name].__name__)(H, W_init=given)
    variables = layer.init(KEY, XS)
    assert shapes == expected
    ((params,),) = layer.parameters(variables)
    np.testing.assert_array_equal(params.W, 0.25)
    assert layer.apply(variables, XS)[0].shape == (B, T, H)


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_pickled(name):
    kind = gru_jax.CELLS[name].__name__
    layer = getattr(linen, kind)(H)
    assert pickle.loads(pickle.dumps(layer)) == layer
    module = getattr(nnx, kind)(I, H, rngs=flax_nnx.Rngs(0))
    close(pickle.loads(pickle.dumps(module))(XS), module(XS))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_keywords_name_the_layer(name):
    kind = gru_jax.CELLS[name].__name__
    for module, sizes, options in ((nnx, (I, H), {"rngs": flax_nnx.Rngs(0)}), (linen, (H,), {})):
        for suffix in ("", "Cell"):
            line = rf"^{module.__name__}\.{kind}{suffix}: expected one of .*, got gates=$"
            with pytest.raises(TypeError, match=line):
                getattr(module, kind + suffix)(*sizes, gates=3, **options)


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_a_safetensors_file(tmp_path, name):
    for cell in (cell_of(name), gru_jax.Stack(cell_of(name), 2, bidirectional=True)):
        params = cell.init(KEY, I, H)
        save_weights(tmp_path / "w.safetensors", cell, params)
        read, params_read = load_weights(tmp_path / "w.safetensors")
        assert read == cell
        assert jax.tree.structure(params_read) == jax.tree.structure(params)
        jax.tree.map(np.testing.assert_array_equal, params_read, params)


@pytest.mark.parametrize("name", NAMES)
def test_exported_programs_equal_unroll(name):
    cell = cell_of(name)
    params = cell.init(KEY, I, H)
    ys, h_last = unroll(cell, params, XS)
    found = unroll_program(cell, params).call(XS)
    close((found[0], jax.tree.leaves(found[1])), (ys, jax.tree.leaves(h_last)))
    state = tuple(jax.tree.leaves(cell.initial_state(H, (B,))))
    state, y = step_program(cell, params).call(state if len(state) > 1 else state[0], XS[:, 0])
    close(y, ys[:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_programs_with_parameters_as_arguments_are_serialized(name):
    cell = cell_of(name)
    params = cell.init(KEY, I, H)
    program = export.export(jax.jit(lambda params, xs: unroll(cell, params, xs)))(params, XS)
    close(export.deserialize(bytearray(program.serialize())).call(params, XS), unroll(cell, params, XS))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_another_cell_raise_one_line(name):
    cell, other = cell_of(name), gru_jax.GRU() if name != "gru" else gru_jax.LSTM()
    with pytest.raises(TypeError, match=rf"^params: expected {type(cell).__name__}Params, got \w+$"):
        cell.infer_sizes(other.init(KEY, I, H))


@pytest.mark.parametrize("name", NAMES)
def test_each_field_of_the_parameters_is_checked(name):
    """A longer axis or another dtype of any field raises an error with its name."""
    cell = cell_of(name)
    params = cell.init(KEY, I, H)
    of_inputs = "V" if name == "lem" else "W"
    for field, array in params._asdict().items():
        if array is None:
            continue
        for axis in range(array.ndim):
            longer = jnp.concatenate([array, jnp.take(array, jnp.array([0]), axis)], axis)
            if field == of_inputs and axis == 0:
                assert cell.infer_sizes(params._replace(**{field: longer}))[0] == I + 1
                continue
            with pytest.raises(ValueError, match=r"^params\.\w+: expected [^\n]*, got [^\n]*$"):
                cell.infer_sizes(params._replace(**{field: longer}))
        with pytest.raises(TypeError, match=r"^params\.\w+: expected [^\n]*, got [^\n]*$"):
            cell.infer_sizes(params._replace(**{field: array.astype(jnp.bfloat16)}))
        with pytest.raises(TypeError, match=rf"^params\.{field}: expected [^\n]*, got [^\n]*$"):
            cell.infer_sizes(params._replace(**{field: None}))
