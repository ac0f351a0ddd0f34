// What the checks of the AMX kernels have in common.

#pragma once

#include "../random_model.h"

namespace amx {

using namespace standalone;

/// Lengths around the sizes of a tile (16 rows), of the microkernel (32) and of a chunk (128), in
/// tokens and in sentences.
std::vector<std::vector<int64_t>> all_batches();

/// A few of them, for a second model.
std::vector<std::vector<int64_t>> few_batches();

/// Prints a failure, and makes the program fail.
void fail(const Kernel &kernel, const std::vector<int64_t> &lengths, const char *what);

/// Encodes a batch. Fails if the kernel leaves the tiles configured, which makes each context switch
/// of the thread slower.
std::vector<float> encode_and_release(const Kernel &kernel, const Weights &weights, const std::vector<int64_t> &lengths);

bool same_bits(const std::vector<float> &one, const std::vector<float> &other);

/// Two threads encode at the same time, each with tiles of its own.
void check_threads(const Kernel &kernel, const Weights &weights);

/// Emulates AMX on a processor without it, and runs the checks; returns the exit status.
int run(void (*checks)());

} // namespace amx
