// int8 with AMX.

#include "amx_tiles.h"
#include "avx512_f32.h"
#include "int8_encoder.h"

namespace {

struct Int8Product {
    static void upper() {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
    }
    static void lower() {
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
};

struct AmxInt8 : TileMicrokernel<Int8Product> {
    using Float = Avx512F32;
    using Code = uint8_t;
    using Weight = int8_t;
};

} // namespace

const muse::Kernel muse::AMX_INT8 = {"AMX-INT8", Int8Encoder<AmxInt8>::workspace, Int8Encoder<AmxInt8>::run};
