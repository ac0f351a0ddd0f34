// The encoder, generic over the microkernel of its matrix products: what all encoders have in common.
//
// The batch is ragged: sentences are stored one after the other. The n-gram windows of all tokens are
// then overlapping rows of one matrix. The convolution is an implicit GEMM: the microkernel reads the
// windows in place, no im2col matrix is written.
//
// A kernel is a type with
//   Element       element type of both factors
//   ROWS          maximum number of rows of one microkernel call
//   BLOCKS        ROWS x BLOCKS rows are multiplied by one panel of a weight before the next panel
//   Session       constructed before the first call and destroyed after the last
//   microkernel<STRIDE>(a, rows, depth, b, next, tile)
//       tile (ROWS, PANEL) = A (rows, depth) x B (depth, PANEL). Row i of A begins STRIDE elements after
//       row i - 1, B is one panel of a packed weight. ROWS rows of A must be readable; the rows of the
//       tile from `rows` on are undefined. Prefetches half a panel from `next` on, if that is of use.

#pragma once

#include "rows.h"

namespace {

using muse::BOTTLENECK, muse::BRANCHES, muse::DIMENSION, muse::FEATURES, muse::HIDDEN, muse::LEFTS, muse::ORDERS, muse::PANEL;

/// Number of padding rows between two sentences.
constexpr int gap(int branch) {
    const int left = LEFTS[branch], right = ORDERS[branch] - 1 - left;
    return left > right ? left : right;
}

constexpr int WIDEST_GAP = gap(BRANCHES - 1);

constexpr int64_t round_up(int64_t number, int64_t multiple) { return (number + multiple - 1) / multiple * multiple; }

/// Columns of the concatenated inputs of two hidden layers, [s0, y] and [s1, s2].
constexpr int CONCATENATED = BOTTLENECK + DIMENSION;

/// Number of vectors of one row of a panel.
constexpr int VECTORS = PANEL / LANES;

struct PanelRow {
    Floats parts[VECTORS];
    explicit PanelRow(const float *from) {
        for (int part = 0; part < VECTORS; part++) parts[part] = load(from + part * LANES);
    }
};

/// A bump allocator. With `memory` null it only computes the size.
struct Arena {
    char *memory;
    size_t used = 0;

    template <class Value> void allocate(Value *&array, int64_t values) {
        array = reinterpret_cast<Value *>(memory + used);
        used += round_up(values * sizeof(Value), 64);
    }
};

/// What all encoders have in common: the pooling and the dense layers.
template <class Kernel> class Encoder {
  protected:
    using Element = typename Kernel::Element;
    static constexpr int ROWS = Kernel::ROWS;

    const muse::Weights weights;
    const muse::Batch batch;
    Element *sums;  // (sentences, FEATURES)
    Element *s0_y;  // (sentences, CONCATENATED)
    Element *s1_s2; // (sentences, CONCATENATED)

    Encoder(const muse::Weights &weights, const muse::Batch &batch) : weights(weights), batch(batch) {}

    /// Allocates the arrays.
    void allocate(Arena &arena) {
        const int64_t sentences = round_up(batch.sentences, ROWS);
        arena.allocate(sums, sentences * FEATURES);
        arena.allocate(s0_y, sentences * CONCATENATED);
        arena.allocate(s1_s2, sentences * CONCATENATED);
    }

    /// Calls `body(begin, end)` for each chunk of 0..count in order.
    template <class Body> static void for_each_chunk(int64_t count, int chunk, Body body) {
        for (int64_t begin = 0; begin < count; begin += chunk) body(begin, count - begin < chunk ? count : begin + chunk);
    }

    template <int COLUMNS = HIDDEN> static void clear(Element *array, int64_t begin, int64_t end) {
        __builtin_memset(array + begin * COLUMNS, 0, (end - begin) * COLUMNS * sizeof(Element));
    }

    /// Zeroes the rows that round the products up to ROWS: arithmetic on uninitialised memory, such
    /// as denormal numbers, could be slow.
    void clear_padding() {
        const int64_t all = round_up(batch.sentences, ROWS);
        clear<FEATURES>(sums, batch.sentences, all);
        clear<CONCATENATED>(s0_y, batch.sentences, all);
        clear<CONCATENATED>(s1_s2, batch.sentences, all);
    }

    /// The half of the next panel that the microkernel prefetches with a block of rows.
    static const Element *half_of_next(const Element *panel, int64_t depth, int64_t block) {
        return panel + (2 + block % 2) * depth * PANEL / 2;
    }

    /// Multiplies `count` rows by one panel and calls `epilogue(row, sums)` for each row of the
    /// product.
    template <int STRIDE, class Epilogue>
    static void multiply(const Element *a, int64_t count, int64_t depth, const Element *panel, Epilogue epilogue) {
        alignas(64) float tile[ROWS * PANEL];
        for (int64_t row = 0; row < count; row += ROWS) {
            const int64_t rows = count - row < ROWS ? count - row : ROWS;
            Kernel::template microkernel<STRIDE>(
                a + row * STRIDE, rows, depth, panel, half_of_next(panel, depth, row / ROWS), tile);
            for (int64_t i = 0; i < rows; i++) epilogue(row + i, tile + i * PANEL);
        }
    }

    static const Element *panel_of(const muse::Linear &linear, int64_t depth, int64_t panel) {
        return static_cast<const Element *>(linear.packed) + panel * PANEL * depth;
    }

    /// Applies the last LayerNorm to the features of each token of a sentence and sums them. `hidden`:
    /// the outputs of the branches for the sentence's tokens, (tokens, HIDDEN).
    void pool_sentence(int64_t sentence, const int64_t *ids, const Element *const (&hidden)[BRANCHES]) {
        Floats sum[FEATURES / LANES] = {};
        const int64_t length = batch.lengths[sentence];
        for (int64_t token = 0; token < length; token++) {
            Floats features[FEATURES / LANES];
            if (ids + token + 2 < batch.ids + batch.tokens) prefetch_embedding<Element>(weights.table, ids[token + 2]);
            // Read from the table again, because `embedded` may be rounded to bfloat16.
            embed<Element>(weights.table, ids[token], *reinterpret_cast<Floats(*)[DIMENSION / LANES]>(features));
            for (int branch = 0; branch < BRANCHES; branch++) {
                for (int part = 0; part < HIDDEN / LANES; part++) {
                    features[(DIMENSION + branch * HIDDEN) / LANES + part] = load(hidden[branch] + token * HIDDEN + part * LANES);
                }
            }
            const Moments token_moments = moments(features);
            for (int part = 0; part < FEATURES / LANES; part++) {
                sum[part] = multiply_add(
                    features[part] - broadcast(token_moments.mean), broadcast(token_moments.scale), sum[part]);
            }
        }
        const Floats count = broadcast(static_cast<float>(length));
        for (int part = 0; part < FEATURES / LANES; part++) {
            const Floats beta = load(weights.features.beta + part * LANES);
            const Floats gamma = load(weights.features.gamma + part * LANES);
            store(sums + sentence * FEATURES + part * LANES, multiply_add(sum[part], gamma, beta * count));
        }
    }

    /// The layers after the pooling, and the unit vectors.
    void dense_layers(float *output) {
        // sum_t(f @ D + d) / sqrt(n) = sum_t(f) @ D / sqrt(n) + d * sqrt(n).
        layer<FEATURES>(sums, FEATURES, weights.dense, DIMENSION, [this](int64_t row, int column, Floats value) {
            const float root = __builtin_sqrtf(static_cast<float>(batch.lengths[row]));
            value = value / broadcast(root) + load(weights.dense.bias + column) * broadcast(root);
            store(s0_y + row * CONCATENATED + BOTTLENECK + column, value);
        });
        auto relu_to = [](Element *array) {
            return [array](int64_t row, int column, Floats value) {
                store(array + row * CONCATENATED + column, relu(value));
            };
        };
        layer<CONCATENATED>(s0_y + BOTTLENECK, DIMENSION, weights.hidden[0], BOTTLENECK, relu_to(s0_y));
        layer<CONCATENATED>(s0_y, CONCATENATED, weights.hidden[1], BOTTLENECK, relu_to(s1_s2));
        layer<CONCATENATED>(s1_s2, BOTTLENECK, weights.hidden[2], DIMENSION, relu_to(s1_s2 + BOTTLENECK));
        layer<CONCATENATED>(s1_s2, CONCATENATED, weights.hidden[3], DIMENSION,
            [output](int64_t row, int column, Floats value) { store(output + row * DIMENSION + column, value); });
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) to_unit_vector(output + sentence * DIMENSION);
    }

    /// Multiplies a row for each sentence by a weight; calls `epilogue(row, column, values)` for
    /// each vector of the product.
    template <int STRIDE, class Epilogue>
    void layer(const Element *from, int64_t depth, const muse::Linear &linear, int columns, Epilogue epilogue) {
        for (int column = 0; column < columns; column += PANEL) {
            multiply<STRIDE>(from, batch.sentences, depth, panel_of(linear, depth, column / PANEL),
                [&](int64_t row, const float *values) {
                    for (int part = 0; part < VECTORS; part++) epilogue(row, column + part * LANES, load(values + part * LANES));
                });
        }
    }
};

} // namespace
