// The float32 kernel for AVX-512.

#include "avx512_f32.h"
#include "float_encoder.h"

const muse::Kernel muse::AVX512_F32 = {"AVX-512", FloatEncoder<Avx512F32>::workspace, FloatEncoder<Avx512F32>::run};
