// float32 with AVX-512.

#include "encoder.h"

namespace {

struct Avx512F32 {
    using Element = float;
    // 14 rows of two registers, the two of the weight, and what is multiplied read as an operand: 30 of 32 registers.
    static constexpr int ROWS = 14;
    static constexpr int BLOCKS = 10;
    struct Session {};

    template <int STRIDE>
    static void products(const float *a, int64_t rows, int64_t depth, const float *b, float *tile) {
        if (rows > 8) return of<STRIDE, ROWS>(a, depth, b, tile);
        if (rows > 4) return of<STRIDE, 8>(a, depth, b, tile);
        if (rows > 1) return of<STRIDE, 4>(a, depth, b, tile);
        return of<STRIDE, 1>(a, depth, b, tile);
    }

  private:
    template <int STRIDE, int SOME> static void of(const float *a, int64_t depth, const float *b, float *tile) {
        __m512 sums[SOME][2] = {};
        for (int64_t k = 0; k < depth; k++) {
            const __m512 left = load(b + k * muse::PANEL), right = load(b + k * muse::PANEL + LANES);
            _Pragma("GCC unroll 14") for (int row = 0; row < SOME; row++) {
                const __m512 value = _mm512_set1_ps(a[row * STRIDE + k]);
                sums[row][0] = _mm512_fmadd_ps(value, left, sums[row][0]);
                sums[row][1] = _mm512_fmadd_ps(value, right, sums[row][1]);
            }
        }
        _Pragma("GCC unroll 14") for (int row = 0; row < SOME; row++) {
            store(tile + row * muse::PANEL, sums[row][0]);
            store(tile + row * muse::PANEL + LANES, sums[row][1]);
        }
    }
};

} // namespace

const muse::Kernel muse::AVX512_F32 = {"AVX-512", Encoder<Avx512F32>::workspace, Encoder<Avx512F32>::run};
