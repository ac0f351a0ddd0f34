// The encoder with integer products.
//
// The projections and convolutions multiply unsigned 8-bit activations by signed 8-bit weights, and
// sum in 32 bits, which is exact. The embeddings are the bytes of the table. The other activations
// are quantised in groups of 128 values of a token, each with a scale and a zero point of its own; a
// convolution therefore sums up each group of a window separately, and adds these sums in float32.
// All other steps are those of the float32 encoder.
//
// There are no padding rows between sentences: where a window reaches beyond its sentence, the scale
// is 0. The encoder divides the batch into micro-batches whose activations fit in the second-level
// cache.
//
// A kernel is a type with
//   Float         the float32 kernel (encoder.h) of the dense layers
//   Code          element type of the activations
//   Weight        element type of the weights
//   ROWS, BLOCKS, Session   as in encoder.h
//   multiply<STRIDE>(a, rows, depth, b, epilogue)
//       as the microkernel in encoder.h, but instead of storing the product A (rows, depth) x B (depth,
//       PANEL) it calls epilogue(row, part, sums) for each vector of each row, converted to floats.

#pragma once

#include "encoder.h"

namespace {

/// Number of values that are quantised together. With 256, the vectors of sentences that repeat one
/// token a hundred times were off by 0.001, since the rounding errors of all tokens add up.
constexpr int GROUP = 128;
constexpr int GROUPS = HIDDEN / GROUP;
/// The largest number of groups in a window.
constexpr int WINDOW_GROUPS = ORDERS[BRANCHES - 1] * GROUPS;
/// Number of tokens of a micro-batch, about; each takes 5 KiB in the cache.
constexpr int64_t MICRO_BATCH = 256;

/// Quantises COLUMNS values to 0..255: value = scale * (code + negated_zero_point).
template <int COLUMNS, class Code> inline void quantize(const float *from, Code *to, float &scale, float &negated_zero_point) {
    Floats row[COLUMNS / LANES], largest{}, smallest{};
    for (int part = 0; part < COLUMNS / LANES; part++) {
        row[part] = load(from + part * LANES);
        largest = max(row[part], largest);
        smallest = min(row[part], smallest);
    }
    const float high = reduce_max(largest), low = reduce_max(Floats{} - smallest), range = high + low;
    // Below, the quotient would overflow.
    const float inverse = range > 1e-30f ? 255.0f / range : 0.0f;
    scale = range > 1e-30f ? range / 255.0f : 0.0f;
    const float zero_point = __builtin_rintf(low * inverse);
    negated_zero_point = -zero_point;
    for (int part = 0; part < COLUMNS / LANES; part++) {
        const Floats code = multiply_add(row[part], broadcast(inverse), broadcast(zero_point));
        store_rounded(to + part * LANES, min(max(code, Floats{}), broadcast(255.0f)));
    }
}

template <class Kernel> class Int8Encoder : Encoder<typename Kernel::Float> {
    using Base = Encoder<typename Kernel::Float>;
    using Code = typename Kernel::Code;
    using Weight = typename Kernel::Weight;
    using Base::batch, Base::weights;
    static constexpr int ROWS = Kernel::ROWS;
    static constexpr int CHUNK = ROWS * Kernel::BLOCKS;

    /// The scales and the negated zero points of groups of codes, (groups, rows).
    struct Scales {
        float *scales;
        float *zero_points;
    };

    struct Codes : Scales {
        Code *codes; // (rows, columns)
    };

    muse::Batch micro_batch; // the sentences that are being encoded
    int64_t capacity = 0;    // number of rows of the arrays
    Codes embedded;          // (tokens, DIMENSION), one group
    Codes input;             // (tokens, HIDDEN), input of the current branch's first layer
    Codes inner;             // (tokens, HIDDEN), its output
    Scales windows;          // of the groups of each token's window
    float *projected;        // (CHUNK, HIDDEN)
    float *hidden[BRANCHES]; // (tokens, HIDDEN)
    float *first_layer;      // (tokens, HIDDEN), output of the current branch's first layer

    Int8Encoder(const muse::Weights &weights, const muse::Batch &batch) : Base(weights, batch) {
        for_each_micro_batch([this] {
            const int64_t rows = round_up(micro_batch.tokens, ROWS);
            capacity = rows > capacity ? rows : capacity;
        });
    }

    /// Divides the batch into micro-batches of about the same number of tokens, and calls `body` for
    /// each.
    template <class Body> void for_each_micro_batch(Body body) {
        const int64_t count = (batch.tokens + MICRO_BATCH - 1) / MICRO_BATCH, share = (batch.tokens + count - 1) / count;
        micro_batch = {batch.ids, batch.lengths, 0, 0};
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
            micro_batch.tokens += batch.lengths[sentence];
            micro_batch.sentences++;
            if (micro_batch.tokens < share && sentence + 1 < batch.sentences) continue;
            body();
            micro_batch = {micro_batch.ids + micro_batch.tokens, batch.lengths + sentence + 1, 0, 0};
        }
    }

    void allocate(Arena &arena, Scales &scales, int groups) {
        arena.allocate(scales.scales, groups * capacity);
        arena.allocate(scales.zero_points, groups * capacity);
    }

    /// `margin`: the rows before the first token, and those after the last, that windows reach. They
    /// stay uninitialised, since their scale is 0.
    void allocate(Arena &arena, Codes &codes, int columns, int groups, int margin) {
        arena.allocate(codes.codes, (margin + capacity + margin) * columns);
        codes.codes += margin * columns;
        allocate(arena, codes, groups);
    }

    /// Allocates the arrays in `memory`; returns the number of bytes.
    size_t allocate(char *memory) {
        Arena arena{memory};
        allocate(arena, embedded, DIMENSION, 1, 0);
        allocate(arena, input, HIDDEN, GROUPS, WIDEST_GAP);
        allocate(arena, inner, HIDDEN, GROUPS, WIDEST_GAP);
        allocate(arena, windows, WINDOW_GROUPS);
        arena.allocate(projected, CHUNK * HIDDEN);
        for (float *&branch : hidden) arena.allocate(branch, capacity * HIDDEN);
        arena.allocate(first_layer, capacity * HIDDEN);
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
        encoder.for_each_micro_batch([&] {
            encoder.embed_tokens();
            for (int branch = 0; branch < BRANCHES; branch++) {
                encoder.project(branch);
                encoder.convolve(branch, 0, encoder.input, encoder.hidden[branch], encoder.first_layer);
                encoder.convolve(branch, 1, encoder.inner, encoder.first_layer, encoder.hidden[branch]);
            }
            encoder.pool();
        });
        encoder.dense_layers(output);
    }

  private:
    static const Weight *panel_of(const muse::Linear &linear, int64_t depth, int64_t panel) {
        return static_cast<const Weight *>(linear.packed) + panel * PANEL * depth;
    }

    void quantize_row(Codes &codes, const float *from, int64_t row) {
        for (int group = 0; group < GROUPS; group++) {
            const int64_t first = row * HIDDEN + group * GROUP, place = group * capacity + row;
            quantize<GROUP>(from + first, codes.codes + first, codes.scales[place], codes.zero_points[place]);
        }
    }

    /// The embeddings of the tokens as codes.
    void embed_tokens() {
        const muse::Table &table = weights.table;
        for (int64_t token = 0; token < micro_batch.tokens; token++) {
            const int64_t id = micro_batch.ids[token];
            Code *to = embedded.codes + token * DIMENSION;
            if (table.bytes) {
                const uint8_t *bytes = table.bytes + id * DIMENSION;
                for (int column = 0; column < DIMENSION; column++) to[column] = bytes[column];
                embedded.scales[token] = table.scales[id % table.shards];
                embedded.zero_points[token] = -table.zero_points[id % table.shards];
            } else {
                const float *row = static_cast<const float *>(table.elements) + id * DIMENSION;
                quantize<DIMENSION>(row, to, embedded.scales[token], embedded.zero_points[token]);
            }
        }
    }

    /// sum - zero_point * column_sum. Each term is an integer below 2^24, so the result is exact.
    static Floats centred(Floats sum, float negated_zero_point, const float *column_sums) {
        return multiply_add(broadcast(negated_zero_point), load(column_sums), sum);
    }

    /// Projects the embeddings into a branch, applies the branch's LayerNorm, and quantises its output.
    void project(int branch) {
        const muse::Linear &linear = weights.projection;
        Base::for_each_chunk(micro_batch.tokens, CHUNK, [&, this](int64_t begin, int64_t end) {
            for (int column = 0; column < HIDDEN; column += PANEL) {
                const int first = branch * HIDDEN + column;
                const Weight *panel = panel_of(linear, DIMENSION, first / PANEL);
                for (int64_t token = begin; token < end; token += ROWS) {
                    const int64_t rows = end - token < ROWS ? end - token : ROWS;
                    const float *row_scales = embedded.scales + token, *row_zero_points = embedded.zero_points + token;
                    const float *column_sums = linear.column_sums + first, *column_scales = linear.scales + first;
                    const float *bias = linear.bias + first;
                    float *to = projected + (token - begin) * HIDDEN + column;
                    Kernel::template multiply<DIMENSION>(embedded.codes + token * DIMENSION, rows, DIMENSION, panel,
                        [=](int row, int part, Floats sum) {
                            sum = centred(sum, row_zero_points[row], column_sums + part * LANES);
                            const Floats scale = broadcast(row_scales[row]) * load(column_scales + part * LANES);
                            store(to + row * HIDDEN + part * LANES, multiply_add(sum, scale, load(bias + part * LANES)));
                        });
                }
            }
            for (int64_t token = begin; token < end; token++) {
                layer_norm(projected + (token - begin) * HIDDEN, weights.norms[branch], hidden[branch] + token * HIDDEN);
                quantize_row(input, hidden[branch], token);
            }
        });
    }

    /// Computes `windows` from the scales of the tokens; 0 beyond a token's sentence.
    void gather_windows(int branch, const Scales &tokens) {
        for (int group = 0; group < ORDERS[branch] * GROUPS; group++) {
            const int64_t offset = group / GROUPS - LEFTS[branch], from = group % GROUPS * capacity + offset;
            float *to_scales = windows.scales + group * capacity, *to_zero_points = windows.zero_points + group * capacity;
            int64_t start = 0;
            for (int64_t sentence = 0; sentence < micro_batch.sentences; sentence++) {
                const int64_t length = micro_batch.lengths[sentence];
                for (int64_t token = start; token < start + length; token++) {
                    const bool inside = token + offset >= start && token + offset < start + length;
                    to_scales[token] = inside ? tokens.scales[from + token] : 0.0f;
                    to_zero_points[token] = inside ? tokens.zero_points[from + token] : 0.0f;
                }
                start += length;
            }
        }
    }

    /// A convolution with residual: relu(windows @ weight + bias) + input. `codes` are the codes of
    /// `from`. Quantises the output of the first layer.
    void convolve(int branch, int layer, const Codes &codes, const float *from, float *to) {
        const muse::Linear &linear = weights.layers[branch][layer];
        const int64_t depth = ORDERS[branch] * HIDDEN;
        gather_windows(branch, codes);
        Base::for_each_chunk(micro_batch.tokens, CHUNK, [&, this](int64_t begin, int64_t end) {
            for (int column = 0; column < HIDDEN; column += PANEL) {
                const Weight *panel = panel_of(linear, depth, column / PANEL);
                for (int64_t token = begin; token < end; token += ROWS) {
                    const int64_t rows = end - token < ROWS ? end - token : ROWS;
                    convolve_block(branch, linear, panel, column, codes.codes, {token, rows}, from, to);
                }
            }
            for (int64_t token = begin; layer == 0 && token < end; token++) quantize_row(inner, to, token);
        });
    }

    struct Block {
        int64_t first;
        int64_t rows;
    };

    /// The convolution of a block of rows and the columns of one panel.
    void convolve_block(int branch, const muse::Linear &linear, const Weight *panel, int column, const Code *codes, Block block,
        const float *from, float *to) {
        alignas(64) float sums[ROWS * PANEL];
        for (int i = 0; i < ROWS * PANEL; i += LANES) store(sums + i, Floats{});
        const Code *window = codes + (block.first - LEFTS[branch]) * HIDDEN;
        for (int group = 0; group < ORDERS[branch] * GROUPS; group++) {
            const float *row_scales = windows.scales + group * capacity + block.first;
            const float *row_zero_points = windows.zero_points + group * capacity + block.first;
            const float *column_sums = linear.column_sums + group * HIDDEN + column;
            float *all = sums;
            Kernel::template multiply<HIDDEN>(window + group * GROUP, block.rows, GROUP, panel + group * GROUP * PANEL,
                [=](int row, int part, Floats sum) {
                    sum = centred(sum, row_zero_points[row], column_sums + part * LANES);
                    float *const total = all + row * PANEL + part * LANES;
                    store(total, multiply_add(sum, broadcast(row_scales[row]), load(total)));
                });
        }
        for (int64_t row = 0; row < block.rows; row++) {
            const int64_t place = (block.first + row) * HIDDEN + column;
            for (int part = 0; part < PANEL; part += LANES) {
                const Floats value = relu(multiply_add(
                    load(sums + row * PANEL + part), load(linear.scales + column + part), load(linear.bias + column + part)));
                store(to + place + part, value + load(from + place + part));
            }
        }
    }

    /// Pools the sentences of the micro-batch.
    void pool() {
        int64_t start = 0;
        for (int64_t sentence = 0; sentence < micro_batch.sentences; sentence++) {
            const float *rows[BRANCHES];
            for (int branch = 0; branch < BRANCHES; branch++) rows[branch] = hidden[branch] + start * HIDDEN;
            Base::pool_sentence(micro_batch.lengths - batch.lengths + sentence, micro_batch.ids + start, rows);
            start += micro_batch.lengths[sentence];
        }
    }
};

} // namespace
