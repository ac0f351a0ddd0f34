// int8 with AVX-VNNI.

#include "avx2_f32.h"
#include "int8_encoder.h"

namespace {

struct AvxVnniInt8 {
    using Float = Avx2F32;
    using Code = uint8_t;
    using Weight = int8_t;
    // 15 of 16 registers: 6 x 2 accumulators, 2 registers of the panel, 1 value of A.
    static constexpr int ROWS = 6;
    static constexpr int BLOCKS = 24;
    struct Session {};

    template <int STRIDE>
    static void microkernel(const uint8_t *a, int64_t rows, int64_t depth, const int8_t *b, int32_t *tile) {
        for (int half = 0; half < muse::PANEL; half += 16) {
            const int8_t *columns = b + half * 4;
            if (rows > 3) {
                multiply_codes<STRIDE, ROWS>(a, depth, columns, tile + half);
            } else if (rows > 1) {
                multiply_codes<STRIDE, 3>(a, depth, columns, tile + half);
            } else {
                multiply_codes<STRIDE, 1>(a, depth, columns, tile + half);
            }
        }
    }

  private:
    // With the type of the instruction's result: GCC 12 keeps an array of __m256i in memory.
    using Integers = __v8si;

    /// Multiplies COUNT rows by 16 columns of a panel.
    template <int STRIDE, int COUNT>
    [[gnu::noinline]] static void multiply_codes(const uint8_t *a, int64_t depth, const int8_t *b, int32_t *tile) {
        Integers sums[COUNT][2] = {};
        for (int64_t k = 0; k < depth; k += 4) {
            const __m256i *panel = reinterpret_cast<const __m256i *>(b + k * muse::PANEL);
            const __m256i left = _mm256_loadu_si256(panel), right = _mm256_loadu_si256(panel + 1);
            _Pragma("GCC unroll 6") for (int row = 0; row < COUNT; row++) {
                int32_t group;
                __builtin_memcpy(&group, a + row * STRIDE + k, 4);
                const __m256i codes = _mm256_set1_epi32(group);
                sums[row][0] = Integers(_mm256_dpbusd_avx_epi32(__m256i(sums[row][0]), codes, left));
                sums[row][1] = Integers(_mm256_dpbusd_avx_epi32(__m256i(sums[row][1]), codes, right));
            }
        }
        _Pragma("GCC unroll 6") for (int row = 0; row < COUNT; row++) {
            __m256i *to = reinterpret_cast<__m256i *>(tile + row * muse::PANEL);
            _mm256_storeu_si256(to, __m256i(sums[row][0]));
            _mm256_storeu_si256(to + 1, __m256i(sums[row][1]));
        }
    }
};

} // namespace

const muse::Kernel muse::AVX_VNNI_INT8 = {"AVX-VNNI", Int8Encoder<AvxVnniInt8>::workspace, Int8Encoder<AvxVnniInt8>::run};
