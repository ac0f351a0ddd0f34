// Runs the kernels without libtorch, with weights and batches that are the same on every machine,
// and prints a hash of the vectors of each precision. tests/standalone.rs compiles it with
// sanitizers, and for other architectures.
//
// usage: check; exits with 1 if two kernels of a precision return different bits.

#include <cstdio>

#include "random_model.h"

namespace {

using namespace standalone;

std::vector<std::vector<int64_t>> batches() {
    return {{1}, {2}, {3}, {5}, {14}, {15}, std::vector<int64_t>(31, 1), {1, 2, 3, 4, 5}, {90, 1, 31, 32, 33},
        std::vector<int64_t>(29, 2)};
}

/// FNV-1a (Fowler, Noll and Vo) of the bits of all vectors.
uint64_t hash_of(const Kernel &kernel, const Weights &weights) {
    uint64_t hash = 14695981039346656037u;
    for (const std::vector<int64_t> &lengths : batches()) {
        const std::vector<float> output = encode(kernel, weights, lengths);
        const unsigned char *bytes = reinterpret_cast<const unsigned char *>(output.data());
        for (size_t i = 0; i < output.size() * sizeof(float); i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    }
    return hash;
}

bool same = true;

/// Compares the bits of a kernel with those of the portable one.
void compare(const Kernel &kernel, const Weights &weights, uint64_t expected) {
    const uint64_t found = hash_of(kernel, weights);
    std::fprintf(stderr, "%s: %016llx\n", kernel.name, static_cast<unsigned long long>(found));
    same = same && found == expected;
}

} // namespace

int main() {
    for (const bool bytes : {true, false}) {
        const Model floats = Model::random<float>(bytes), codes = Model::random<int8_t>(bytes);
        const uint64_t f32 = hash_of(PORTABLE_F32, floats.weights), int8 = hash_of(PORTABLE_INT8, codes.weights);
        std::printf("%s: f32 %016llx, int8 %016llx\n", bytes ? "bytes" : "floats", static_cast<unsigned long long>(f32),
            static_cast<unsigned long long>(int8));
#ifdef MUSE_X86_64
        const Model words = Model::random<int16_t>(bytes);
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
            compare(AVX2_F32, floats.weights, f32);
            compare(AVX2_INT8, words.weights, int8);
#ifdef MUSE_AVX_VNNI
            if (__builtin_cpu_supports("avxvnni")) compare(AVX_VNNI_INT8, codes.weights, int8);
#endif
        }
        if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
            compare(AVX512_F32, floats.weights, f32);
            if (__builtin_cpu_supports("avx512vnni")) compare(AVX512_VNNI_INT8, codes.weights, int8);
        }
#endif
    }
    return same ? 0 : 1;
}
