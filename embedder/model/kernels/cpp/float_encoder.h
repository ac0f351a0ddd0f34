// The encoder in floating point: float32 or bfloat16, depending on the kernel (encoder.h).

#pragma once

#include "encoder.h"

namespace {

template <class Kernel> class FloatEncoder : Encoder<Kernel> {
    using Base = Encoder<Kernel>;
    using typename Base::Element;
    using Base::batch, Base::first_layer, Base::for_each_chunk, Base::hidden, Base::is_token, Base::panel_of, Base::row_of,
        Base::span, Base::weights;

    Element *embedded; // (tokens, DIMENSION)
    float *projected;  // (tokens, HIDDEN)

    FloatEncoder(const muse::Weights &weights, const muse::Batch &batch) : Base(weights, batch) {}

    /// Allocates the arrays in `memory`; returns the number of bytes.
    size_t allocate(char *memory) {
        Arena arena{memory};
        const int64_t tokens = round_up(batch.tokens, Base::ROWS);
        arena.allocate(embedded, tokens * DIMENSION);
        arena.allocate(projected, tokens * HIDDEN);
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
        Base::template clear<DIMENSION>(encoder.embedded, batch.tokens, round_up(batch.tokens, Base::ROWS));
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
    /// Looks up the embeddings, projects them into each branch and applies the branch's LayerNorm.
    void project() {
        for_each_chunk(batch.tokens, [this](int64_t begin, int64_t end) {
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
        for_each_chunk(round_up(span(branch), Base::ROWS), [&, this](int64_t begin, int64_t end) {
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
};

} // namespace
