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

    template <int STRIDE, class Epilogue>
    static void multiply(const uint8_t *a, int64_t rows, int64_t depth, const int8_t *b, const Epilogue &epilogue) {
        alignas(64) int32_t tile[ROWS * muse::PANEL];
        microkernel<STRIDE>(a, rows, depth, b, tile);
        for (int row = 0; row < rows; row++) {
            for (int part = 0; part < VECTORS; part++) epilogue(row, part, to_floats(tile + row * muse::PANEL + part * LANES));
        }
    }
};

} // namespace

const muse::Kernel muse::AMX_INT8 = {"AMX-INT8", Int8Encoder<AmxInt8>::workspace, Int8Encoder<AmxInt8>::run};
