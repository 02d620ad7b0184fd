"""How XLA compiles a loop over time for an NVIDIA GPU."""

from collections.abc import Mapping
from types import MappingProxyType

CUDA_GRAPHS: Mapping[str, str | int | bool] = MappingProxyType(
    {
        "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION,WHILE",
        "xla_gpu_graph_min_graph_size": 1,
        "xla_gpu_command_buffer_unroll_loops": True,
    }
)
"""Compiler options with which a whole loop over time becomes one CUDA graph, launched at once.

A step of a recurrent layer is a few kernels of some microseconds each, which XLA otherwise launches one by one, and a
GPU waits longer for the next launch than a kernel takes. Options belong to the outermost `jit`, which is the caller's:

    step = jax.jit(train_step, compiler_options=dict(gru_jax.CUDA_GRAPHS))

They change nothing but the time.
"""
