"""The training step of the suite "train" in PyTorch."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.benchmarks.program import Outcome, Program
from experiments.benchmarks.torch_device import torch_device
from experiments.config import OptimizerConfig
from experiments.training.devices import available_cores

FLOAT32, AUTOCAST = "torch", "torch autocast"
"""In float32, and under automatic mixed precision in bfloat16."""


def torch_program(
    library: str,
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    layers: int,
    optimizer: OptimizerConfig,
    checked: Callable[[Callable[[], float]], Outcome],
) -> Program:
    """Makes the program.

    Args:
      library: `FLOAT32` or `AUTOCAST`.
      weights: "embedding.weight" (V, I), "softmax.weight" (V, H), "softmax.bias" (V,), and the GRU's after "gru.".
      batch: "inputs" and "targets" (B, T).
      layers: L.
      optimizer: Adam with clipping.
      checked: makes an outcome of a function that takes one step from fresh weights on, and returns its loss.
    """

    def outcome():
        return checked(training_step(library, weights, batch, layers, optimizer, one_bias=True))

    call = training_step(library, weights, batch, layers, optimizer)
    return Program(library, "float32" if library == FLOAT32 else "bfloat16", call, outcome)


def training_step(
    library: str,
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    layers: int,
    optimizer: OptimizerConfig,
    one_bias: bool = False,
) -> Callable[[], float]:
    """Returns a function that takes the next training step on the batch and returns its loss.

    Args:
      library, weights, batch, layers, optimizer: see `torch_program`.
      one_bias: whether to hold the second bias of r and z still, so that the model has the parameters of ours.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(available_cores())
    device, autocast = torch_device(), library == AUTOCAST
    V, I = weights["embedding.weight"].shape
    H = weights["softmax.weight"].shape[1]
    model = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(V, I),
            "gru": torch.nn.GRU(I, H, num_layers=layers, batch_first=True),
            "softmax": torch.nn.Linear(H, V),
        }
    )
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    model.to(device)
    if one_bias:
        still = (torch.arange(3 * H, device=device) >= 2 * H).float()
        for layer in range(layers):
            getattr(model["gru"], f"bias_hh_l{layer}").register_hook(lambda gradient: gradient * still)
    rule = torch.optim.Adam(
        model.parameters(),
        lr=optimizer.learning_rate,
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.epsilon,
        fused=True,
    )
    inputs, targets = (torch.tensor(batch[name]).long().to(device) for name in ("inputs", "targets"))
    carry = torch.zeros(layers, inputs.shape[0], H, device=device)

    def step() -> float:
        nonlocal carry
        rule.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            ys, carry = model["gru"](model["embedding"](inputs), carry)
            logits = model["softmax"](ys)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        rule.step()
        carry = carry.detach()
        return loss.item()

    return step
