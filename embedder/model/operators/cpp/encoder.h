// The encoder, over any kernel of matrix products.
//
// Sentences lie one after the other with rows of zeros between, so that the windows of all tokens are the rows of one
// matrix, which overlap: it is never written out, as the product reads it where the rows are. Between two sentences are
// no more zeros than a window reaches to one side.
//
// A kernel is a type with
//   Element       what is multiplied
//   ROWS          rows that one call computes at most
//   BLOCKS        so many times ROWS go through one panel of a weight before the next panel's turn
//   Session       held while it is called
//   products<STRIDE>(a, rows, depth, b, tile)
//       tile (ROWS, PANEL) = A (rows, depth) x B (depth, PANEL): row i of A begins STRIDE elements after row i - 1, B is one
//       panel of a packed weight. ROWS rows of A can be read; those of the tile after `rows` are undefined.

#pragma once

#include "rows.h"

namespace {

using muse::BOTTLENECK, muse::BRANCHES, muse::DIMENSION, muse::FEATURES, muse::HIDDEN, muse::LEFTS, muse::ORDERS, muse::PANEL;

/// Rows of zeros between two sentences.
constexpr int gap(int branch) {
    const int left = LEFTS[branch], right = ORDERS[branch] - 1 - left;
    return left > right ? left : right;
}

constexpr int WIDEST_GAP = gap(BRANCHES - 1);

constexpr int64_t round_up(int64_t number, int64_t multiple) { return (number + multiple - 1) / multiple * multiple; }

/// Columns of what two layers after the sum read: that of BOTTLENECK and the one of DIMENSION before it.
constexpr int BOTH = BOTTLENECK + DIMENSION;

/// Registers of a row of a panel.
constexpr int REGISTERS = PANEL / LANES;

struct PanelRow {
    Floats parts[REGISTERS];
    explicit PanelRow(const float *from) {
        for (int part = 0; part < REGISTERS; part++) parts[part] = load(from + part * LANES);
    }
};

/// Memory that is given away from its beginning on.
struct Parts {
    char *memory;
    size_t used = 0;

    template <class Value> void take(Value *&array, int64_t values) {
        array = reinterpret_cast<Value *>(memory + used);
        used += round_up(values * sizeof(Value), 64);
    }
};

template <class Kernel> class Encoder {
    using Element = typename Kernel::Element;
    static constexpr int ROWS = Kernel::ROWS;
    static constexpr int CHUNK = ROWS * Kernel::BLOCKS;

    const muse::Weights weights;
    const muse::Batch batch;
    Element *embedded;                // (tokens, DIMENSION)
    float *projected;                 // (tokens, HIDDEN)
    Element *hidden[BRANCHES];        // (rows, HIDDEN)
    Element *between;                 // (rows, HIDDEN), of the branch that is at work
    uint8_t *is_token;                // (rows), the same
    int64_t *sentence_of;             // (tokens)
    int64_t *starts;                  // (sentences)
    Element *sums;                    // (sentences, FEATURES)
    Element *first;                   // (sentences, BOTH), s0 and y
    Element *second;                  // (sentences, BOTH), s1 and s2

  public:
    static size_t workspace(const muse::Batch &batch) {
        return Encoder({}, batch).place(nullptr);
    }

    static void run(const muse::Weights &weights, const muse::Batch &batch, void *memory, float *to) {
        [[maybe_unused]] const typename Kernel::Session session;
        Encoder encoder(weights, batch);
        encoder.place(static_cast<char *>(memory));
        encoder.clear_slack();
        encoder.find_sentences();
        encoder.project();
        for (int branch = 0; branch < BRANCHES; branch++) {
            encoder.mark_tokens(branch);
            encoder.convolve(branch, 0, encoder.hidden[branch], encoder.between);
            encoder.convolve(branch, 1, encoder.between, encoder.hidden[branch]);
        }
        encoder.add_up();
        encoder.finish(to);
    }

  private:
    Encoder(const muse::Weights &weights, const muse::Batch &batch) : weights(weights), batch(batch) {}

    /// Rows from the first token's to the last's.
    int64_t span(int branch) const { return batch.tokens + gap(branch) * (batch.sentences - 1); }

    /// With those before, and those after that a product reads.
    int64_t rows(int branch) const { return gap(branch) + round_up(span(branch), ROWS) + WIDEST_GAP; }

    int64_t row_of(int branch, int64_t token) const { return token + gap(branch) * (sentence_of[token] + 1); }

    /// Gives each array its part of the memory; returns how much that is.
    size_t place(char *memory) {
        Parts parts{memory};
        const int64_t tokens = round_up(batch.tokens, ROWS), widest = rows(BRANCHES - 1);
        parts.take(embedded, tokens * DIMENSION);
        parts.take(projected, tokens * HIDDEN);
        for (int branch = 0; branch < BRANCHES; branch++) parts.take(hidden[branch], rows(branch) * HIDDEN);
        parts.take(between, widest * HIDDEN);
        parts.take(is_token, widest);
        parts.take(sentence_of, batch.tokens);
        parts.take(starts, batch.sentences);
        const int64_t sentences = round_up(batch.sentences, ROWS);
        parts.take(sums, sentences * FEATURES);
        parts.take(first, sentences * BOTH);
        parts.take(second, sentences * BOTH);
        return parts.used;
    }

    /// Calls `body(begin, end)` for one chunk of 0..count after the other.
    template <class Body> static void chunks(int64_t count, Body body) {
        for (int64_t begin = 0; begin < count; begin += CHUNK) body(begin, count - begin < CHUNK ? count : begin + CHUNK);
    }

    void find_sentences() {
        int64_t token = 0;
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
            starts[sentence] = token;
            for (int64_t i = 0; i < batch.lengths[sentence]; i++) sentence_of[token++] = sentence;
        }
    }

    template <int COLUMNS = HIDDEN> static void clear(Element *array, int64_t begin, int64_t end) {
        __builtin_memset(array + begin * COLUMNS, 0, (end - begin) * COLUMNS * sizeof(Element));
    }

    /// Rows that a product reads and nobody needs: arithmetic with what happens to be there could be slow.
    void clear_slack() {
        clear<DIMENSION>(embedded, batch.tokens, round_up(batch.tokens, ROWS));
        const int64_t all = round_up(batch.sentences, ROWS);
        clear<FEATURES>(sums, batch.sentences, all);
        clear<BOTH>(first, batch.sentences, all);
        clear<BOTH>(second, batch.sentences, all);
    }

    /// Rows that are no token's: is_token, and zeros in all that is read of them.
    void mark_tokens(int branch) {
        const int64_t all = rows(branch), between_two = gap(branch), first = between_two, last = first + span(branch);
        __builtin_memset(is_token, 0, all);
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
            const int64_t row = row_of(branch, starts[sentence]);
            __builtin_memset(is_token + row, 1, batch.lengths[sentence]);
            clear(hidden[branch], row - between_two, row);
        }
        clear(hidden[branch], last, all);
        clear(between, 0, first);
        clear(between, first + round_up(span(branch), ROWS), all);
    }

    /// One panel of the products of `count` rows from `a` on, handed row by row to `with(row, sums)`.
    template <int STRIDE, class With>
    static void multiply(const Element *a, int64_t count, int64_t depth, const Element *panel, With with) {
        alignas(64) float tile[ROWS * PANEL];
        for (int64_t row = 0; row < count; row += ROWS) {
            const int64_t some = count - row < ROWS ? count - row : ROWS;
            Kernel::template products<STRIDE>(a + row * STRIDE, some, depth, panel, tile);
            for (int64_t i = 0; i < some; i++) with(row + i, tile + i * PANEL);
        }
    }

    static const Element *panel_of(const muse::Linear &linear, int64_t depth, int64_t panel) {
        return static_cast<const Element *>(linear.packed) + panel * PANEL * depth;
    }

    /// Embeds the tokens and projects them into each branch.
    void project() {
        chunks(batch.tokens, [this](int64_t begin, int64_t end) {
            for (int64_t token = begin; token < end; token++) {
                Floats row[DIMENSION / LANES];
                embed<Element>(weights.table, batch.ids[token], row);
                for (int part = 0; part < DIMENSION / LANES; part++) {
                    store(embedded + token * DIMENSION + part * LANES, row[part]);
                }
            }
            for (int branch = 0; branch < BRANCHES; branch++) {
                for (int column = 0; column < HIDDEN; column += PANEL) {
                    const int of_all = branch * HIDDEN + column;
                    const PanelRow biases(weights.projection.bias + of_all);
                    multiply<DIMENSION>(embedded + begin * DIMENSION, end - begin, DIMENSION,
                        panel_of(weights.projection, DIMENSION, of_all / PANEL), [&](int64_t row, const float *sums) {
                            float *to = projected + (begin + row) * HIDDEN + column;
                            for (int part = 0; part < REGISTERS; part++) {
                                store(to + part * LANES, load(sums + part * LANES) + biases.parts[part]);
                            }
                        });
                }
                for (int64_t token = begin; token < end; token++) {
                    normalise(projected + token * HIDDEN, weights.norms[branch],
                        hidden[branch] + row_of(branch, token) * HIDDEN);
                }
            }
        });
    }

    /// relu(windows @ weight + bias) + the row itself.
    void convolve(int branch, int layer, const Element *from, Element *to) {
        const muse::Linear &linear = weights.layers[branch][layer];
        const int64_t depth = ORDERS[branch] * HIDDEN;
        chunks(round_up(span(branch), ROWS), [&, this](int64_t begin, int64_t end) {
            const int64_t first = gap(branch) + begin;
            for (int column = 0; column < HIDDEN; column += PANEL) {
                const PanelRow biases(linear.bias + column);
                multiply<HIDDEN>(from + (first - LEFTS[branch]) * HIDDEN, end - begin, depth,
                    panel_of(linear, depth, column / PANEL), [&](int64_t row, const float *sums) {
                        const int64_t place = (first + row) * HIDDEN + column;
                        for (int part = 0; part < REGISTERS; part++) {
                            const Floats value = relu(load(sums + part * LANES) + biases.parts[part]);
                            const Floats residual = load(from + place + part * LANES);
                            store(to + place + part * LANES, zero_unless(is_token[first + row], value + residual));
                        }
                    });
            }
        });
    }

    /// Normalises the features of each token and adds up those of a sentence.
    void add_up() {
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
            Floats sum[FEATURES / LANES] = {};
            const int64_t start = starts[sentence], length = batch.lengths[sentence];
            for (int64_t token = start; token < start + length; token++) {
                Floats features[FEATURES / LANES];
                // From the table once more: `embedded` may be rounded to bfloat16.
                embed<Element>(weights.table, batch.ids[token], *reinterpret_cast<Floats(*)[DIMENSION / LANES]>(features));
                for (int branch = 0; branch < BRANCHES; branch++) {
                    const Element *row = hidden[branch] + row_of(branch, token) * HIDDEN;
                    for (int part = 0; part < HIDDEN / LANES; part++) {
                        features[(DIMENSION + branch * HIDDEN) / LANES + part] = load(row + part * LANES);
                    }
                }
                const Moments of = moments(features);
                for (int part = 0; part < FEATURES / LANES; part++) {
                    sum[part] = multiply_add(features[part] - all(of.mean), all(of.scale), sum[part]);
                }
            }
            const Floats count = all(static_cast<float>(length));
            for (int part = 0; part < FEATURES / LANES; part++) {
                const Floats beta = load(weights.features.beta + part * LANES);
                const Floats gamma = load(weights.features.gamma + part * LANES);
                store(sums + sentence * FEATURES + part * LANES, multiply_add(sum[part], gamma, beta * count));
            }
        }
    }

    /// The layers after the sum, but for tanh and the norm.
    void finish(float *to) {
        // sum_t(f @ D + d) / sqrt(n) = sum_t(f) @ D / sqrt(n) + d * sqrt(n).
        layer<FEATURES>(sums, FEATURES, weights.dense, DIMENSION, [this](int64_t row, int column, Floats value) {
            const float root = __builtin_sqrtf(static_cast<float>(batch.lengths[row]));
            value = value / all(root) + load(weights.dense.bias + column) * all(root);
            store(first + row * BOTH + BOTTLENECK + column, value);
        });
        auto relu_to = [](Element *array) {
            return [array](int64_t row, int column, Floats value) {
                store(array + row * BOTH + column, relu(value));
            };
        };
        layer<BOTH>(first + BOTTLENECK, DIMENSION, weights.hidden[0], BOTTLENECK, relu_to(first));
        layer<BOTH>(first, BOTH, weights.hidden[1], BOTTLENECK, relu_to(second));
        layer<BOTH>(second, BOTTLENECK, weights.hidden[2], DIMENSION, relu_to(second + BOTTLENECK));
        layer<BOTH>(second, BOTH, weights.hidden[3], DIMENSION,
            [to](int64_t row, int column, Floats value) { store(to + row * DIMENSION + column, value); });
    }

    /// Hands each register of the products of the sentences' rows to `with(row, column, values)`.
    template <int STRIDE, class With>
    void layer(const Element *from, int64_t depth, const muse::Linear &linear, int columns, With with) {
        for (int column = 0; column < columns; column += PANEL) {
            multiply<STRIDE>(from, batch.sentences, depth, panel_of(linear, depth, column / PANEL),
                [&](int64_t row, const float *values) {
                    for (int part = 0; part < REGISTERS; part++) with(row, column + part * LANES, load(values + part * LANES));
                });
        }
    }
};

} // namespace
