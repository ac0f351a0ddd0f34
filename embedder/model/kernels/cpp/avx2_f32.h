// float32 with AVX2 and FMA.

#pragma once

#include "microkernel_f32.h"

namespace {

struct Avx2F32 {
    using Element = float;
    // 15 of 16 registers: 6 x 2 accumulators, 2 registers of the panel, 1 value of A.
    static constexpr int ROWS = 6;
    static constexpr int BLOCKS = 24;
    struct Session {};

    template <int STRIDE>
    static void microkernel(const float *a, int64_t rows, int64_t depth, const float *b, const float *next, float *tile) {
        if (rows == 1) return multiply_rows<STRIDE, 1, 4>(a, depth, b, next, tile);
        if (rows <= 3) return multiply_rows<STRIDE, 3, 4>(a, depth, b, next, tile);
        for (int half = 0; half < muse::PANEL; half += 2 * WIDTH) {
            multiply_rows<STRIDE, ROWS, 2>(a, depth, b + half, next, tile + half);
        }
    }
};

} // namespace
