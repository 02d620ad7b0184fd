"""Loops, products, kernels and transpositions are found in the text of compiled programs."""

import jax
import jax.numpy as jnp

from experiments.benchmarks import ahead_of_time

TEXT = """\
HloModule jit_f, entry_computation_layout={(f32[2]{0})->f32[2]{0}}

%fused (param_0: f32[64,512], param_1: bf16[512,1536]) -> f32[64,1536] {
  %param_0 = f32[64,512]{1,0:T(8,128)} parameter(0)
  %param_1 = bf16[512,1536]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %convolution.9 = f32[64,1536]{1,0:T(8,128)S(1)} convolution(%param_0, %param_1), dim_labels=bf_io->bf
}

%body (arg: (s32[], f32[64,512], bf16[512,1536])) -> (s32[], f32[64,512], bf16[512,1536]) {
  %arg = (s32[]{:T(128)}, f32[64,512]{1,0:T(8,128)}, bf16[512,1536]{1,0}) parameter(0)
  %h = f32[64,512]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %U = bf16[512,1536]{1,0} get-tuple-element(%arg), index=2
  %fusion.1 = f32[64,1536]{1,0:T(8,128)S(1)} fusion(%h, %U), kind=kOutput, calls=%fused
  ROOT %tuple = (s32[], f32[64,512]{1,0}, bf16[512,1536]{1,0}) tuple(%h, %h, %U)
}

%cond (arg.1: (s32[], f32[64,512], bf16[512,1536])) -> pred[] {
  ROOT %lt = pred[]{:T(256)} constant(true)
}

ENTRY %main (xs: f32[128,64,256]) -> f32[128,64,256] {
  %xs = f32[128,64,256]{2,1,0:T(8,128)} parameter(0)
  %copy.1 = f32[128,64,256]{2,0,1:T(8,128)} copy(%xs)
  %copy.2 = f32[128,64,256]{2,1,0:T(8,128)S(1)} copy(%xs)
  %transpose.1 = f32[64,128,256]{2,1,0:T(8,128)} transpose(%xs), dimensions={1,0,2}
  %transpose.2 = f32[64,128,256]{2,0,1:T(8,128)} transpose(%xs), dimensions={1,0,2}
  %while.1 = (s32[], f32[64,512]{1,0}, bf16[512,1536]{1,0}) while(%xs), condition=%cond, body=%body
  ROOT %r = f32[128,64,256]{2,1,0} bitcast(%xs)
}
"""


def test_loops_products_and_kernels_are_counted():
    module = ahead_of_time.parse(TEXT)
    assert ahead_of_time.step_loops(module) == ["body"]
    assert [product.shape for product in ahead_of_time.products(module, "body")] == [(64, 1536)]
    assert ahead_of_time.kernels(module, "body") == 1


def test_transpositions_change_the_order_in_memory():
    module = ahead_of_time.parse(TEXT)
    assert [i.name for i in ahead_of_time.transpositions(module, 128 * 64 * 256)] == ["copy.1", "transpose.1"]
    assert ahead_of_time.transpositions(module, 128 * 64 * 256 + 1) == []


def test_program_compiled_on_this_machine_is_read():
    def loop(U, xs):
        return jax.lax.scan(lambda h, x: (jnp.tanh(h @ U + x), None), xs[0], xs)[0]

    gradient = jax.jit(jax.grad(lambda U, xs: loop(U, xs).sum()))
    text = gradient.lower(jnp.ones((8, 8)), jnp.ones((5, 3, 8))).compile().as_text()
    module = ahead_of_time.parse(text)
    loops = ahead_of_time.step_loops(module)
    assert len(loops) == 2
    shapes = {product.shape for loop in loops for product in ahead_of_time.products(module, loop)}
    assert (8, 8) in shapes  # a plain scan accumulates the weight gradient in the loop
