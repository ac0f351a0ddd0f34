// int8 with AVX-VNNI.

#include "int8_256.h"

namespace {

struct Bytes {
    using Code = uint8_t;
    using Weight = int8_t;

    static void add(Integers &sums, __m256i codes, __m256i weights) {
        sums = Integers(_mm256_dpbusd_avx_epi32(__m256i(sums), codes, weights));
    }
};

using AvxVnniInt8 = Int8Encoder<Int8In256Bits<Bytes>>;

} // namespace

const muse::Kernel muse::AVX_VNNI_INT8 = {"AVX-VNNI", AvxVnniInt8::workspace, AvxVnniInt8::run};
