#include "kernel_checks.h"

#include <cstdio>
#include <thread>

#include "emulation.h"
#include "tiles.h"

namespace amx {

namespace {

bool failed = false;

bool tiles_are_configured() {
    TileConfig config;
    asm volatile("sttilecfg %0" : "=m"(config));
    return config.palette != 0;
}

} // namespace

std::vector<std::vector<int64_t>> all_batches() {
    return {{1}, {2}, {3}, {5}, {15}, {16}, {17}, {31}, {32}, {33}, {129}, {200, 1, 31, 2}, {1, 2, 3, 4, 5},
        std::vector<int64_t>(33, 1)};
}

std::vector<std::vector<int64_t>> few_batches() { return {{33}, {1, 2, 3, 4, 5}}; }

void fail(const Kernel &kernel, const std::vector<int64_t> &lengths, const char *what) {
    failed = true;
    std::printf("%s, %zu sentences, the first of %lld tokens: %s\n", kernel.name, lengths.size(),
        static_cast<long long>(lengths[0]), what);
}

std::vector<float> encode_and_release(const Kernel &kernel, const Weights &weights, const std::vector<int64_t> &lengths) {
    std::vector<float> vectors = encode(kernel, weights, lengths);
    if (tiles_are_configured()) fail(kernel, lengths, "the tiles are still configured");
    return vectors;
}

bool same_bits(const std::vector<float> &one, const std::vector<float> &other) {
    return one.size() == other.size() && std::memcmp(one.data(), other.data(), one.size() * sizeof(float)) == 0;
}

void check_threads(const Kernel &kernel, const Weights &weights) {
    const std::vector<int64_t> lengths[2] = {{20, 3}, {7, 7, 7}};
    std::vector<float> alone[2], together[2];
    for (int i = 0; i < 2; i++) alone[i] = encode(kernel, weights, lengths[i]);
    std::thread other([&] { together[1] = encode_and_release(kernel, weights, lengths[1]); });
    together[0] = encode_and_release(kernel, weights, lengths[0]);
    other.join();
    for (int i = 0; i < 2; i++) {
        if (!same_bits(alone[i], together[i])) fail(kernel, lengths[i], "other bits with two threads");
    }
}

int run(void (*checks)()) {
    const bool native = is_native();
    if (!native) emulate();
    std::printf("AMX: %s\n", native ? "native" : "emulated");
    checks();
    return failed ? 1 : 0;
}

} // namespace amx
