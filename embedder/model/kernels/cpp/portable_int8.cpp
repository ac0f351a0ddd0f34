// int8 in plain C++, for processors without a kernel of their own and as the reference of the others.

#include "int8_encoder.h"
#include "portable_f32.h"

namespace {

struct PortableInt8 {
    using Float = PortableF32;
    using Code = uint8_t;
    using Weight = int8_t;
    static constexpr int ROWS = 4;
    static constexpr int BLOCKS = 16;
    /// Elements of a column that are stored together (Linear in kernel.h).
    static constexpr int PACKED = 4;
    struct Session {};

    template <int STRIDE, class Epilogue>
    static void multiply(const uint8_t *a, int64_t rows, int64_t depth, const int8_t *b, const Epilogue &epilogue) {
        for (int64_t row = 0; row < rows; row++) {
            int32_t sums[muse::PANEL] = {};
            for (int64_t k = 0; k < depth; k += PACKED) {
                const uint8_t *codes = a + row * STRIDE + k;
                const int8_t *weights = b + k * muse::PANEL;
                for (int column = 0; column < muse::PANEL; column++) {
                    for (int i = 0; i < PACKED; i++) sums[column] += codes[i] * weights[column * PACKED + i];
                }
            }
            for (int part = 0; part < VECTORS; part++) epilogue(row, part, to_floats(sums + part * LANES));
        }
    }
};

} // namespace

const muse::Kernel muse::PORTABLE_INT8 = {"portable", Int8Encoder<PortableInt8>::workspace, Int8Encoder<PortableInt8>::run};
