// The tiles of AMX in software, after Intel's Software Developer's Manual (volume 2, "TILECFG" and
// the pages of the instructions).

#pragma once

#include <cstdint>

#include "products.h"

namespace amx {

constexpr int TILES = 8;

/// The operand of LDTILECFG and STTILECFG. A tile without rows is unused.
struct alignas(64) TileConfig {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    /// Bytes of a row of each tile. The second half is reserved, here and below.
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64);

/// The tiles and the configuration of one thread. The functions execute one instruction each. They
/// return false and change nothing if a processor would raise an exception.
///
/// A tile's bytes beyond its configured rows and columns are zero: LDTILECFG zeroes all tiles, and
/// the other instructions write only within the configured shape.
class Tiles {
  public:
    /// LDTILECFG, with palettes 0 (no tiles) and 1. `start_row` must be 0: only an interrupted
    /// TILELOADD or TILESTORED sets it.
    bool load_config(const void *from);
    /// STTILECFG.
    bool store_config(void *to) const;
    /// TILERELEASE.
    bool release();
    /// TILEZERO.
    bool zero(int tile);
    /// TILELOADD: row i begins i * stride bytes after `from`.
    bool load(int tile, const char *from, int64_t stride);
    /// TILESTORED.
    bool store(int tile, char *to, int64_t stride) const;
    /// TDPBSSD, TDPBSUD, TDPBUSD and TDPBUUD.
    bool multiply_bytes(int sums, int left, bool left_signed, int right, bool right_signed);
    /// TDPBF16PS.
    bool multiply_bf16(int sums, int left, int right);

  private:
    bool is_valid(int tile) const;
    bool can_multiply(int sums, int left, int right) const;
    Shape shape_of(int sums, int right) const;

    TileConfig config{};
    Tile data[TILES]{};
};

} // namespace amx
