"""The reading of a compiled program, and what it estimates, against programs whose parts are known."""

import jax
import jax.numpy as jnp
import pytest

from jaxcon.planning.estimates import estimate, products_flop
from jaxcon.planning.programs import Shape, executed, parsed
from jaxcon.planning.topologies import CHIPS, chip_of, devices, missing

# A GPU's program, in the words of its compiler: seven turns of a fused product and of an update of a
# row of a buffer, and one plain product in float32.
GPU = """HloModule step, is_scheduled=true

%fused_product (p0: bf16[128,64], p1: bf16[64,256]) -> f32[128,256] {
  %p0 = bf16[128,64]{1,0} parameter(0)
  %p1 = bf16[64,256]{1,0} parameter(1)
  ROOT %dot.1 = f32[128,256]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_update (q0: f32[1000,8], q1: f32[1,8], q2: s32[]) -> f32[1000,8] {
  %q0 = f32[1000,8]{1,0} parameter(0)
  %q1 = f32[1,8]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %update.1 = f32[1000,8]{1,0} dynamic-update-slice(%q0, %q1, %q2, %zero)
}

%body (c: (s32[], f32[1000,8])) -> (s32[], f32[1000,8]) {
  %c = (s32[], f32[1000,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %buffer = f32[1000,8]{1,0} get-tuple-element(%c), index=1
  %a = bf16[128,64]{1,0} constant({...})
  %b = bf16[64,256]{1,0} constant({...})
  %row = f32[1,8]{1,0} constant({...})
  %product = f32[128,256]{1,0} fusion(%a, %b), kind=kCustom, calls=%fused_product
  %next = f32[1000,8]{1,0} fusion(%buffer, %row, %i), kind=kLoop, calls=%fused_update
  ROOT %out = (s32[], f32[1000,8]{1,0}) tuple(%i, %next)
}

%condition (d: (s32[], f32[1000,8])) -> pred[] {
  %d = (s32[], f32[1000,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%d), index=0
  %limit = s32[] constant(7)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (x: f32[32,16], y: f32[16,32]) -> f32[32,32] {
  %x = f32[32,16]{1,0} parameter(0)
  %y = f32[16,32]{1,0} parameter(1)
  %zero.1 = s32[] constant(0)
  %empty = f32[1000,8]{1,0} constant({...})
  %start = (s32[], f32[1000,8]{1,0}) tuple(%zero.1, %empty)
  %loop = (s32[], f32[1000,8]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %dot.2 = f32[32,32] dot(%x, %y), lhs_contracting_dims={1}, operand_precision={highest,highest}
}
"""


def test_bytes_of_arrays():
    assert Shape("bf16", (3, 5)).bytes == 30
    assert Shape("pred", (7,)).bytes == 7
    assert Shape("f32", ()).bytes == 4
    assert Shape("s4", (3,)).bytes == 2


def test_loops_are_counted_out():
    times = {op.name: n for op, n in executed(GPU)}
    assert (times["%product"], times["%less"], times["%dot.2"]) == (7, 7, 1)
    assert "%dot.1" not in times  # inside a kernel


def test_a_loop_that_ends_by_what_it_finds_is_not_counted():
    def halved(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) > 1, lambda x: jnp.sin(x / 2), x)

    text = jax.jit(halved).lower(jnp.ones(8)).compile().as_text()
    body = next(op for op, _ in executed(text) if op.opcode == "while").attribute("body")
    assert all(n == 0 for op, n in executed(text) if op in parsed(text).computations[body])


def test_a_roofline_of_known_kernels():
    chip = CHIPS["h100"]._replace(rate=1e-3, bandwidth=1e-3)  # so slow that launches are nothing
    product = 2 * 128 * 64 * 256 / 1e9
    moved = 2 * 32 + 4  # the row is read and written, the place read; the buffer is not
    compared = 4 + 4 + 1
    exact = 2 * 32 * 16 * 32 / (1e9 * 67 / 790)  # a product of float32 in full
    found = estimate(GPU, chip)
    assert found.kernels == 7 * 3 + 1
    seconds = 7 * (product + (moved + compared) / 1e9) + exact + 2.5e-6 * found.kernels
    assert found.ms == pytest.approx(1e3 * seconds, rel=1e-9)


# A convolution of four images of 8 x 8 pixels and its two gradients, as an NVIDIA library is called.
WINDOW = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
CALL = f'{WINDOW}, custom_call_target="__cudnn$conv'
IMAGES, KERNEL, OUTPUT = (
    "bf16[4,8,8,3]{3,2,1,0}",
    "bf16[3,3,3,16]{3,2,1,0}",
    "bf16[4,8,8,16]{3,2,1,0}",
)
CONVOLUTIONS = f"""HloModule step

ENTRY %main (x: bf16[4,8,8,3], k: bf16[3,3,3,16], g: bf16[4,8,8,16]) -> bf16[3,3,3,16] {{
  %x = {IMAGES} parameter(0)
  %k = {KERNEL} parameter(1)
  %g = {OUTPUT} parameter(2)
  %y = ({OUTPUT}, u8[0]{{0}}) custom-call(%x, %k), {CALL}Forward"
  %dx = ({IMAGES}, u8[0]{{0}}) custom-call(%g, %k), {CALL}BackwardInput"
  %dk = ({KERNEL}, u8[0]{{0}}) custom-call(%x, %g), {CALL}BackwardFilter"
  ROOT %out = {KERNEL} get-tuple-element(%dk), index=0
}}
"""


def test_a_convolution_and_its_gradients_take_the_same_products():
    inside = (3 * 8 - 2) ** 2  # pairs of an output and a place of its window that is not padding
    assert products_flop(CONVOLUTIONS) == 3 * 2 * (4 * 16 * 3) * inside


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_convolution_is_counted_as_xla_counts_it(stride, padding):
    def conv(x, k):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, k, (stride,) * 2, padding, dimension_numbers=layout)

    gradient = jax.jit(jax.grad(lambda *args: jnp.sum(conv(*args) ** 2), argnums=(0, 1)))
    program = gradient.lower(jnp.ones((2, 9, 7, 3)), jnp.ones((3, 3, 3, 4))).compile()
    rest = 2 * 9 * 7 * 4 * 8  # of the square and its gradient
    assert products_flop(program.as_text()) == pytest.approx(
        program.cost_analysis()["flops"], abs=rest
    )


def test_products_are_counted_as_often_as_they_run():
    assert products_flop(GPU) == 7 * 2 * 128 * 64 * 256 + 2 * 32 * 16 * 32


def test_the_part_of_a_scope_forward_and_backward():
    def step(x):
        with jax.named_scope("loss"):
            inner = jnp.sum(jnp.tanh(x @ x))
        return inner + jnp.sum(jnp.sin(x).T @ x)

    text = jax.jit(jax.grad(step)).lower(jnp.ones((64, 64))).compile().as_text()
    whole, part = (estimate(text, CHIPS["h100"], scope=scope).ms for scope in (None, "loss"))
    assert 0.3 * whole < part < 0.9 * whole
    assert estimate(text, CHIPS["h100"], scope="los").ms == 0


def test_a_text_that_is_no_program():
    with pytest.raises(ValueError, match="expected the text of a compiled program"):
        parsed("nothing")


def test_a_chip_that_nobody_knows():
    with pytest.raises(ValueError, match="one of v5e, v5p, v6e, h100, got 'v9:2x2'"):
        chip_of("v9:2x2")


@pytest.mark.parametrize("name", CHIPS)
def test_devices_or_how_to_get_the_compiler(name):
    if missing(CHIPS[name].platform) is None:
        pytest.skip("its compiler is here; tests/planning/test_compiled.py uses it")
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        devices(name)


def test_what_data_decides_counts_at_its_least():
    def rarely(x):
        def repair(x):
            return jax.lax.fori_loop(0, 50, lambda i, y: y @ y, x)

        x = jax.lax.cond(jnp.any(jnp.isnan(x)), repair, lambda x: x, x)
        return jax.lax.while_loop(lambda y: jnp.any(y > 9), lambda y: y @ y / 2, x @ x)

    text = jax.jit(rarely).lower(jnp.ones((8, 8))).compile().as_text() or ""
    assert {op.opcode for op, _ in executed(text)} >= {"conditional", "while"}
    assert sum(times for _, times in executed(text)) < 50
