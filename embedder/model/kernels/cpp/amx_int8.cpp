// int8 with AMX: tiles of 16 rows of 64 bytes.

#include "amx_tiles.h"
#include "avx512_f32.h"
#include "int8_encoder.h"

namespace {

struct AmxInt8 {
    using Float = Avx512F32;
    using Code = uint8_t;
    using Weight = int8_t;
    static constexpr int ROWS = 32;
    static constexpr int BLOCKS = 4;

    using Session = TileSession;

    template <int STRIDE>
    static void microkernel(const uint8_t *a, int64_t rows, int64_t depth, const int8_t *b, int32_t *tile) {
        if (rows > 16) return multiply_tiles<STRIDE, true>(a, depth, b, tile);
        return multiply_tiles<STRIDE, false>(a, depth, b, tile);
    }

  private:
    // Tiles 0 to 3 accumulate 2 x 2 blocks of 16 rows and 16 columns, 4 and 5 hold rows of A, 6 and
    // 7 columns of B. LOWER: the second block of 16 rows is computed, too.
    template <int STRIDE, bool LOWER>
    static void multiply_tiles(const uint8_t *a, int64_t depth, const int8_t *b, int32_t *tile) {
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (LOWER) {
            _tile_zero(2);
            _tile_zero(3);
        }
        for (int64_t k = 0; k < depth; k += 64) {
            _tile_loadd(4, a + k, STRIDE);
            _tile_loadd(6, b + k * muse::PANEL, 128);
            _tile_loadd(7, b + k * muse::PANEL + 64, 128);
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            if constexpr (LOWER) {
                _tile_loadd(5, a + k + 16 * STRIDE, STRIDE);
                _tile_dpbusd(2, 5, 6);
                _tile_dpbusd(3, 5, 7);
            }
        }
        _tile_stored(0, tile, 128);
        _tile_stored(1, tile + 16, 128);
        if constexpr (LOWER) {
            _tile_stored(2, tile + 16 * muse::PANEL, 128);
            _tile_stored(3, tile + 16 * muse::PANEL + 16, 128);
        }
    }
};

} // namespace

const muse::Kernel muse::AMX_INT8 = {"AMX-INT8", Int8Encoder<AmxInt8>::workspace, Int8Encoder<AmxInt8>::run};
