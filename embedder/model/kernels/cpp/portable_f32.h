// float32 in plain C++, for processors without a kernel of their own and as the reference of the
// others. The processor must have fused multiply-adds; a library function would be far too slow.

#pragma once

#include "encoder.h"

namespace {

struct PortableF32 {
    using Element = float;
    static constexpr int ROWS = 4;
    static constexpr int BLOCKS = 16;
    struct Session {};

    template <int STRIDE>
    static void microkernel(const float *a, int64_t rows, int64_t depth, const float *b, const float *, float *tile) {
        for (int64_t row = 0; row < rows; row++) {
            Floats sums[VECTORS] = {};
            for (int64_t k = 0; k < depth; k++) {
                const Floats value = broadcast(a[row * STRIDE + k]);
                for (int part = 0; part < VECTORS; part++) {
                    sums[part] = multiply_add(value, load(b + k * muse::PANEL + part * LANES), sums[part]);
                }
            }
            for (int part = 0; part < VECTORS; part++) store(tile + row * muse::PANEL + part * LANES, sums[part]);
        }
    }
};

} // namespace
