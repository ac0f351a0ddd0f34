// The encoder with integer products.
//
// The projections and convolutions multiply unsigned 8-bit activations by signed 8-bit weights, and
// sum in 32 bits, which is exact. The embeddings are the bytes of the table. The other activations
// are quantised in groups of 128 values of a token, each with a scale and a zero point of its own; a
// convolution therefore sums up each group of a window separately, and adds these sums in float32.
// All other steps are those of the float32 encoder.
//
// A kernel is a type with
//   Float         the float32 kernel (encoder.h) of the dense layers
//   Code          element type of the activations
//   Weight        element type of the weights
//   ROWS, BLOCKS, Session   as in encoder.h
//   microkernel<STRIDE>(a, rows, depth, b, tile)   as in encoder.h, with a tile of int32

#pragma once

#include "encoder.h"

namespace {

/// Number of values that are quantised together. With 256, the vectors of sentences that repeat one
/// token a hundred times were off by 0.001, since the rounding errors of all tokens add up.
constexpr int GROUP = 128;
constexpr int GROUPS = HIDDEN / GROUP;

/// Quantises COLUMNS values to 0..255: value = scale * (code - zero_point).
template <int COLUMNS, class Code> inline void quantize(const float *from, Code *to, float &scale, float &zero_point) {
    Floats row[COLUMNS / LANES], largest{}, largest_negated{};
    for (int part = 0; part < COLUMNS / LANES; part++) {
        row[part] = load(from + part * LANES);
        largest = max(row[part], largest);
        largest_negated = max(Floats{} - row[part], largest_negated);
    }
    const float high = reduce_max(largest), low = reduce_max(largest_negated), range = high + low;
    // Below, the quotient would overflow.
    const float inverse = range > 1e-30f ? 255.0f / range : 0.0f;
    scale = range > 1e-30f ? range / 255.0f : 0.0f;
    zero_point = __builtin_rintf(low * inverse);
    for (int part = 0; part < COLUMNS / LANES; part++) {
        const Floats code = multiply_add(row[part], broadcast(inverse), broadcast(zero_point));
        store_rounded(to + part * LANES, min(max(code, Floats{}), broadcast(255.0f)));
    }
}

template <class Kernel> class Int8Encoder : Encoder<typename Kernel::Float> {
    using Base = Encoder<typename Kernel::Float>;
    using Code = typename Kernel::Code;
    using Weight = typename Kernel::Weight;
    using Base::batch, Base::first_layer, Base::hidden, Base::is_token, Base::row_of, Base::span, Base::weights;
    static constexpr int ROWS = Kernel::ROWS;
    static constexpr int CHUNK = ROWS * Kernel::BLOCKS;

    /// Rows of codes with the scales and zero points of their groups.
    struct Codes {
        Code *codes;
        float *scales;
        float *zero_points;
    };

    Codes embedded;   // (tokens, DIMENSION), one group
    Codes input;      // (rows, HIDDEN), input of the current branch's first layer
    Codes inner;      // (rows, HIDDEN), its output
    float *projected; // (CHUNK, HIDDEN)

    Int8Encoder(const muse::Weights &weights, const muse::Batch &batch) : Base(weights, batch) {}

    /// Number of rows of codes of a branch: the microkernel reads whole blocks of ROWS.
    int64_t code_rows(int branch) const { return gap(branch) + round_up(span(branch), ROWS) + WIDEST_GAP; }

    static void allocate(Arena &arena, Codes &codes, int64_t rows, int columns, int groups) {
        arena.allocate(codes.codes, rows * columns);
        arena.allocate(codes.scales, rows * groups);
        arena.allocate(codes.zero_points, rows * groups);
    }

    /// Allocates the arrays in `memory`; returns the number of bytes.
    size_t allocate(char *memory) {
        Arena arena{memory};
        allocate(arena, embedded, round_up(batch.tokens, ROWS), DIMENSION, 1);
        allocate(arena, input, code_rows(BRANCHES - 1), HIDDEN, GROUPS);
        allocate(arena, inner, code_rows(BRANCHES - 1), HIDDEN, GROUPS);
        arena.allocate(projected, CHUNK * HIDDEN);
        Base::allocate(arena);
        return arena.used;
    }

  public:
    static size_t workspace(const muse::Batch &batch) { return Int8Encoder({}, batch).allocate(nullptr); }

    static void run(const muse::Weights &weights, const muse::Batch &batch, void *memory, float *output) {
        [[maybe_unused]] const typename Kernel::Session session;
        Int8Encoder encoder(weights, batch);
        encoder.allocate(static_cast<char *>(memory));
        encoder.clear_padding();
        encoder.index_sentences();
        encoder.project();
        for (int branch = 0; branch < BRANCHES; branch++) {
            encoder.mark_tokens(branch);
            encoder.clear(encoder.input, branch);
            encoder.clear(encoder.inner, branch);
            encoder.quantize_tokens(branch);
            encoder.convolve(branch, 0, encoder.input, encoder.hidden[branch], encoder.first_layer);
            encoder.convolve(branch, 1, encoder.inner, encoder.first_layer, encoder.hidden[branch]);
        }
        encoder.pool();
        encoder.dense_layers(output);
    }

  private:
    /// Zeroes all rows of a branch. Padding rows stay zero: their scale is 0.
    void clear(Codes &codes, int branch) {
        const int64_t rows = code_rows(branch);
        __builtin_memset(codes.codes, 0, rows * HIDDEN * sizeof(Code));
        __builtin_memset(codes.scales, 0, rows * GROUPS * sizeof(float));
        __builtin_memset(codes.zero_points, 0, rows * GROUPS * sizeof(float));
    }

    void quantize_row(Codes &codes, const float *from, int64_t row) {
        for (int64_t group = row * GROUPS; group < (row + 1) * GROUPS; group++) {
            quantize<GROUP>(from + group * GROUP, codes.codes + group * GROUP, codes.scales[group], codes.zero_points[group]);
        }
    }

    /// Quantises the input of a branch's first layer.
    void quantize_tokens(int branch) {
        for (int64_t token = 0; token < batch.tokens; token++) quantize_row(input, hidden[branch], row_of(branch, token));
    }

    static const Weight *panel_of(const muse::Linear &linear, int64_t depth, int64_t panel) {
        return static_cast<const Weight *>(linear.packed) + panel * PANEL * depth;
    }

    /// The embedding of a token as codes.
    void embed_codes(int64_t token) {
        const int64_t id = batch.ids[token];
        const muse::Table &table = weights.table;
        Code *to = embedded.codes + token * DIMENSION;
        if (table.bytes) {
            const uint8_t *bytes = table.bytes + id * DIMENSION;
            for (int column = 0; column < DIMENSION; column++) to[column] = bytes[column];
            embedded.scales[token] = table.scales[id % table.shards];
            embedded.zero_points[token] = table.zero_points[id % table.shards];
        } else {
            const float *row = static_cast<const float *>(table.elements) + id * DIMENSION;
            quantize<DIMENSION>(row, to, embedded.scales[token], embedded.zero_points[token]);
        }
    }

    /// scale * (sum - zero_point * column_sum) without the scale. Each term is an integer below 2^24,
    /// so the result is exact.
    static Floats centred(const int32_t *sums, float zero_point, const float *column_sums) {
        return multiply_add(broadcast(-zero_point), load(column_sums), to_floats(sums));
    }

    /// Looks up the embeddings, projects them into each branch and applies the branch's LayerNorm.
    void project() {
        alignas(64) int32_t tile[ROWS * PANEL];
        const muse::Linear &linear = weights.projection;
        for (int64_t begin = 0; begin < batch.tokens; begin += CHUNK) {
            const int64_t end = begin + CHUNK < batch.tokens ? begin + CHUNK : batch.tokens;
            for (int64_t token = begin; token < end; token++) embed_codes(token);
            for (int branch = 0; branch < BRANCHES; branch++) {
                for (int column = 0; column < HIDDEN; column += PANEL) {
                    const int output = branch * HIDDEN + column;
                    const Weight *panel = panel_of(linear, DIMENSION, output / PANEL);
                    for (int64_t row = begin; row < end; row += ROWS) {
                        const int64_t rows = end - row < ROWS ? end - row : ROWS;
                        Kernel::template microkernel<DIMENSION>(embedded.codes + row * DIMENSION, rows, DIMENSION, panel, tile);
                        for (int64_t i = 0; i < rows; i++) {
                            const int64_t token = row + i;
                            float *to = projected + (token - begin) * HIDDEN + column;
                            for (int part = 0; part < PANEL; part += LANES) {
                                const Floats sum = centred(tile + i * PANEL + part, embedded.zero_points[token],
                                    linear.column_sums + output + part);
                                const Floats scale = broadcast(embedded.scales[token]) * load(linear.scales + output + part);
                                store(to + part, multiply_add(sum, scale, load(linear.bias + output + part)));
                            }
                        }
                    }
                }
                for (int64_t token = begin; token < end; token++) {
                    layer_norm(projected + (token - begin) * HIDDEN, weights.norms[branch],
                        hidden[branch] + row_of(branch, token) * HIDDEN);
                }
            }
        }
    }

    /// A convolution with residual: relu(windows @ weight + bias) + input. `codes` are the codes of
    /// `from`. Quantises the output of the first layer.
    void convolve(int branch, int layer, const Codes &codes, const float *from, float *to) {
        const muse::Linear &linear = weights.layers[branch][layer];
        const int64_t depth = ORDERS[branch] * HIDDEN, last = gap(branch) + span(branch);
        for (int64_t begin = gap(branch); begin < last; begin += CHUNK) {
            const int64_t end = begin + CHUNK < last ? begin + CHUNK : last;
            for (int column = 0; column < HIDDEN; column += PANEL) {
                const Weight *panel = panel_of(linear, depth, column / PANEL);
                for (int64_t row = begin; row < end; row += ROWS) {
                    const int64_t rows = end - row < ROWS ? end - row : ROWS;
                    convolve_block(branch, linear, panel, column, codes, {row, rows}, from, to);
                }
            }
            for (int64_t row = begin; layer == 0 && row < end; row++) {
                if (is_token[row]) quantize_row(inner, to, row);
            }
        }
    }

    struct Block {
        int64_t first;
        int64_t rows;
    };

    /// The convolution of a block of rows and the columns of one panel.
    void convolve_block(int branch, const muse::Linear &linear, const Weight *panel, int column, const Codes &codes,
        Block block, const float *from, float *to) {
        alignas(64) int32_t tile[ROWS * PANEL];
        alignas(64) float sums[ROWS * PANEL];
        for (int group = 0; group < ORDERS[branch] * GROUPS; group++) {
            // The group of the first row; those of the other rows follow at a distance of GROUPS.
            const int64_t first = (block.first - LEFTS[branch]) * GROUPS + group;
            Kernel::template microkernel<HIDDEN>(
                codes.codes + first * GROUP, block.rows, GROUP, panel + group * GROUP * PANEL, tile);
            for (int64_t i = 0; i < block.rows; i++) {
                const Floats scale = broadcast(codes.scales[first + i * GROUPS]);
                for (int part = 0; part < PANEL; part += LANES) {
                    const Floats sum = centred(tile + i * PANEL + part, codes.zero_points[first + i * GROUPS],
                        linear.column_sums + group * HIDDEN + column + part);
                    float *all = sums + i * PANEL + part;
                    store(all, multiply_add(sum, scale, group == 0 ? Floats{} : load(all)));
                }
            }
        }
        for (int64_t i = 0; i < block.rows; i++) {
            const int64_t place = (block.first + i) * HIDDEN + column;
            for (int part = 0; part < PANEL; part += LANES) {
                const Floats value = relu(multiply_add(
                    load(sums + i * PANEL + part), load(linear.scales + column + part), load(linear.bias + column + part)));
                store(to + place + part, mask(is_token[block.first + i], value + load(from + place + part)));
            }
        }
    }
};

} // namespace
