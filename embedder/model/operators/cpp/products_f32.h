// Products of float32 by registers of either width.

#pragma once

#include "rows.h"

namespace {

/// SOME rows of A (SOME, depth), each STRIDE elements after the one before, times WIDTH registers of the columns of a panel
/// (depth, PANEL), into as much of a tile (SOME, PANEL). The sums stay in registers: SOME x WIDTH, beside WIDTH of the panel and
/// one value of A. Inlined, it would have to leave registers to what is around it.
template <int STRIDE, int SOME, int WIDTH>
[[gnu::noinline]] void multiply_rows(const float *a, int64_t depth, const float *panel, float *tile) {
    Floats sums[SOME][WIDTH] = {};
    for (int64_t k = 0; k < depth; k++) {
        Floats weights[WIDTH];
        _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
            weights[part] = load(panel + k * muse::PANEL + part * LANES);
        }
        _Pragma("GCC unroll 14") for (int row = 0; row < SOME; row++) {
            const Floats value = all(a[row * STRIDE + k]);
            _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
                sums[row][part] = multiply_add(value, weights[part], sums[row][part]);
            }
        }
    }
    _Pragma("GCC unroll 14") for (int row = 0; row < SOME; row++) {
        _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
            store(tile + row * muse::PANEL + part * LANES, sums[row][part]);
        }
    }
}

} // namespace
