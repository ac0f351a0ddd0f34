// The configuration of AMX tiles.

#pragma once

#include <immintrin.h>

namespace {

/// Configures 8 tiles of 16 rows of 64 bytes on this thread, and releases them at the end.
struct TileSession {
    TileSession() {
        struct alignas(64) {
            unsigned char palette = 1, start_row = 0, reserved[14] = {};
            unsigned short bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            unsigned char rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        _tile_loadconfig(&config);
    }
    ~TileSession() { _tile_release(); }
};

} // namespace
