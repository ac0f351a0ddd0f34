// float32 with AVX2 and FMA.

#include "encoder.h"

namespace {

struct Avx2F32 {
    using Element = float;
    // Six rows of two registers, the two of the weight, and the value that they are multiplied by: 15 of 16 registers.
    static constexpr int ROWS = 6;
    static constexpr int BLOCKS = 24;
    struct Session {};

    template <int STRIDE>
    static void products(const float *a, int64_t rows, int64_t depth, const float *b, float *tile) {
        if (rows > 3) {
            for (int half = 0; half < muse::PANEL; half += 2 * LANES) of<STRIDE, ROWS, 2>(a, depth, b + half, tile + half);
        } else if (rows > 1) {
            of<STRIDE, 3, 4>(a, depth, b, tile);
        } else {
            of<STRIDE, 1, 4>(a, depth, b, tile);
        }
    }

  private:
    // Inlined, it would have to leave registers to what is around it.
    template <int STRIDE, int SOME, int WIDTH>
    [[gnu::noinline]] static void of(const float *a, int64_t depth, const float *b, float *tile) {
        Floats sums[SOME][WIDTH] = {};
        for (int64_t k = 0; k < depth; k++) {
            Floats weights[WIDTH];
            _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
                weights[part] = load(b + k * muse::PANEL + part * LANES);
            }
            _Pragma("GCC unroll 6") for (int row = 0; row < SOME; row++) {
                const Floats value = all(a[row * STRIDE + k]);
                _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
                    sums[row][part] = multiply_add(value, weights[part], sums[row][part]);
                }
            }
        }
        _Pragma("GCC unroll 6") for (int row = 0; row < SOME; row++) {
            _Pragma("GCC unroll 4") for (int part = 0; part < WIDTH; part++) {
                store(tile + row * muse::PANEL + part * LANES, sums[row][part]);
            }
        }
    }
};

} // namespace

const muse::Kernel muse::AVX2_F32 = {"AVX2", Encoder<Avx2F32>::workspace, Encoder<Avx2F32>::run};
