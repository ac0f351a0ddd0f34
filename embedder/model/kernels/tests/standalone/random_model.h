// Random weights and batches that are the same on every machine, in plain memory.

#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../cpp/kernel.h"

namespace standalone {

using namespace muse;

constexpr int64_t VOCABULARY = 170, SHARDS = 17, GROUP = 128;

/// Arrays that live as long as this list.
using Memory = std::vector<std::shared_ptr<void>>;

/// An array of exactly this size, so that a sanitizer detects each access beyond it.
template <class Value> Value *allocate(Memory &memory, size_t count) {
    void *array = std::aligned_alloc(64, (count * sizeof(Value) + 63) / 64 * 64);
    memory.emplace_back(array, std::free);
    return static_cast<Value *>(array);
}

/// The first 16 bits of a float32.
struct Bf16 {
    uint16_t bits;
    explicit Bf16(float value) {
        uint32_t all;
        std::memcpy(&all, &value, sizeof(all));
        bits = static_cast<uint16_t>(all >> 16);
    }
};

/// The numbers that the matrices and the table of floats consist of.
enum class Values { FLOAT32, BF16 };

struct Model {
    Memory memory;
    Weights weights{};
    Values values = Values::FLOAT32;
    uint32_t state = 2463534242u;

    /// Xorshift (Marsaglia 2003).
    uint32_t next_random() {
        state ^= state << 13;
        state ^= state >> 17;
        return state ^= state << 5;
    }

    /// A multiple of 2^-23 between -1 and 1, so that no machine rounds it.
    float random_float() { return static_cast<float>(static_cast<int32_t>(next_random()) >> 8) / 8388608.0f; }

    /// A random element of a matrix or of the table.
    float random_value(float factor) {
        float value = random_float() * factor;
        if (values == Values::BF16) {
            const uint32_t bits = static_cast<uint32_t>(Bf16(value).bits) << 16;
            std::memcpy(&value, &bits, sizeof(value));
        }
        return value;
    }

    float *vector(int64_t size, float factor, float centre) {
        float *all = allocate<float>(memory, size);
        for (int64_t i = 0; i < size; i++) all[i] = random_float() * factor + centre;
        return all;
    }

    /// Packs a matrix (outputs, inputs): see Linear in kernel.h.
    template <class Element, class Natural> const void *pack(const std::vector<Natural> &matrix, int64_t outputs, int64_t inputs) {
        constexpr int64_t group = 4 / sizeof(Element);
        Element *packed = allocate<Element>(memory, matrix.size());
        for (int64_t output = 0; output < outputs; output++) {
            for (int64_t input = 0; input < inputs; input++) {
                const int64_t panel = output / PANEL * PANEL * inputs, block = input / group * PANEL * group;
                packed[panel + block + output % PANEL * group + input % group] = static_cast<Element>(matrix[output * inputs + input]);
            }
        }
        return packed;
    }

    template <class Element> Linear linear(int64_t outputs, int64_t inputs, bool has_bias) {
        std::vector<float> matrix(outputs * inputs);
        for (float &value : matrix) value = random_value(0.0625f);
        Linear result{};
        result.packed = pack<Element>(matrix, outputs, inputs);
        if (has_bias) result.bias = vector(outputs, 0.125f, 0.0f);
        return result;
    }

    template <class Element> Linear quantized(int64_t outputs, int64_t inputs, int64_t group) {
        std::vector<int8_t> matrix(outputs * inputs);
        float *sums = allocate<float>(memory, inputs / group * outputs);
        std::memset(sums, 0, inputs / group * outputs * sizeof(float));
        for (int64_t i = 0; i < outputs * inputs; i++) {
            matrix[i] = static_cast<int8_t>(static_cast<int32_t>(next_random() % 255) - 127);
            sums[i % inputs / group * outputs + i / inputs] += matrix[i];
        }
        Linear result{};
        result.packed = pack<Element>(matrix, outputs, inputs);
        result.bias = vector(outputs, 0.125f, 0.0f);
        result.scales = vector(outputs, 0.0001f, 0.0005f);
        result.column_sums = sums;
        return result;
    }

    /// The same model for each element type: float or Bf16, int8_t or int16_t.
    template <class Element> static Model random(bool bytes, Values values = Values::FLOAT32) {
        constexpr bool IS_QUANTIZED = std::is_integral_v<Element>;
        using Float = std::conditional_t<IS_QUANTIZED, float, Element>;
        Model model;
        model.values = values;
        Weights &weights = model.weights;
        if (bytes) {
            uint8_t *rows = allocate<uint8_t>(model.memory, VOCABULARY * DIMENSION);
            for (int64_t i = 0; i < VOCABULARY * DIMENSION; i++) rows[i] = static_cast<uint8_t>(model.next_random());
            float *zero_points = allocate<float>(model.memory, SHARDS);
            for (int64_t i = 0; i < SHARDS; i++) zero_points[i] = static_cast<float>(100 + model.next_random() % 50);
            weights.table = {rows, model.vector(SHARDS, 0.005f, 0.01f), zero_points, SHARDS, nullptr};
        } else {
            Float *elements = allocate<Float>(model.memory, VOCABULARY * DIMENSION);
            for (int64_t i = 0; i < VOCABULARY * DIMENSION; i++) elements[i] = static_cast<Float>(model.random_value(1.0f));
            weights.table.elements = elements;
        }
        auto layer = [&](int64_t outputs, int64_t inputs, int64_t group) {
            if constexpr (IS_QUANTIZED) return model.quantized<Element>(outputs, inputs, group);
            else return model.linear<Float>(outputs, inputs, true);
        };
        weights.projection = layer(BRANCHES * HIDDEN, DIMENSION, DIMENSION);
        for (int branch = 0; branch < BRANCHES; branch++) {
            weights.norms[branch] = {model.vector(HIDDEN, 0.1f, 1.0f), model.vector(HIDDEN, 0.1f, 0.0f)};
            for (Linear &linear : weights.layers[branch]) linear = layer(HIDDEN, ORDERS[branch] * HIDDEN, GROUP);
        }
        weights.features = {model.vector(FEATURES, 0.1f, 1.0f), model.vector(FEATURES, 0.1f, 0.0f)};
        weights.dense = model.linear<Float>(DIMENSION, FEATURES, true);
        const int64_t shapes[4][2] = {{BOTTLENECK, DIMENSION}, {BOTTLENECK, BOTTLENECK + DIMENSION}, {DIMENSION, BOTTLENECK},
            {DIMENSION, BOTTLENECK + DIMENSION}};
        for (int i = 0; i < 4; i++) weights.hidden[i] = model.linear<Float>(shapes[i][0], shapes[i][1], false);
        return model;
    }
};

/// The vectors of a batch of sentences of these lengths.
inline std::vector<float> encode(const Kernel &kernel, const Weights &weights, const std::vector<int64_t> &lengths) {
    int64_t tokens = 0;
    for (int64_t length : lengths) tokens += length;
    std::vector<int64_t> ids(tokens);
    for (int64_t i = 0; i < tokens; i++) ids[i] = i * 31 % VOCABULARY;
    const Batch batch = {ids.data(), lengths.data(), tokens, static_cast<int64_t>(lengths.size())};
    Memory memory;
    void *workspace = allocate<char>(memory, kernel.workspace(batch));
    // What a previous pass left in the workspace must not matter.
    std::memset(workspace, 0x7f, kernel.workspace(batch));
    std::vector<float> output(lengths.size() * DIMENSION);
    kernel.encode(weights, batch, workspace, output.data());
    return output;
}

} // namespace standalone
