// The encoder in floating point: float32 or bfloat16, depending on the kernel (encoder.h).
//
// Sentences are separated by rows of zeros, as many as a window reaches to one side.

#pragma once

#include "encoder.h"

namespace {

template <class Kernel> class FloatEncoder : Encoder<Kernel> {
    using Base = Encoder<Kernel>;
    using typename Base::Element;
    using Base::batch, Base::clear, Base::panel_of, Base::ROWS, Base::weights;
    static constexpr int CHUNK = ROWS * Kernel::BLOCKS;

    Element *embedded;         // (tokens, DIMENSION)
    float *projected;          // (tokens, HIDDEN)
    Element *hidden[BRANCHES]; // (rows, HIDDEN)
    Element *first_layer;      // (rows, HIDDEN), output of the current branch's first layer
    uint8_t *is_token;         // (rows), 0 for the current branch's padding rows
    int64_t *sentence_of;      // (tokens)
    int64_t *starts;           // (sentences)

    FloatEncoder(const muse::Weights &weights, const muse::Batch &batch) : Base(weights, batch) {}

    /// Number of rows from the first token to the last.
    int64_t span(int branch) const { return batch.tokens + gap(branch) * (batch.sentences - 1); }

    /// `span`, plus the padding rows before it and those after it that the microkernel reads.
    int64_t rows(int branch) const { return gap(branch) + round_up(span(branch), ROWS) + WIDEST_GAP; }

    int64_t row_of(int branch, int64_t token) const { return token + gap(branch) * (sentence_of[token] + 1); }

    /// Allocates the arrays in `memory`; returns the number of bytes.
    size_t allocate(char *memory) {
        Arena arena{memory};
        const int64_t tokens = round_up(batch.tokens, ROWS);
        arena.allocate(embedded, tokens * DIMENSION);
        arena.allocate(projected, tokens * HIDDEN);
        const int64_t widest = rows(BRANCHES - 1);
        for (int branch = 0; branch < BRANCHES; branch++) arena.allocate(hidden[branch], rows(branch) * HIDDEN);
        arena.allocate(first_layer, widest * HIDDEN);
        arena.allocate(is_token, widest);
        arena.allocate(sentence_of, batch.tokens);
        arena.allocate(starts, batch.sentences);
        Base::allocate(arena);
        return arena.used;
    }

  public:
    static size_t workspace(const muse::Batch &batch) { return FloatEncoder({}, batch).allocate(nullptr); }

    static void run(const muse::Weights &weights, const muse::Batch &batch, void *memory, float *output) {
        [[maybe_unused]] const typename Kernel::Session session;
        FloatEncoder encoder(weights, batch);
        encoder.allocate(static_cast<char *>(memory));
        encoder.clear_padding();
        encoder.template clear<DIMENSION>(encoder.embedded, batch.tokens, round_up(batch.tokens, ROWS));
        encoder.index_sentences();
        encoder.project();
        for (int branch = 0; branch < BRANCHES; branch++) {
            encoder.mark_tokens(branch);
            encoder.convolve(branch, 0, encoder.hidden[branch], encoder.first_layer);
            encoder.convolve(branch, 1, encoder.first_layer, encoder.hidden[branch]);
        }
        encoder.pool();
        encoder.dense_layers(output);
    }

  private:
    /// Computes `starts` and `sentence_of`.
    void index_sentences() {
        int64_t token = 0;
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
            starts[sentence] = token;
            for (int64_t i = 0; i < batch.lengths[sentence]; i++) sentence_of[token++] = sentence;
        }
    }

    /// Computes `is_token` and zeroes the padding rows that the convolutions read.
    void mark_tokens(int branch) {
        const int64_t all = rows(branch), padding = gap(branch), first = padding, last = first + span(branch);
        __builtin_memset(is_token, 0, all);
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
            const int64_t row = row_of(branch, starts[sentence]);
            __builtin_memset(is_token + row, 1, batch.lengths[sentence]);
            clear(hidden[branch], row - padding, row);
        }
        clear(hidden[branch], last, all);
        clear(first_layer, 0, first);
        clear(first_layer, first + round_up(span(branch), ROWS), all);
    }

    /// Looks up the embeddings, projects them into each branch and applies the branch's LayerNorm.
    void project() {
        Base::for_each_chunk(batch.tokens, CHUNK, [this](int64_t begin, int64_t end) {
            for (int64_t token = begin; token < end; token++) {
                Floats row[DIMENSION / LANES];
                embed<Element>(weights.table, batch.ids[token], row);
                for (int part = 0; part < DIMENSION / LANES; part++) {
                    store(embedded + token * DIMENSION + part * LANES, row[part]);
                }
            }
            for (int branch = 0; branch < BRANCHES; branch++) {
                for (int column = 0; column < HIDDEN; column += PANEL) {
                    const int output = branch * HIDDEN + column;
                    const PanelRow biases(weights.projection.bias + output);
                    Base::template multiply<DIMENSION>(embedded + begin * DIMENSION, end - begin, DIMENSION,
                        panel_of(weights.projection, DIMENSION, output / PANEL), [&](int64_t row, const float *sums) {
                            float *to = projected + (begin + row) * HIDDEN + column;
                            for (int part = 0; part < VECTORS; part++) {
                                store(to + part * LANES, load(sums + part * LANES) + biases.parts[part]);
                            }
                        });
                }
                for (int64_t token = begin; token < end; token++) {
                    layer_norm(projected + token * HIDDEN, weights.norms[branch],
                        hidden[branch] + row_of(branch, token) * HIDDEN);
                }
            }
        });
    }

    /// A convolution with residual: relu(windows @ weight + bias) + input.
    void convolve(int branch, int layer, const Element *from, Element *to) {
        const muse::Linear &linear = weights.layers[branch][layer];
        const int64_t depth = ORDERS[branch] * HIDDEN;
        Base::for_each_chunk(round_up(span(branch), ROWS), CHUNK, [&, this](int64_t begin, int64_t end) {
            const int64_t first = gap(branch) + begin;
            for (int column = 0; column < HIDDEN; column += PANEL) {
                const PanelRow biases(linear.bias + column);
                Base::template multiply<HIDDEN>(from + (first - LEFTS[branch]) * HIDDEN, end - begin, depth,
                    panel_of(linear, depth, column / PANEL), [&](int64_t row, const float *sums) {
                        const int64_t place = (first + row) * HIDDEN + column;
                        for (int part = 0; part < VECTORS; part++) {
                            const Floats value = relu(load(sums + part * LANES) + biases.parts[part]);
                            const Floats residual = load(from + place + part * LANES);
                            store(to + place + part * LANES, mask(is_token[first + row], value + residual));
                        }
                    });
            }
        });
    }

    void pool() {
        for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
            const Element *rows[BRANCHES];
            for (int branch = 0; branch < BRANCHES; branch++) {
                rows[branch] = hidden[branch] + row_of(branch, starts[sentence]) * HIDDEN;
            }
            Base::pool_sentence(sentence, batch.ids + starts[sentence], rows);
        }
    }
};

} // namespace
