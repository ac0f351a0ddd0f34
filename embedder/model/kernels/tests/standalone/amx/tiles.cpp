#include "tiles.h"

#include <cstring>

namespace amx {

namespace {

bool is_zero(const void *bytes, size_t count) {
    const uint8_t *all = static_cast<const uint8_t *>(bytes);
    for (size_t i = 0; i < count; i++) {
        if (all[i] != 0) return false;
    }
    return true;
}

/// Whether LDTILECFG accepts the configuration, whose palette is 1.
bool is_valid_config(const TileConfig &config) {
    bool valid = config.start_row == 0 && is_zero(config.reserved, sizeof(config.reserved)) &&
        is_zero(config.row_bytes + TILES, sizeof(config.row_bytes) / 2) && is_zero(config.rows + TILES, sizeof(config.rows) / 2);
    for (int tile = 0; tile < TILES; tile++) {
        const int rows = config.rows[tile], bytes = config.row_bytes[tile];
        valid = valid && rows <= MOST_ROWS && bytes <= ROW_BYTES && (rows == 0) == (bytes == 0);
    }
    return valid;
}

} // namespace

bool Tiles::load_config(const void *from) {
    TileConfig loaded;
    std::memcpy(&loaded, from, sizeof(loaded));
    if (loaded.palette == 0) return release();
    if (loaded.palette != 1 || !is_valid_config(loaded)) return false;
    release();
    config = loaded;
    return true;
}

bool Tiles::store_config(void *to) const {
    std::memcpy(to, &config, sizeof(config));
    return true;
}

bool Tiles::release() {
    config = {};
    std::memset(data, 0, sizeof(data));
    return true;
}

bool Tiles::is_valid(int tile) const { return tile < TILES && config.rows[tile] > 0 && config.row_bytes[tile] % 4 == 0; }

bool Tiles::zero(int tile) {
    if (!is_valid(tile)) return false;
    std::memset(data[tile], 0, sizeof(data[tile]));
    return true;
}

bool Tiles::load(int tile, const char *from, int64_t stride) {
    if (!is_valid(tile)) return false;
    for (int row = 0; row < config.rows[tile]; row++) std::memcpy(data[tile][row], from + row * stride, config.row_bytes[tile]);
    return true;
}

bool Tiles::store(int tile, char *to, int64_t stride) const {
    if (!is_valid(tile)) return false;
    for (int row = 0; row < config.rows[tile]; row++) std::memcpy(to + row * stride, data[tile][row], config.row_bytes[tile]);
    return true;
}

/// Whether the tiles are different, and those of a product (m, n) = (m, k) x (k, n).
bool Tiles::can_multiply(int sums, int left, int right) const {
    if (!is_valid(sums) || !is_valid(left) || !is_valid(right)) return false;
    if (sums == left || sums == right || left == right) return false;
    return config.rows[sums] == config.rows[left] && config.row_bytes[sums] == config.row_bytes[right] &&
        config.row_bytes[left] / 4 == config.rows[right];
}

Shape Tiles::shape_of(int sums, int right) const { return {config.rows[sums], config.rows[right], config.row_bytes[sums] / 4}; }

bool Tiles::multiply_bytes(int sums, int left, bool left_signed, int right, bool right_signed) {
    if (!can_multiply(sums, left, right)) return false;
    amx::multiply_bytes(data[sums], data[left], left_signed, data[right], right_signed, shape_of(sums, right));
    return true;
}

bool Tiles::multiply_bf16(int sums, int left, int right) {
    if (!can_multiply(sums, left, right)) return false;
    amx::multiply_bf16(data[sums], data[left], data[right], shape_of(sums, right));
    return true;
}

} // namespace amx
