// Checks products of tiles: in software, and by the instructions, which a processor or the emulation
// executes.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "expect.h"
#include "instruction.h"
#include "tiles.h"

namespace amx {

namespace {

using Bytes = std::vector<uint8_t>;

template <class Element> Bytes bytes_of(const std::vector<Element> &elements) {
    Bytes bytes(elements.size() * sizeof(Element));
    std::memcpy(bytes.data(), elements.data(), bytes.size());
    return bytes;
}

Bytes unsigned_bytes(const std::vector<uint8_t> &bytes) { return bytes; }
Bytes signed_bytes(const std::vector<int8_t> &bytes) { return bytes_of(bytes); }
Bytes integers(const std::vector<int32_t> &values) { return bytes_of(values); }
Bytes floats(const std::vector<float> &values) { return bytes_of(values); }

/// The first halves of the floats, whose other bits must be 0.
Bytes bf16s(const std::vector<float> &values) {
    std::vector<uint16_t> halves;
    for (float value : values) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof(bits));
        halves.push_back(static_cast<uint16_t>(bits >> 16));
    }
    return bytes_of(halves);
}

// ---- the operations on tiles

/// The numbers of the tiles of a product.
constexpr int SUMS = 5, LEFT = 2, RIGHT = 7;

struct Software {
    static inline Tiles tiles;

    static void load_config(const TileConfig &config) { expect(tiles.load_config(&config), "the configuration is valid"); }
    static void release() { tiles.release(); }
    static void load(int tile, const void *from, int64_t stride) { tiles.load(tile, static_cast<const char *>(from), stride); }
    static void store_sums(void *to, int64_t stride) { tiles.store(SUMS, static_cast<char *>(to), stride); }
    static void multiply(Operation operation) {
        if (operation == Operation::MULTIPLY_BF16) {
            expect(tiles.multiply_bf16(SUMS, LEFT, RIGHT), "the shapes are those of a product");
            return;
        }
        const bool left = operation == Operation::MULTIPLY_SIGNED_SIGNED || operation == Operation::MULTIPLY_SIGNED_UNSIGNED;
        const bool right = operation == Operation::MULTIPLY_SIGNED_SIGNED || operation == Operation::MULTIPLY_UNSIGNED_SIGNED;
        expect(tiles.multiply_bytes(SUMS, LEFT, left, RIGHT, right), "the shapes are those of a product");
    }
};

struct Instructions {
    static void load_config(const TileConfig &config) { asm volatile("ldtilecfg %0" ::"m"(config)); }
    static void release() { asm volatile("tilerelease"); }
    static void load(int tile, const void *from, int64_t stride) {
        if (tile == SUMS) asm volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(from), "r"(stride) : "memory");
        if (tile == LEFT) asm volatile("tileloadd (%0,%1,1), %%tmm2" ::"r"(from), "r"(stride) : "memory");
        if (tile == RIGHT) asm volatile("tileloadd (%0,%1,1), %%tmm7" ::"r"(from), "r"(stride) : "memory");
    }
    static void store_sums(void *to, int64_t stride) {
        asm volatile("tilestored %%tmm5, (%0,%1,1)" ::"r"(to), "r"(stride) : "memory");
    }
    static void multiply(Operation operation) {
        switch (operation) {
        case Operation::MULTIPLY_SIGNED_SIGNED: asm volatile("tdpbssd %tmm7, %tmm2, %tmm5"); break;
        case Operation::MULTIPLY_SIGNED_UNSIGNED: asm volatile("tdpbsud %tmm7, %tmm2, %tmm5"); break;
        case Operation::MULTIPLY_UNSIGNED_SIGNED: asm volatile("tdpbusd %tmm7, %tmm2, %tmm5"); break;
        case Operation::MULTIPLY_UNSIGNED_UNSIGNED: asm volatile("tdpbuud %tmm7, %tmm2, %tmm5"); break;
        default: asm volatile("tdpbf16ps %tmm7, %tmm2, %tmm5");
        }
    }
};

/// sums (rows, columns) + left (rows, depth) x right (depth, columns), where each element of the
/// factors is a group of 4 bytes: the products of a group are added up. In memory, `right` is
/// (depth, columns) groups, too.
struct Product {
    int rows, depth, columns;
    Bytes sums, left, right;
};

TileConfig config_of(const Product &product) {
    TileConfig config{};
    config.palette = 1;
    const auto set = [&config](int tile, int rows, int columns) {
        config.rows[tile] = static_cast<uint8_t>(rows);
        config.row_bytes[tile] = static_cast<uint16_t>(columns * 4);
    };
    set(SUMS, product.rows, product.columns);
    set(LEFT, product.rows, product.depth);
    set(RIGHT, product.depth, product.columns);
    return config;
}

template <class Machine> Bytes compute(Operation operation, const Product &product) {
    Bytes sums(product.sums.size());
    Machine::load_config(config_of(product));
    Machine::load(SUMS, product.sums.data(), product.columns * 4);
    Machine::load(LEFT, product.left.data(), product.depth * 4);
    Machine::load(RIGHT, product.right.data(), product.columns * 4);
    Machine::multiply(operation);
    Machine::store_sums(sums.data(), product.columns * 4);
    Machine::release();
    return sums;
}

void check(Operation operation, const Product &product, const Bytes &expected, const std::string &what) {
    expect(compute<Software>(operation, product) == expected, (what + " in software").c_str());
    expect(compute<Instructions>(operation, product) == expected, (what + " by instructions").c_str());
}

// ---- results that were computed by hand

void check_bytes() {
    constexpr Operation US = Operation::MULTIPLY_UNSIGNED_SIGNED;
    // 10 + 1 * 1 - 2 * 1 + 3 * 2 - 4 * 2 = 7, 20 - 1 * 128 + 2 * 127 + 4 * 1 = 150,
    // 30 + 250 * 1 - 1 * 2 = 278, -40 - 250 * 128 + 1 * 1 = -32039.
    check(US,
        {2, 1, 2, integers({10, 20, 30, -40}), unsigned_bytes({1, 2, 3, 4, 250, 0, 0, 1}),
            signed_bytes({1, -1, 2, -2, -128, 127, 0, 1})},
        integers({7, 150, 278, -32039}), "bytes, 2 x 2");
    // 1 * 1 + 8 * 10: the second row of the right factor belongs to the second group of the left one.
    check(US, {1, 2, 1, integers({0}), unsigned_bytes({1, 2, 3, 4, 5, 6, 7, 8}), signed_bytes({1, 0, 0, 0, 0, 0, 0, 10})},
        integers({81}), "bytes, depth 2");
    // One of each factor's bytes differs from 0.
    check(US, {3, 1, 1, integers({0, 0, 0}), unsigned_bytes({2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 4}), signed_bytes({5, 6, 7, 8})},
        integers({10, 18, 32}), "bytes, 3 x 1");

    const Product all_signs = {1, 1, 1, integers({0}), unsigned_bytes({255, 0, 0, 0}), unsigned_bytes({254, 0, 0, 0})};
    check(Operation::MULTIPLY_SIGNED_SIGNED, all_signs, integers({2}), "-1 * -2");
    check(Operation::MULTIPLY_SIGNED_UNSIGNED, all_signs, integers({-254}), "-1 * 254");
    check(US, all_signs, integers({-510}), "255 * -2");
    check(Operation::MULTIPLY_UNSIGNED_UNSIGNED, all_signs, integers({64770}), "255 * 254");

    // 4 * 255 * 127 exceeds 16 bits: nothing saturates there, nor in 32 bits, where the sum wraps.
    const Bytes most = unsigned_bytes({255, 255, 255, 255});
    check(US, {1, 1, 1, integers({0}), most, signed_bytes({127, 127, 127, 127})}, integers({129540}), "no saturation");
    check(US, {1, 1, 1, integers({INT32_MAX}), most, signed_bytes({0, 0, 1, 0})}, integers({INT32_MIN + 254}), "wrap");
    check(US, {1, 1, 1, integers({INT32_MIN}), most, signed_bytes({0, -1, 0, 0})}, integers({INT32_MAX - 254}), "negative wrap");
}

constexpr Operation BF16 = Operation::MULTIPLY_BF16;

/// The sum, in one row and column, of products of the even elements and of the odd elements.
void check_sum(float sum, const std::vector<float> &left, const std::vector<float> &right, float expected, const char *what) {
    check(BF16, {1, static_cast<int>(left.size()) / 2, 1, floats({sum}), bf16s(left), bf16s(right)}, floats({expected}), what);
}

void check_bf16() {
    // 1 + 1.5 * 4 + 2 * 0.25 = 7.5, 2 - 1.5 * 1 + 2 * 8 = 16.5, 3 - 3 * 4 + 0.5 * 0.25 = -8.875,
    // 4 + 3 * 1 + 0.5 * 8 = 11.
    check(BF16,
        {2, 1, 2, floats({1, 2, 3, 4}), bf16s({1.5f, 2, -3, 0.5f}), bf16s({4, 0.25f, -1, 8})},
        floats({7.5f, 16.5f, -8.875f, 11}), "bf16, 2 x 2");
    check(BF16, {1, 2, 1, floats({0}), bf16s({1, 2, 3, 4}), bf16s({1, 10, 100, 1000})}, floats({4321}), "bf16, depth 2");

    // From 2^24 on the distance of two floats is 2: the order of the additions matters.
    constexpr float LARGE = 0x1p24f;
    check_sum(LARGE, {1, 0, 1, 0}, {1, 0, 1, 0}, LARGE + 2, "the products are summed before the old sum is added");
    check_sum(0, {4096, 1, 0, 1}, {4096, 1, 0, 1}, LARGE + 2, "the odd products have a sum of their own");
    check_sum(0, {4096, 0, 1, 0}, {4096, 0, 3, 0}, LARGE + 4, "ties are rounded to even, up");
    check_sum(0, {4096, 0, 1, 0}, {4096, 0, 1, 0}, LARGE, "ties are rounded to even, down");

    check_sum(0, {0x1p-133f, 0}, {0x1p127f, 0}, 0, "a denormal factor counts as zero");
    check_sum(0x1p-149f, {0, 0}, {0, 0}, 0, "a denormal sum becomes zero");
    check_sum(0, {0x1p-70f, 0}, {0x1p-70f, 0}, 0, "a denormal product becomes zero");
    check_sum(0, {0x1p-63f, 0}, {0x1p-63f, 0}, 0x1p-126f, "the smallest normal product");
    check_sum(0, {0x1p-63f, 0, 0x1p-70f, 0}, {0x1p-63f, 0, 0x1p-70f, 0}, 0x1p-126f + 0x1p-140f, "the product is not rounded");
    check_sum(0x1.8p-126f, {-0x1p-63f, 0}, {0x1p-63f, 0}, 0, "a denormal difference becomes zero");
    check_sum(0, {0x1p127f, 0}, {2, 0}, INFINITY, "overflow");
}

/// Tiles of fewer rows and columns than memory has: bytes around them are neither read nor written.
template <class Machine> void check_strides(const char *what) {
    // Row i of a tile begins i * STRIDE bytes after the first one.
    constexpr int STRIDE = 12;
    Product product{3, 1, 2, {}, {}, {}};
    std::vector<int32_t> sums(9, 1000), stored(9, -1);
    Bytes left(36, 99), right(12, 99);
    for (int row = 0; row < 3; row++) std::memcpy(&left[row * STRIDE], "\1\0\0\2", 4);
    left[STRIDE] = 3;
    const int8_t columns[8] = {1, 0, 0, 1, 10, 0, 0, -10};
    std::memcpy(right.data(), columns, sizeof(columns));
    Machine::load_config(config_of(product));
    Machine::load(SUMS, sums.data(), STRIDE);
    Machine::load(LEFT, left.data(), STRIDE);
    Machine::load(RIGHT, right.data(), STRIDE);
    Machine::multiply(Operation::MULTIPLY_UNSIGNED_SIGNED);
    Machine::store_sums(stored.data(), STRIDE);
    Machine::release();
    // 1 * 1 + 2 * 1, 1 * 10 - 2 * 10, and with 3 instead of the 1 in the second row.
    expect(stored == std::vector<int32_t>{1003, 990, -1, 1005, 1010, -1, 1003, 990, -1}, what);
}

// ---- random products

constexpr Operation PRODUCTS[] = {Operation::MULTIPLY_SIGNED_SIGNED, Operation::MULTIPLY_SIGNED_UNSIGNED,
    Operation::MULTIPLY_UNSIGNED_SIGNED, Operation::MULTIPLY_UNSIGNED_UNSIGNED, Operation::MULTIPLY_BF16};

/// The instructions return the bits of the software, for tiles of all shapes. On a processor with AMX
/// this checks the software.
void check_random() {
    std::mt19937 random(1);
    const auto up_to_16 = [&random] { return static_cast<int>(random() % 16 + 1); };
    // Signs and magnitudes from 2^-20 to 2^21, so that nothing overflows and nothing is denormal.
    const auto random_float = [&random](uint32_t fraction) {
        const uint32_t bits = (random() & 1) << 31 | (107 + random() % 41) << 23 | (random() & fraction);
        float value;
        std::memcpy(&value, &bits, sizeof(value));
        return value;
    };
    for (int trial = 0; trial < 500; trial++) {
        const Operation operation = PRODUCTS[trial % 5];
        Product product{up_to_16(), up_to_16(), up_to_16(), {}, {}, {}};
        const auto fill = [&](int rows, int columns, bool are_sums) {
            if (operation != BF16) {
                Bytes bytes(rows * columns * 4);
                for (uint8_t &byte : bytes) byte = static_cast<uint8_t>(random());
                return bytes;
            }
            std::vector<float> values(rows * columns * (are_sums ? 1 : 2));
            for (float &value : values) value = random_float(are_sums ? 0x7fffff : 0x7f0000);
            return are_sums ? floats(values) : bf16s(values);
        };
        product.sums = fill(product.rows, product.columns, true);
        product.left = fill(product.rows, product.depth, false);
        product.right = fill(product.depth, product.columns, false);
        const bool same = compute<Software>(operation, product) == compute<Instructions>(operation, product);
        expect(same, ("random product " + std::to_string(trial)).c_str());
    }
}

} // namespace

void check_products() {
    check_bytes();
    check_bf16();
    check_strides<Software>("strides in software");
    check_strides<Instructions>("strides by instructions");
    check_random();
}

} // namespace amx
