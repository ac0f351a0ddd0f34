// The products of tiles. They access no other memory, so they are compiled without sanitizers, which
// would slow them down.

#pragma once

#include <cstdint>

namespace amx {

constexpr int MOST_ROWS = 16, ROW_BYTES = 64;

using Tile = uint8_t[MOST_ROWS][ROW_BYTES];

/// The shapes of a product: sums (rows, columns) += left (rows, depth) x right (depth, columns), in
/// elements of 4 bytes.
struct Shape {
    int rows, depth, columns;
};

/// Adds to each sum of 32 bits the products of the 4 bytes of each element, modulo 2^32.
void multiply_bytes(Tile &sums, const Tile &left, bool left_signed, const Tile &right, bool right_signed, Shape shape);

/// Adds to each float32 the products of the 2 bfloat16 of each element: those of all first halves and
/// those of all second halves are summed up separately, with fused multiply-adds, before the two sums
/// are added up, and then the old value. Denormal numbers count as zero.
void multiply_bf16(Tile &sums, const Tile &left, const Tile &right, Shape shape);

} // namespace amx
