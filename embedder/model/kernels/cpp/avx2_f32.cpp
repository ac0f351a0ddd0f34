// The float32 kernel for AVX2.

#include "avx2_f32.h"
#include "float_encoder.h"

const muse::Kernel muse::AVX2_F32 = {"AVX2", FloatEncoder<Avx2F32>::workspace, FloatEncoder<Avx2F32>::run};
