// What the encoder computes with, as plain memory: this and the kernels know nothing of libtorch.
//
// The kernels are compiled for instructions that not every processor has. They include no header that defines inline
// functions, lest the linker take such a function, compiled for those instructions, for all of the program.

#pragma once

#include <cstddef>
#include <cstdint>

namespace muse {

constexpr int DIMENSION = 512;
constexpr int HIDDEN = 256;
constexpr int BRANCHES = 3;
constexpr int FEATURES = DIMENSION + BRANCHES * HIDDEN;
/// Width of the narrow layers after the sum.
constexpr int BOTTLENECK = 320;
constexpr float EPSILON = 1e-12f;
/// Columns of a panel of packed weights.
constexpr int PANEL = 32;
/// The order of each n-gram, and how many tokens to the left of its own a window begins.
constexpr int ORDERS[BRANCHES] = {2, 3, 5};
constexpr int LEFTS[BRANCHES] = {0, 1, 2};

/// Rows of embeddings, in token order: bytes with a scale and a zero point for each shard, or elements.
struct Table {
    const uint8_t *bytes;
    const float *scales;
    const float *zero_points;
    int64_t shards;
    const void *elements;
};

/// A weight packed for the kernels, (columns / PANEL, depth / G, PANEL, G) with G the 4 bytes' worth of elements, and the
/// bias of its columns, if it has one.
struct Linear {
    const void *packed;
    const float *bias;
};

struct Norm {
    const float *gamma;
    const float *beta;
};

struct Weights {
    Table table;
    /// Of all branches, one after the other: 512 -> 3 x 256.
    Linear projection;
    Norm norms[BRANCHES];
    Linear layers[BRANCHES][2];
    /// Of the embedding and the branches' values side by side, FEATURES.
    Norm features;
    /// What follows the sum over a sentence: FEATURES -> DIMENSION; then, with s and y for what a layer and the sum's give,
    /// y -> s0 of BOTTLENECK, [s0, y] -> s1 of BOTTLENECK, s1 -> s2 of DIMENSION, [s1, s2] -> DIMENSION.
    Linear dense;
    Linear hidden[4];
};

/// Sentences one after the other.
struct Batch {
    const int64_t *ids;
    const int64_t *lengths;
    int64_t tokens;
    int64_t sentences;
};

/// One way to compute.
struct Kernel {
    const char *name;
    /// Bytes of memory, aligned to 64, that `encode` works in.
    size_t (*workspace)(const Batch &);
    /// What is left to do for each sentence is tanh and the norm: (sentences, DIMENSION).
    void (*encode)(const Weights &, const Batch &, void *workspace, float *to);
};

extern const Kernel AVX2_F32, AVX512_F32, AMX_BF16;

} // namespace muse
