// The float32 kernel in portable C++.

#include "portable_f32.h"
#include "float_encoder.h"

const muse::Kernel muse::PORTABLE_F32 = {"portable", FloatEncoder<PortableF32>::workspace, FloatEncoder<PortableF32>::run};
