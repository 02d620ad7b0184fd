"""Files of PyTorch: weights are read exactly, and other contents raise one line without running code."""

import os
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.interop.torch import from_file, from_state_dict, to_file, to_state_dict

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def refused(path, reason):
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))}: expected a file of weights alone from torch\.save, got {reason}$"
    ):
        from_file(path)


def test_code_in_pickles_does_not_run(tmp_path):
    path, mark = tmp_path / "weights.pt", tmp_path / "mark"
    pickle.loads(pickle.dumps(Malicious(mark)))
    assert mark.exists(), "it would do harm"
    mark.rmdir()
    for save in (
        lambda: torch.save({"weight_hh_l0": Malicious(mark)}, path),
        lambda: torch.save({"weight_hh_l0": Malicious(mark)}, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps(Malicious(mark))),
        lambda: path.write_bytes(pickle.dumps(Malicious(mark), protocol=2)),
        lambda: path.write_bytes(pickle.dumps({"weight_hh_l0": np.ones((12, 4), np.float32)})),
    ):
        save()
        refused(path, r"a pickle of something else: [^\n]*[Uu]nsupported [^\n]+")
        assert not mark.exists()


def test_saved_module_raises_one_line(tmp_path):
    torch.save(torch.nn.GRU(2, 3), tmp_path / "module.pt")
    refused(
        tmp_path / "module.pt",
        r"a pickle of something else: Unsupported global: GLOBAL torch\.nn\.modules\.rnn\.GRU was[^\n]+: in PyTorch "
        r"save a state_dict\(\)",
    )


def test_error_for_a_larger_model_lists_its_layers(tmp_path):
    model = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(2, 3), "cell": torch.nn.GRUCell(2, 3)})
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    line = (
        "state_dict: expected the names of one recurrent layer, got those of a larger model; "
        "choose prefix='model.encoder.' or prefix='model.cell.'"
    )
    with pytest.raises(ValueError, match=rf"^{re.escape(f'{tmp_path}/checkpoint.pt: {line}')}$"):
        from_file(tmp_path / "checkpoint.pt")
    assert from_file(tmp_path / "checkpoint.pt", prefix="model.cell.")[0] == gru_jax.GRU(reset="after")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_file_keeps_the_dtype(tmp_path, dtype):
    cell = gru_jax.GRU(reset="after", b_init="uniform")
    params = cell.init(jax.random.key(0), 2, 3, dtype)
    to_file(tmp_path / "weights.pt", cell, params)
    assert torch.load(tmp_path / "weights.pt")["weight_hh_l0"].dtype == getattr(torch, jnp.dtype(dtype).name)
    read = from_file(tmp_path / "weights.pt")[1]
    assert all(map(np.array_equal, jax.tree.leaves(read), jax.tree.leaves(params)))
    assert read.U.dtype == dtype


def test_arrays_of_another_byte_order_are_read():
    cell, params = gru_jax.GRU(reset="after"), gru_jax.GRU(reset="after").init(jax.random.key(0), 3, 4)
    state_dict = to_state_dict(cell, params)
    found = from_state_dict({name: array.astype(">f4") for name, array in state_dict.items()})
    jax.tree.map(np.testing.assert_array_equal, found, from_state_dict(state_dict))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a: a.astype(np.longdouble), "expected a floating-point dtype of 16 to 64 bits, got "),
        (lambda a: a.astype(jnp.float8_e5m2), "expected a floating-point dtype of 16 to 64 bits, got float8_e5m2"),
        (lambda a: np.ma.masked_array(a, mask=a > 0), "expected an array without a mask, got a masked one"),
        (lambda a: jax.random.key(0), "expected a floating-point dtype, got key<fry>"),
    ],
)
def test_arrays_of_other_kinds_raise_one_line(change, error):
    cell = gru_jax.GRU(reset="after")
    state_dict = to_state_dict(cell, cell.init(jax.random.key(0), 3, 4))
    with pytest.raises((TypeError, ValueError)) as raised:
        from_state_dict({name: change(array) for name, array in state_dict.items()})
    assert re.match(rf"state_dict: weight_hh_l0: {re.escape(error)}", str(raised.value))


def test_tracers_raise_one_line():
    cell = gru_jax.Elman()
    with pytest.raises(
        TypeError, match=r"params\.W: expected a concrete array, got a tracer inside a JAX transformation"
    ):
        jax.jit(lambda key: to_state_dict(cell, cell.init(key, 2, 3)))(jax.random.key(0))


def test_damaged_files_raise_one_line(tmp_path):
    path, cell = tmp_path / "weights.pt", gru_jax.Elman()
    to_file(path, cell, cell.init(jax.random.key(0), 2, 3))
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-1], b"PK" + whole, b"weights"):
        path.write_bytes(damaged)
        refused(path, r"([A-Z]\w+Error|a pickle of something else: )[^\n]*")
    path.write_bytes(whole)
    assert from_file(path, nonlinearity="tanh")[0] == cell


def test_other_contents_raise_one_line(tmp_path):
    path = tmp_path / "weights.pt"
    for contents, error, line in (
        ([torch.ones(2)], TypeError, "state_dict: expected a mapping from names to arrays, got list"),
        ({"epoch": 3}, ValueError, "state_dict: weight_hh_l0: expected an array (GH, H), got none; there is epoch"),
        (
            {"weight_hh_l0": torch.ones(8, 4)},
            ValueError,
            "state_dict: weight_hh_l0: expected shape (3H, H) or (4H, H) or (H, H), got (8, 4)",
        ),
    ):
        torch.save(contents, path)
        with pytest.raises(error, match=rf"^{re.escape(f'{path}: {line}')}$"):
            from_file(path)


def test_state_dict_in_a_checkpoint_is_read(tmp_path):
    layer = torch.nn.GRU(2, 3)
    torch.save({"model": {"rnn": layer.state_dict()}, "epoch": 3}, tmp_path / "checkpoint.pt")
    cell, params = from_file(tmp_path / "checkpoint.pt", prefix="model.rnn.")
    assert cell == gru_jax.GRU(reset="after")
    np.testing.assert_array_equal(params.W[:, 3:6], -layer.weight_ih_l0[3:6].detach().numpy().T)
