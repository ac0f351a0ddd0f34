// Runs the kernels without libtorch, with weights and batches that are the same on every machine,
// and prints a hash of the vectors of each precision. tests/standalone.rs compiles it with
// sanitizers, and for other architectures.
//
// usage: check; exits with 1 if two kernels of a precision return different bits.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../cpp/kernel.h"

namespace {

using namespace muse;

constexpr int64_t VOCABULARY = 170, SHARDS = 17, GROUP = 128;

/// An array of exactly this size, so that a sanitizer detects each access beyond it.
template <class Value> Value *allocate(std::vector<std::shared_ptr<void>> &memory, size_t count) {
    void *array = std::aligned_alloc(64, (count * sizeof(Value) + 63) / 64 * 64);
    memory.emplace_back(array, std::free);
    return static_cast<Value *>(array);
}

struct Model {
    std::vector<std::shared_ptr<void>> memory;
    Weights weights{};
    uint32_t state = 2463534242u;

    /// Xorshift (Marsaglia 2003).
    uint32_t next_random() {
        state ^= state << 13;
        state ^= state >> 17;
        return state ^= state << 5;
    }

    /// A multiple of 2^-23 between -1 and 1, so that no machine rounds it.
    float random_float() { return static_cast<float>(static_cast<int32_t>(next_random()) >> 8) / 8388608.0f; }

    float *vector(int64_t size, float factor, float centre) {
        float *values = allocate<float>(memory, size);
        for (int64_t i = 0; i < size; i++) values[i] = random_float() * factor + centre;
        return values;
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

    Linear linear(int64_t outputs, int64_t inputs, bool has_bias) {
        std::vector<float> matrix(outputs * inputs);
        for (float &value : matrix) value = random_float() * 0.0625f;
        Linear result{};
        result.packed = pack<float>(matrix, outputs, inputs);
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

    /// The same model for each element type, which is float, int8_t or int16_t.
    template <class Element> static Model random(bool bytes) {
        Model model;
        Weights &weights = model.weights;
        if (bytes) {
            uint8_t *rows = allocate<uint8_t>(model.memory, VOCABULARY * DIMENSION);
            for (int64_t i = 0; i < VOCABULARY * DIMENSION; i++) rows[i] = static_cast<uint8_t>(model.next_random());
            float *zero_points = allocate<float>(model.memory, SHARDS);
            for (int64_t i = 0; i < SHARDS; i++) zero_points[i] = static_cast<float>(100 + model.next_random() % 50);
            weights.table = {rows, model.vector(SHARDS, 0.005f, 0.01f), zero_points, SHARDS, nullptr};
        } else {
            weights.table.elements = model.vector(VOCABULARY * DIMENSION, 1.0f, 0.0f);
        }
        auto layer = [&](int64_t outputs, int64_t inputs, int64_t group) {
            if constexpr (sizeof(Element) == sizeof(float)) return model.linear(outputs, inputs, true);
            else return model.quantized<Element>(outputs, inputs, group);
        };
        weights.projection = layer(BRANCHES * HIDDEN, DIMENSION, DIMENSION);
        for (int branch = 0; branch < BRANCHES; branch++) {
            weights.norms[branch] = {model.vector(HIDDEN, 0.1f, 1.0f), model.vector(HIDDEN, 0.1f, 0.0f)};
            for (Linear &linear : weights.layers[branch]) linear = layer(HIDDEN, ORDERS[branch] * HIDDEN, GROUP);
        }
        weights.features = {model.vector(FEATURES, 0.1f, 1.0f), model.vector(FEATURES, 0.1f, 0.0f)};
        weights.dense = model.linear(DIMENSION, FEATURES, true);
        const int64_t shapes[4][2] = {{BOTTLENECK, DIMENSION}, {BOTTLENECK, BOTTLENECK + DIMENSION}, {DIMENSION, BOTTLENECK},
            {DIMENSION, BOTTLENECK + DIMENSION}};
        for (int i = 0; i < 4; i++) weights.hidden[i] = model.linear(shapes[i][0], shapes[i][1], false);
        return model;
    }
};

std::vector<std::vector<int64_t>> batches() {
    return {{1}, {2}, {3}, {5}, {14}, {15}, std::vector<int64_t>(31, 1), {1, 2, 3, 4, 5}, {90, 1, 31, 32, 33},
        std::vector<int64_t>(29, 2)};
}

/// FNV-1a (Fowler, Noll and Vo) of the bits of all vectors.
uint64_t hash_of(const Kernel &kernel, const Weights &weights) {
    uint64_t hash = 14695981039346656037u;
    for (const std::vector<int64_t> &lengths : batches()) {
        int64_t tokens = 0;
        for (int64_t length : lengths) tokens += length;
        std::vector<int64_t> ids(tokens);
        for (int64_t i = 0; i < tokens; i++) ids[i] = i * 31 % VOCABULARY;
        const Batch batch = {ids.data(), lengths.data(), tokens, static_cast<int64_t>(lengths.size())};
        std::vector<std::shared_ptr<void>> memory;
        void *workspace = allocate<char>(memory, kernel.workspace(batch));
        // What a previous pass left in the workspace must not matter.
        std::memset(workspace, 0x7f, kernel.workspace(batch));
        std::vector<float> output(lengths.size() * DIMENSION);
        kernel.encode(weights, batch, workspace, output.data());
        const unsigned char *bytes = reinterpret_cast<const unsigned char *>(output.data());
        for (size_t i = 0; i < output.size() * sizeof(float); i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    }
    return hash;
}

bool same = true;

/// Compares the bits of a kernel with those of the portable one.
void compare(const Kernel &kernel, const Weights &weights, uint64_t expected) {
    const uint64_t found = hash_of(kernel, weights);
    std::fprintf(stderr, "%s: %016llx\n", kernel.name, static_cast<unsigned long long>(found));
    same = same && found == expected;
}

} // namespace

int main() {
    for (const bool bytes : {true, false}) {
        const Model floats = Model::random<float>(bytes), codes = Model::random<int8_t>(bytes);
        const uint64_t f32 = hash_of(PORTABLE_F32, floats.weights), int8 = hash_of(PORTABLE_INT8, codes.weights);
        std::printf("%s: f32 %016llx, int8 %016llx\n", bytes ? "bytes" : "floats", static_cast<unsigned long long>(f32),
            static_cast<unsigned long long>(int8));
#ifdef MUSE_X86_64
        const Model words = Model::random<int16_t>(bytes);
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
            compare(AVX2_F32, floats.weights, f32);
            compare(AVX2_INT8, words.weights, int8);
        }
        if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
            compare(AVX512_F32, floats.weights, f32);
            if (__builtin_cpu_supports("avx512vnni")) compare(AVX512_VNNI_INT8, codes.weights, int8);
        }
#endif
    }
    return same ? 0 : 1;
}
