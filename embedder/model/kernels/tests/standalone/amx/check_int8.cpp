// Checks that the int8 kernel with AMX returns the bits of the portable one.
//
// usage: check_int8; prints whether the instructions ran natively or emulated, exits with 1 if the bits
// differ.

#include "kernel_checks.h"

namespace {

using namespace amx;

void check(const Weights &weights, const std::vector<std::vector<int64_t>> &batches) {
    for (const auto &lengths : batches) {
        const std::vector<float> found = encode_and_release(AMX_INT8, weights, lengths);
        if (!same_bits(found, encode(PORTABLE_INT8, weights, lengths))) fail(AMX_INT8, lengths, "other bits");
    }
}

} // namespace

int main() {
    return amx::run([] {
        const Model bytes = Model::random<int8_t>(true), floats = Model::random<int8_t>(false);
        check(bytes.weights, all_batches());
        check(floats.weights, few_batches());
        check_threads(AMX_INT8, bytes.weights);
    });
}
