// int8 with AVX2: products of 16-bit integers, since those of 8 bits saturate.

#include "int8_256.h"

namespace {

struct Words {
    using Code = int16_t;
    using Weight = int16_t;

    static void add(Integers &sums, __m256i codes, __m256i weights) { sums += Integers(_mm256_madd_epi16(codes, weights)); }
};

using Avx2Int8 = Int8Encoder<Int8In256Bits<Words>>;

} // namespace

const muse::Kernel muse::AVX2_INT8 = {"AVX2", Avx2Int8::workspace, Avx2Int8::run};
