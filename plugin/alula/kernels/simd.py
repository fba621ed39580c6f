"""Instructions that numba lacks: vector comparisons as bit masks, prefetching.

Written in LLVM's own portable vectors, so LLVM picks AVX-512, AVX2, SSE or NEON; the results are the same on all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba import types
from numba.core import cgutils

from alula.kernels.constants import FLOAT_LANES

MASK_BITS = 64  # values that one mask covers
LANES = FLOAT_LANES
WIDTHS = (128, 64)  # bytes that are multiplied at once


def intrinsic(typed: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function that emits its own LLVM instructions."""
    made: Callable[..., Any] = numba.extending.intrinsic(typed)
    return made


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def at_least(typingctx: Any, array: Any, start: Any, bound: Any) -> Any:
    """Compare array[start : start + 64] >= bound; uint64, the first in the lowest bit."""
    del typingctx
    width = array.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = ir.IntType(width)
        vector = ir.VectorType(element, MASK_BITS)
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        values = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=width // 8)
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[2], ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), MASK_BITS), [0] * MASK_BITS)
        bounds = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)
        mask = builder.icmp_unsigned(">=", values, bounds)
        return builder.bitcast(mask, ir.IntType(64))

    return types.uint64(array, types.uint64, array.dtype), generate


@intrinsic
def count_ones(typingctx: Any, mask: Any) -> Any:
    """Count the set bits of a uint64."""
    del typingctx, mask

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def lowest_one(typingctx: Any, mask: Any) -> Any:
    """The place of the lowest set bit of a uint64, 64 for 0."""
    del typingctx, mask

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.uint64(types.uint64), generate


@intrinsic
def prefetch(typingctx: Any, array: Any, start: Any) -> Any:
    """Prefetch the cache line of array[start] (of a flat array)."""
    del typingctx

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], arguments[0], arguments[1]), byte)
        number = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], function_type)
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, size: int) -> Any:
    """array[index : index + size] of a flat array as a vector."""
    element = context.get_data_type(array_type.dtype)
    pointer = _pointer(context, builder, array_type, array, index)
    vector = ir.VectorType(element, size)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=array_type.dtype.bitwidth // 8)


def _halve(builder: Any, vector: Any) -> tuple[Any, Any]:
    half = vector.type.count // 2
    number = ir.IntType(32)
    masks = [ir.Constant(ir.VectorType(number, half), list(range(start, start + half))) for start in (0, half)]
    low, high = (builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask) for mask in masks)
    return low, high


def _float_lanes(squared_difference: bool) -> Any:
    """Sum products or squared differences in 16 lanes, then add the lanes by halves."""

    def typed(typingctx: Any, one: Any, first: Any, other: Any, second: Any, steps: Any) -> Any:
        del typingctx

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, at_a, b, at_b, count = arguments
            vector = ir.VectorType(ir.FloatType(), LANES)
            total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * LANES))
            with cgutils.for_range(builder, count, intp=ir.IntType(64)) as loop:
                offset = builder.mul(loop.index, ir.IntType(64)(LANES))
                x = _load(context, builder, signature.args[0], a, builder.add(at_a, offset), LANES)
                y = _load(context, builder, signature.args[2], b, builder.add(at_b, offset), LANES)
                if squared_difference:
                    x = y = builder.fsub(x, y)
                builder.store(builder.fadd(builder.load(total), builder.fmul(x, y)), total)
            lanes = builder.load(total)
            while lanes.type.count > 1:
                lanes = builder.fadd(*_halve(builder, lanes))
            return builder.extract_element(lanes, ir.IntType(32)(0))

        return types.float32(one, types.uint64, other, types.uint64, types.uint64), generate

    return typed


lane_products = intrinsic(_float_lanes(squared_difference=False))
lane_distances = intrinsic(_float_lanes(squared_difference=True))


@intrinsic
def byte_products(typingctx: Any, codes: Any, first: Any, query: Any, size: Any) -> Any:
    """Multiply uint8 codes[first : first + size] with int8 query[:size]: int32.

    The size is a multiple of 64.
    """
    del typingctx

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, start, other, size = arguments
        long, number = ir.IntType(64), ir.IntType(32)
        total = cgutils.alloca_once_value(builder, number(0))
        done = cgutils.alloca_once_value(builder, long(0))

        def add(width: int) -> None:
            wide = ir.VectorType(number, width)
            name = f"llvm.vector.reduce.add.v{width}i32"
            reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(number, [wide]), name)
            steps = builder.udiv(builder.sub(size, builder.load(done)), long(width))
            begin = builder.load(done)
            with cgutils.for_range(builder, steps, intp=long) as loop:
                offset = builder.add(begin, builder.mul(loop.index, long(width)))
                x = _load(context, builder, signature.args[0], array, builder.add(start, offset), width)
                y = _load(context, builder, signature.args[2], other, offset, width)
                product = builder.mul(builder.zext(x, wide), builder.sext(y, wide), flags=["nsw"])
                builder.store(builder.add(builder.load(total), builder.call(reduce, [product])), total)
            builder.store(builder.add(begin, builder.mul(steps, long(width))), done)

        for width in WIDTHS:
            add(width)
        return builder.load(total)

    return types.int32(codes, types.uint64, query, types.uint64), generate
