"""Byte look-ups in registers, and other instructions that numba lacks.

A level's table has 256 bytes: four registers of 64, from which AVX-512 VBMI looks up 64 rows in two instructions. The
rest is written in LLVM's portable vectors.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target

from alula.kernels.code_index.layout import CODE_BLOCK
from alula.kernels.simd import intrinsic

LANES = 64  # rows per instruction
HALF_TO_FLOAT = 2.0**112  # the exponents' biases differ by that


def has_registers() -> bool:
    """True if numba compiles for AVX-512 VBMI; False under ``NUMBA_CPU_NAME``."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return numba.config.CPU_NAME is None and "+avx512vbmi" in features.split(",")


@intrinsic
def add_in_registers(typingctx: Any, codes: Any, block: Any, tables: Any, levels: Any, sums: Any) -> Any:
    """Add one block's look-ups in registers, by AVX-512 VBMI: uint16 (CODE_BLOCK,).

    Arguments as of `loops_numba._add_one_by_one`. Sums of even and odd rows are kept apart, in
    halves of 16 bits, which needs no unpacking.
    """
    del typingctx, block, levels

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, byte = ir.IntType(64), ir.VectorType(ir.IntType(8), LANES)
        half, both = ir.VectorType(ir.IntType(16), LANES // 2), ir.VectorType(ir.IntType(16), LANES)
        arrays = dict(zip(("codes", "block", "tables", "levels", "sums"), arguments, strict=True))
        for place, name in ((0, "codes"), (2, "tables"), (4, "sums")):
            arrays[name] = context.make_array(signature.args[place])(context, builder, arrays[name])
        look_up = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(byte, [byte] * 3), "llvm.x86.avx512.vpermi2var.qi.512"
        )
        low_byte, one_byte = ir.Constant(half, [255] * (LANES // 2)), ir.Constant(half, [8] * (LANES // 2))

        def load(start: Any, at: int) -> Any:
            place = builder.gep(start, [ir.Constant(number, at)])
            return builder.load(builder.bitcast(place, byte.as_pointer()), align=1)

        stored = cgutils.unpack_tuple(builder, arrays["codes"].shape, 3)[1]
        first = builder.mul(builder.mul(arrays["block"], stored), ir.Constant(number, CODE_BLOCK))
        first = builder.gep(arrays["codes"].data, [first])

        before, loop = builder.block, builder.append_basic_block("level")
        after = builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        level = builder.phi(number)
        level.add_incoming(ir.Constant(number, 0), before)
        totals = [builder.phi(half) for _ in range(CODE_BLOCK // LANES * 2)]
        table = builder.gep(arrays["tables"].data, [builder.mul(level, ir.Constant(number, 256))])
        quarters = [load(table, LANES * i) for i in range(4)]
        column = builder.gep(first, [builder.mul(level, ir.Constant(number, CODE_BLOCK))])
        added = []
        for i in range(CODE_BLOCK // LANES):
            code = load(column, LANES * i)
            lower = builder.call(look_up, [quarters[0], code, quarters[1]])
            upper = builder.call(look_up, [quarters[2], code, quarters[3]])
            is_upper = builder.icmp_signed("<", code, ir.Constant(byte, None))
            looked_up = builder.bitcast(builder.select(is_upper, upper, lower), half)
            added.append(builder.add(totals[2 * i], builder.and_(looked_up, low_byte)))
            added.append(builder.add(totals[2 * i + 1], builder.lshr(looked_up, one_byte)))
        following = builder.add(level, ir.Constant(number, 1))
        level.add_incoming(following, loop)
        for total, new in zip(totals, added, strict=True):
            total.add_incoming(ir.Constant(half, None), before)
            total.add_incoming(new, loop)
        builder.cbranch(builder.icmp_signed("<", following, arrays["levels"]), loop, after)

        builder.position_at_end(after)
        turns = [i // 2 + LANES // 2 * (i % 2) for i in range(LANES)]
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), turns)
        for i in range(CODE_BLOCK // LANES):
            place = builder.gep(arrays["sums"].data, [ir.Constant(number, LANES * i)])
            in_order = builder.shuffle_vector(added[2 * i], added[2 * i + 1], order)
            builder.store(in_order, builder.bitcast(place, both.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(codes, types.intp, tables, types.intp, sums), generate


@intrinsic
def reach(typingctx: Any, sums: Any, norms: Any, block: Any, first: Any, a: Any, b: Any, least: Any) -> Any:
    """Test ``sum >= least + (a + b norm) norm`` for `LANES` rows: a uint64 mask.

    The first row is the lowest bit. NaN lets all rows pass.
    """
    del typingctx, block, first, a, b, least

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, word = ir.IntType(64), ir.IntType(32)
        halves, words, floats = (ir.VectorType(kind, LANES) for kind in (ir.IntType(16), word, ir.FloatType()))
        sums, norms = (context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1))
        block, first, *rest = arguments[2:]

        def load(start: Any, at: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(start, [at]), halves.as_pointer()), align=2)

        def everywhere(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(floats, ir.Undefined), value, word(0))
            return builder.shuffle_vector(one, one, ir.Constant(words, [0] * LANES))

        a, b, least = (everywhere(value) for value in rest)
        at = builder.add(builder.mul(block, number(CODE_BLOCK)), first)
        shifted = builder.shl(builder.zext(load(norms, at), words), ir.Constant(words, [13] * LANES))
        norm = builder.fmul(builder.bitcast(shifted, floats), ir.Constant(floats, [HALF_TO_FLOAT] * LANES))
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(floats, [floats] * 3), f"llvm.fmuladd.v{LANES}f32"
        )
        wanted = builder.call(multiply_add, [builder.call(multiply_add, [b, norm, a]), norm, least])
        total = builder.uitofp(builder.zext(load(sums, first), words), floats)
        passes = builder.fcmp_unordered(">=", total, wanted)
        return builder.bitcast(passes, number)

    numbers, reals = [types.int64] * 2, [types.float32] * 3
    return types.uint64(sums, norms, *numbers, *reals), generate


@intrinsic
def float_bits(typingctx: Any, value: Any) -> Any:
    """Reinterpret a float32 as uint32."""
    del typingctx, value
    return types.uint32(types.float32), lambda _, builder, __, values: builder.bitcast(values[0], ir.IntType(32))


@intrinsic
def bits_float(typingctx: Any, value: Any) -> Any:
    """Reinterpret a uint32 as float32."""
    del typingctx, value
    return types.float32(types.uint32), lambda _, builder, __, values: builder.bitcast(values[0], ir.FloatType())
