// The microkernel of AMX: tiles of 16 rows of 64 bytes.

#pragma once

#include <immintrin.h>

#include "kernel.h"

namespace {

/// Configures 8 tiles on this thread, and releases them at the end.
struct TileSession {
    TileSession() {
        struct alignas(64) {
            unsigned char palette = 1, start_row = 0, reserved[14] = {};
            unsigned short bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        // _tile_loadconfig of GCC 12 declares only the first 8 bytes as its input.
        asm volatile("" ::"m"(config));
        _tile_loadconfig(&config);
    }
    ~TileSession() { _tile_release(); }
};

/// The microkernel. Tiles 0 to 3 accumulate 2 x 2 blocks of 16 rows and 16 columns, 4 and 5 contain
/// rows of A, 6 and 7 columns of B. Product has
///   upper()   adds tile 4 x tile 6 to tile 0, and tile 4 x tile 7 to tile 1
///   lower()   adds tile 5 x tile 6 to tile 2, and tile 5 x tile 7 to tile 3
template <class Product> struct TileMicrokernel {
    static constexpr int ROWS = 32;
    static constexpr int BLOCKS = 4;
    using Session = TileSession;

    template <int STRIDE, class A, class B, class Sum>
    static void microkernel(const A *a, int64_t rows, int64_t depth, const B *b, Sum *tile) {
        if (rows > 16) return multiply_tiles<STRIDE, true>(a, depth, b, tile);
        return multiply_tiles<STRIDE, false>(a, depth, b, tile);
    }

  private:
    /// LOWER: the second block of 16 rows is computed, too.
    template <int STRIDE, bool LOWER, class A, class B, class Sum>
    static void multiply_tiles(const A *a, int64_t depth, const B *b, Sum *tile) {
        // Elements of a row of a tile.
        constexpr int64_t WIDTH = 64 / sizeof(A);
        // _tile_loadd of GCC does not declare that it reads memory: the compiler could store A later.
        asm volatile("" ::: "memory");
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (LOWER) {
            _tile_zero(2);
            _tile_zero(3);
        }
        for (int64_t k = 0; k < depth; k += WIDTH) {
            _tile_loadd(4, a + k, STRIDE * sizeof(A));
            _tile_loadd(6, b + k * muse::PANEL, 128);
            _tile_loadd(7, b + k * muse::PANEL + WIDTH, 128);
            Product::upper();
            if constexpr (LOWER) {
                _tile_loadd(5, a + k + 16 * STRIDE, STRIDE * sizeof(A));
                Product::lower();
            }
        }
        _tile_stored(0, tile, 128);
        _tile_stored(1, tile + 16, 128);
        if constexpr (LOWER) {
            _tile_stored(2, tile + 16 * muse::PANEL, 128);
            _tile_stored(3, tile + 16 * muse::PANEL + 16, 128);
        }
    }
};

} // namespace
