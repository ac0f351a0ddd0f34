// The int8 microkernel in registers of 256 bits, for AVX2 and AVX-VNNI.

#pragma once

#include "avx2_f32.h"
#include "int8_encoder.h"

namespace {

/// Eight sums. With the type of the instructions' results: GCC 12 would store an array of __m256i in memory.
using Integers = __v8si;

/// A kernel (int8_encoder.h) whose Product has the types of its factors, Code and Weight, and
///   add(sums, codes, weights)
///       adds to each sum the products of the 4 bytes of codes and of weights at its place.
template <class Product> struct Int8In256Bits {
    using Float = Avx2F32;
    using Code = typename Product::Code;
    using Weight = typename Product::Weight;
    // At most 16 registers: 6 x 2 accumulators, 2 registers of the panel, 1 value of A, 1 product.
    static constexpr int ROWS = 6;
    static constexpr int BLOCKS = 24;
    struct Session {};

    template <int STRIDE, class Epilogue>
    static void multiply(const Code *a, int64_t rows, int64_t depth, const Weight *b, const Epilogue &epilogue) {
        for (int part = 0; part < muse::PANEL / LANES; part++) {
            const Weight *columns = b + part * LANES * PACKED;
            if (rows > 3) {
                multiply_codes<STRIDE, ROWS>(a, rows, depth, columns, part, epilogue);
            } else if (rows > 1) {
                multiply_codes<STRIDE, 3>(a, rows, depth, columns, part, epilogue);
            } else {
                multiply_codes<STRIDE, 1>(a, rows, depth, columns, part, epilogue);
            }
        }
    }

  private:
    /// Elements of a column that are stored together (Linear in kernel.h).
    static constexpr int PACKED = 4 / sizeof(Weight);

    /// Multiplies COUNT rows by 16 columns of a panel.
    template <int STRIDE, int COUNT, class Epilogue>
    [[gnu::noinline]] static void multiply_codes(
        const Code *a, int64_t rows, int64_t depth, const Weight *b, int part, const Epilogue &epilogue) {
        Integers sums[COUNT][2] = {};
        for (int64_t k = 0; k < depth; k += PACKED) {
            const __m256i *panel = reinterpret_cast<const __m256i *>(b + k * muse::PANEL);
            const __m256i left = _mm256_loadu_si256(panel), right = _mm256_loadu_si256(panel + 1);
            _Pragma("GCC unroll 6") for (int row = 0; row < COUNT; row++) {
                int32_t group;
                __builtin_memcpy(&group, a + row * STRIDE + k, 4);
                const __m256i codes = _mm256_set1_epi32(group);
                Product::add(sums[row][0], codes, left);
                Product::add(sums[row][1], codes, right);
            }
        }
        _Pragma("GCC unroll 6") for (int row = 0; row < COUNT; row++) {
            if (row >= rows) return;
            epilogue(row, part, {__builtin_convertvector(sums[row][0], __m256), __builtin_convertvector(sums[row][1], __m256)});
        }
    }
};

} // namespace
