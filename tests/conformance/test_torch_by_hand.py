"""Cells that PyTorch does not have, against their equations in PyTorch: outputs, final states and all gradients."""

from contextlib import nullcontext
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import LEM, LayerNormGRU, LayerNormLSTM
from tests.conformance.agreement import assert_close, draw_params, draw_task, solve

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
torch.set_num_threads(1)  # PyTorch threads wait for each other if tests run in parallel.

I, H = 3, 5


def affine(gain, bias):
    """Returns `torch.nn.LayerNorm` with these gains and biases."""
    norm = torch.nn.LayerNorm(len(gain), dtype=gain.dtype)
    del norm.weight, norm.bias
    norm.weight, norm.bias = gain, bias
    return norm


def layer_norm_gru(p, x, state):
    (h,), rz, n = state, slice(None, 2 * H), slice(2 * H, None)
    zeros = torch.zeros_like(p.b[rz])
    from_x = torch.cat([affine(p.gain_x[rz], p.b[rz])(x @ p.W[:, rz]), affine(p.gain_x[n], p.b[n])(x @ p.W[:, n])], -1)
    gates_h = affine(p.gain_h[rz], zeros)(h @ p.U[:, rz])
    r, z = torch.sigmoid(from_x[:, rz] + gates_h).chunk(2, -1)
    candidate = torch.tanh(from_x[:, n] + r * affine(p.gain_h[n], p.b_hn)(h @ p.U[:, n]))
    return ((1 - z) * h + z * candidate,)


def layer_norm_lstm(p, x, state):
    h, c = state
    from_x, from_h = affine(p.gain_x, p.b)(x @ p.W), affine(p.gain_h, torch.zeros_like(p.b))(h @ p.U)
    i, f, g, o = (from_x + from_h).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(affine(p.gain_c, p.b_c)(c)), c


def lem(p, x, state, dt=0.31):
    """The cell of https://github.com/tk-rusch/LEM, which has the columns [2 | 1 | y | z] and [2 | 1 | z]."""
    y, z = state
    (V_1, V_2, V_z, V_y), (b_1, b_2, b_z, b_y) = p.V.chunk(4, -1), p.b.chunk(4)
    W_1, W_2, W_z = p.W.chunk(3, -1)
    of_input = torch.nn.functional.linear(x, torch.cat([V_2, V_1, V_y, V_z], -1).T, torch.cat([b_2, b_1, b_y, b_z]))
    of_hidden = torch.nn.functional.linear(y, torch.cat([W_2, W_1, W_z], -1).T)
    i_dt1, i_dt2, i_z, i_y = of_input.chunk(4, 1)
    h_dt1, h_dt2, h_y = of_hidden.chunk(3, 1)
    ms_dt_bar, ms_dt = dt * torch.sigmoid(i_dt1 + h_dt1), dt * torch.sigmoid(i_dt2 + h_dt2)
    z = (1 - ms_dt) * z + ms_dt * torch.tanh(i_y + h_y)
    y = (1 - ms_dt_bar) * y + ms_dt_bar * torch.tanh(torch.nn.functional.linear(z, p.W_y.T) + i_z)
    return y, z


STEPS = {
    "layer_norm_gru": (LayerNormGRU(), layer_norm_gru),
    "layer_norm_lstm": (LayerNormLSTM(), layer_norm_lstm),
    "lem": (LEM(dt=0.31), lem),
}


def leaves_to_torch(tree):
    return [torch.from_numpy(np.array(leaf)).requires_grad_() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STEPS)
def test_outputs_states_and_gradients_are_equal(name, dtype, backend):
    cell, step = STEPS[name]
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        params = draw_params(cell, I, H, dtype)
        task = draw_task(cell, I, H, dtype, lengths=False)
        ours = solve(cell, params, task, backend)
        weights, h0, (xs,) = leaves_to_torch(params), leaves_to_torch(task.h0), leaves_to_torch(task.xs)
        named, state, outputs = SimpleNamespace(**dict(zip(params._fields, weights, strict=True))), tuple(h0), []
        for t in range(xs.shape[1]):
            state = step(named, xs[:, t], state)
            outputs.append(state[0])
        ys = torch.stack(outputs, 1)
        loss = (ys * torch.from_numpy(np.array(task.ys_weights))).sum()
        last = leaves_to_torch(task.last_weights)
        (loss + sum((a * weight).sum() for a, weight in zip(state, last, strict=True))).backward()

        assert_close(ours.ys, ys.detach(), dtype, "outputs")
        for a, theirs in zip(jax.tree.leaves(ours.h_last), state, strict=True):
            assert_close(a, theirs.detach(), dtype, "final state")
        assert_close(ours.xs_gradient, xs.grad, dtype, "gradient of the inputs", gradient=True)
        for a, theirs in zip(jax.tree.leaves(ours.h0_gradient), h0, strict=True):
            assert_close(a, theirs.grad, dtype, "gradient of h0", gradient=True)
        for field, theirs in vars(named).items():
            assert_close(getattr(ours.params_gradient, field), theirs.grad, dtype, field, gradient=True)
        assert jnp.abs(ours.ys).max() > 0.1
