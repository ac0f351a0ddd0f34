#include "products.h"

#include <cfloat>
#include <cmath>
#include <cstring>

namespace amx {

namespace {

/// Elements of a row of a tile.
constexpr int ELEMENTS = ROW_BYTES / 4;

template <class Value> Value read(const uint8_t *row, int index) {
    Value value;
    std::memcpy(&value, row + index * sizeof(Value), sizeof(Value));
    return value;
}

/// Denormal inputs count as zero, and denormal results become zero.
float flush(float value) { return std::fabs(value) < FLT_MIN ? std::copysign(0.0f, value) : value; }

float add(float a, float b) { return flush(flush(a) + flush(b)); }

/// Rounded once. The inputs are flushed.
float multiply_add(float a, float b, float c) { return flush(std::fma(a, b, c)); }

float read_bf16(const uint8_t *row, int index) {
    const uint32_t bits = static_cast<uint32_t>(read<uint16_t>(row, index)) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return flush(value);
}

int32_t widen(uint8_t byte, bool is_signed) { return is_signed ? static_cast<int8_t>(byte) : byte; }

} // namespace

void multiply_bytes(Tile &sums, const Tile &left, bool left_signed, const Tile &right, bool right_signed, Shape shape) {
    int32_t factors[MOST_ROWS][4][ELEMENTS];
    for (int k = 0; k < shape.depth; k++) {
        for (int column = 0; column < ELEMENTS; column++) {
            for (int byte = 0; byte < 4; byte++) factors[k][byte][column] = widen(right[k][column * 4 + byte], right_signed);
        }
    }
    for (int row = 0; row < shape.rows; row++) {
        uint32_t totals[ELEMENTS];
        std::memcpy(totals, sums[row], ROW_BYTES);
        for (int k = 0; k < shape.depth; k++) {
            for (int byte = 0; byte < 4; byte++) {
                const int32_t factor = widen(left[row][k * 4 + byte], left_signed);
                for (int column = 0; column < ELEMENTS; column++) totals[column] += factor * factors[k][byte][column];
            }
        }
        std::memcpy(sums[row], totals, shape.columns * 4);
    }
}

void multiply_bf16(Tile &sums, const Tile &left, const Tile &right, Shape shape) {
    float factors[MOST_ROWS][2][ELEMENTS];
    for (int k = 0; k < shape.depth; k++) {
        for (int column = 0; column < ELEMENTS; column++) {
            for (int half = 0; half < 2; half++) factors[k][half][column] = read_bf16(right[k], column * 2 + half);
        }
    }
    for (int row = 0; row < shape.rows; row++) {
        float totals[2][ELEMENTS] = {}, all[ELEMENTS];
        std::memcpy(all, sums[row], ROW_BYTES);
        for (int k = 0; k < shape.depth; k++) {
            for (int half = 0; half < 2; half++) {
                const float factor = read_bf16(left[row], k * 2 + half);
                for (int column = 0; column < ELEMENTS; column++) {
                    totals[half][column] = multiply_add(factor, factors[k][half][column], totals[half][column]);
                }
            }
        }
        for (int column = 0; column < ELEMENTS; column++) all[column] = add(all[column], add(totals[0][column], totals[1][column]));
        std::memcpy(sums[row], all, shape.columns * 4);
    }
}

} // namespace amx
