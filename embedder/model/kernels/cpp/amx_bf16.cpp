// bfloat16 with AMX.

#include "amx_tiles.h"
#include "float_encoder.h"

namespace {

struct Bf16Product {
    static void upper() {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    static void lower() {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
};

struct AmxBf16 : TileMicrokernel<Bf16Product> {
    using Element = bf16;

    template <int STRIDE>
    static void microkernel(const bf16 *a, int64_t rows, int64_t depth, const bf16 *b, const bf16 *, float *tile) {
        TileMicrokernel::microkernel<STRIDE>(a, rows, depth, b, tile);
    }
};

} // namespace

const muse::Kernel muse::AMX_BF16 = {"AMX", FloatEncoder<AmxBf16>::workspace, FloatEncoder<AmxBf16>::run};
