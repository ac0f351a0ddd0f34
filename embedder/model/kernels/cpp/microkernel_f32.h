// The float32 microkernel of AVX2 and AVX-512.

#pragma once

#include "rows.h"

namespace {

/// Number of floats in a register.
constexpr int WIDTH = sizeof(Register) / sizeof(float);

/// Multiplies A (ROWS, depth) by COLUMNS registers of columns of a panel (depth, PANEL) and stores
/// the products in the same columns of a tile (ROWS, PANEL). Row i of A begins STRIDE elements after
/// row i - 1. The accumulators stay in ROWS x COLUMNS registers; COLUMNS registers hold the panel
/// and one holds the value of A. Not inlined, because the surrounding code would take registers from
/// it. Prefetches the half panel at `next`.
template <int STRIDE, int ROWS, int COLUMNS>
[[gnu::noinline]] void multiply_rows(const float *a, int64_t depth, const float *panel, const float *next, float *tile) {
    Register sums[ROWS][COLUMNS] = {};
    for (int64_t k = 0; k < depth; k++) {
        prefetch(next + k * muse::PANEL / 2);
        Register weights[COLUMNS];
        _Pragma("GCC unroll 4") for (int part = 0; part < COLUMNS; part++) {
            weights[part] = load_register(panel + k * muse::PANEL + part * WIDTH);
        }
        _Pragma("GCC unroll 14") for (int row = 0; row < ROWS; row++) {
            const Register value = broadcast_register(a[row * STRIDE + k]);
            _Pragma("GCC unroll 4") for (int part = 0; part < COLUMNS; part++) {
                sums[row][part] = multiply_add_registers(value, weights[part], sums[row][part]);
            }
        }
    }
    _Pragma("GCC unroll 14") for (int row = 0; row < ROWS; row++) {
        _Pragma("GCC unroll 4") for (int part = 0; part < COLUMNS; part++) {
            store_register(tile + row * muse::PANEL + part * WIDTH, sums[row][part]);
        }
    }
}

} // namespace
