// int8 with AVX512-VNNI.

#include "avx512_f32.h"
#include "int8_encoder.h"

namespace {

struct Avx512VnniInt8 {
    using Float = Avx512F32;
    using Code = uint8_t;
    using Weight = int8_t;
    // 31 of 32 registers: 14 x 2 accumulators, 2 registers of the panel, 1 value of A.
    static constexpr int ROWS = 14;
    static constexpr int BLOCKS = 10;
    struct Session {};

    template <int STRIDE, class Epilogue>
    static void multiply(const uint8_t *a, int64_t rows, int64_t depth, const int8_t *b, const Epilogue &epilogue) {
        if (rows > 8) return multiply_codes<STRIDE, ROWS>(a, rows, depth, b, epilogue);
        if (rows > 4) return multiply_codes<STRIDE, 8>(a, rows, depth, b, epilogue);
        if (rows > 1) return multiply_codes<STRIDE, 4>(a, rows, depth, b, epilogue);
        return multiply_codes<STRIDE, 1>(a, rows, depth, b, epilogue);
    }

  private:
    // With the type of the instruction's result: GCC 12 would store an array of __m512i in memory.
    using Integers = __v16si;

    template <int STRIDE, int COUNT, class Epilogue>
    [[gnu::noinline]] static void multiply_codes(const uint8_t *a, int64_t rows, int64_t depth, const int8_t *b, const Epilogue &epilogue) {
        Integers sums[COUNT][2] = {};
        for (int64_t k = 0; k < depth; k += 4) {
            const __m512i left = _mm512_loadu_si512(b + k * muse::PANEL), right = _mm512_loadu_si512(b + k * muse::PANEL + 64);
            _Pragma("GCC unroll 14") for (int row = 0; row < COUNT; row++) {
                int32_t four;
                __builtin_memcpy(&four, a + row * STRIDE + k, 4);
                const __m512i codes = _mm512_set1_epi32(four);
                sums[row][0] = Integers(_mm512_dpbusd_epi32(__m512i(sums[row][0]), codes, left));
                sums[row][1] = Integers(_mm512_dpbusd_epi32(__m512i(sums[row][1]), codes, right));
            }
        }
        _Pragma("GCC unroll 14") for (int row = 0; row < COUNT; row++) {
            if (row >= rows) return;
            epilogue(row, 0, __builtin_convertvector(sums[row][0], Floats));
            epilogue(row, 1, __builtin_convertvector(sums[row][1], Floats));
        }
    }
};

} // namespace

const muse::Kernel muse::AVX512_VNNI_INT8 = {
    "AVX512-VNNI", Int8Encoder<Avx512VnniInt8>::workspace, Int8Encoder<Avx512VnniInt8>::run};
