// Checks that the bf16 kernel with AMX agrees with the portable float32 kernel of the same weights.
//
// usage: check_bf16; prints whether the instructions ran natively or emulated, and the largest
// difference; exits with 1 if it is too large.

#include <cmath>
#include <cstdio>
#include <string>

#include "kernel_checks.h"

namespace {

using namespace amx;

/// That of tests/kernels.rs, where the reference is a forward pass in float64. The float32 kernels agree
/// with it up to 5e-6.
constexpr double TOLERANCE = 0.01;

double largest = 0;

/// The relative difference (Frobenius norm), as in tests/kernels.rs.
double difference(const std::vector<float> &found, const std::vector<float> &expected) {
    double squares = 0, all = 0;
    for (size_t i = 0; i < expected.size(); i++) {
        const double distance = static_cast<double>(found[i]) - expected[i];
        squares += distance * distance;
        all += static_cast<double>(expected[i]) * expected[i];
    }
    return std::sqrt(squares / all);
}

void check(const Weights &weights, const Weights &reference, const std::vector<std::vector<int64_t>> &batches) {
    for (const auto &lengths : batches) {
        const std::vector<float> found = encode_and_release(AMX_BF16, weights, lengths);
        const double distance = difference(found, encode(PORTABLE_F32, reference, lengths));
        largest = std::fmax(largest, distance);
        // Not `>=`, which is false for NaN.
        if (!(distance < TOLERANCE)) fail(AMX_BF16, lengths, ("difference " + std::to_string(distance)).c_str());
    }
}

} // namespace

int main() {
    return amx::run([] {
        for (const bool bytes : {true, false}) {
            const Model model = Model::random<Bf16>(bytes, Values::BF16), reference = Model::random<float>(bytes, Values::BF16);
            check(model.weights, reference.weights, bytes ? all_batches() : few_batches());
            if (bytes) check_threads(AMX_BF16, model.weights);
        }
        std::printf("largest difference: %.2g\n", largest);
    });
}
