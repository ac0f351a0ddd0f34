// float32 with AVX-512.

#pragma once

#include "microkernel_f32.h"

namespace {

struct Avx512F32 {
    using Element = float;
    // 31 of 32 registers: 14 x 2 accumulators, 2 registers of the panel, 1 value of A.
    static constexpr int ROWS = 14;
    static constexpr int BLOCKS = 10;
    struct Session {};

    template <int STRIDE>
    static void microkernel(const float *a, int64_t rows, int64_t depth, const float *b, const float *next, float *tile) {
        if (rows > 8) return multiply_rows<STRIDE, ROWS, 2>(a, depth, b, next, tile);
        if (rows > 4) return multiply_rows<STRIDE, 8, 2>(a, depth, b, next, tile);
        if (rows > 1) return multiply_rows<STRIDE, 4, 2>(a, depth, b, next, tile);
        return multiply_rows<STRIDE, 1, 2>(a, depth, b, next, tile);
    }
};

} // namespace
