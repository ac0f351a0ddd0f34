// The float32 microkernel, for AVX2 and AVX-512.

#pragma once

#include "rows.h"

namespace {

/// Multiplies A (ROWS, depth) by WIDTH registers of columns of a panel (depth, PANEL) and stores
/// the products in the same columns of a tile (ROWS, PANEL). Row i of A begins STRIDE elements
/// after row i - 1. The accumulators stay in ROWS x WIDTH registers; WIDTH registers hold the panel
/// and one holds the value of A. Not inlined, because the surrounding code would take registers
/// from it.
template <int STRIDE, int ROWS, int WIDTH>
[[gnu::noinline]] void multiply_rows(const float *a, int64_t depth, const float *panel, float *tile) {
    Floats sums[ROWS][WIDTH] = {};
    for (int64_t k = 0; k < depth; k++) {
        Floats weights[WIDTH];
        _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
            weights[part] = load(panel + k * muse::PANEL + part * LANES);
        }
        _Pragma("GCC unroll 14") for (int row = 0; row < ROWS; row++) {
            const Floats value = broadcast(a[row * STRIDE + k]);
            _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
                sums[row][part] = multiply_add(value, weights[part], sums[row][part]);
            }
        }
    }
    _Pragma("GCC unroll 14") for (int row = 0; row < ROWS; row++) {
        _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
            store(tile + row * muse::PANEL + part * LANES, sums[row][part]);
        }
    }
}

} // namespace
