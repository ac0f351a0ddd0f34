// The interface of the kernels: weights and batches as plain memory, without libtorch.
//
// Each kernel is compiled for instructions that not every processor has. The kernels include no
// header with inline functions: the linker may choose the kernel's copy of such a function for the
// whole program, which would then crash on other processors.

#pragma once

#include <cstddef>
#include <cstdint>

namespace muse {

constexpr int DIMENSION = 512;
constexpr int HIDDEN = 256;
constexpr int BRANCHES = 3;
constexpr int FEATURES = DIMENSION + BRANCHES * HIDDEN;
/// Width of the narrow layers after the pooling.
constexpr int BOTTLENECK = 320;
constexpr float EPSILON = 1e-12f;
/// Columns of a panel of packed weights.
constexpr int PANEL = 32;
/// The order of each n-gram, and the number of tokens that its window reaches to the left.
constexpr int ORDERS[BRANCHES] = {2, 3, 5};
constexpr int LEFTS[BRANCHES] = {0, 1, 2};

/// The embedding table in token order: bytes with a scale and a zero point for each shard, or
/// elements.
struct Table {
    const uint8_t *bytes;
    const float *scales;
    const float *zero_points;
    int64_t shards;
    const void *elements;
};

/// A packed weight, (columns / PANEL, depth / G, PANEL, G), where G elements are 4 bytes, and the
/// bias of its columns or null.
struct Linear {
    const void *packed;
    const float *bias;
    /// Of quantised weights: the scale of each column, and the sums of each column's elements in each
    /// group of inputs that are quantised together, (groups, columns).
    const float *scales;
    const float *column_sums;
};

struct Norm {
    const float *gamma;
    const float *beta;
};

struct Weights {
    Table table;
    /// The projections of all branches, concatenated: 512 -> 3 x 256.
    Linear projection;
    Norm norms[BRANCHES];
    Linear layers[BRANCHES][2];
    /// LayerNorm of the features: the embedding and the outputs of the branches, concatenated.
    Norm features;
    /// The layers after the pooling. `dense`: FEATURES -> y (DIMENSION). `hidden`: y -> s0
    /// (BOTTLENECK), [s0, y] -> s1 (BOTTLENECK), s1 -> s2 (DIMENSION), [s1, s2] -> output
    /// (DIMENSION).
    Linear dense;
    Linear hidden[4];
};

/// A ragged batch: the token ids of all sentences, concatenated, and the lengths of the sentences.
struct Batch {
    const int64_t *ids;
    const int64_t *lengths;
    int64_t tokens;
    int64_t sentences;
};

/// An implementation of the encoder for one precision and instruction set.
struct Kernel {
    const char *name;
    /// Size in bytes of the workspace that `encode` needs, aligned to 64 bytes.
    size_t (*workspace)(const Batch &);
    /// Writes the unit vectors of the sentences, (sentences, DIMENSION).
    void (*encode)(const Weights &, const Batch &, void *workspace, float *output);
};

extern const Kernel PORTABLE_F32, AVX2_F32, AVX512_F32, AMX_BF16;
extern const Kernel PORTABLE_INT8, AVX2_INT8, AVX_VNNI_INT8, AVX512_VNNI_INT8, AMX_INT8;

} // namespace muse
