// The custom operator muse::encode, the only node of the TorchScript module. It runs a kernel if
// there is one for the processor and the precision, else libtorch's operators, on a CPU or GPU.

#include <algorithm>
#include <cstring>
#include <exception>
#include <future>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/cpu/Utils.h>
#include <torch/csrc/jit/runtime/operator.h>
#include <torch/library.h>

#ifdef MUSE_AMX
#include <cpuid.h>
#endif

#include "kernel.h"

namespace muse {
namespace {

using at::Tensor, at::TensorList;

constexpr int64_t NEIGHBOURS[] = {-2, -1, 0, 1, 2};
constexpr int64_t CENTRE = 2;
/// Minimum number of tokens for each thread.
constexpr int64_t TOKENS_A_THREAD = 128;
/// Size of the workspace that each thread caches.
constexpr int64_t WORKSPACE_CACHE_BYTES = 8 << 20;

/// The order of the weights: weight and bias of the projection; for each branch gamma, beta, and
/// weight and bias of both layers; gamma and beta of the features; weight and bias of the dense
/// layer; weights of the four hidden layers.
constexpr int64_t BRANCH_WEIGHTS = 6, FIRST_BRANCH = 2, LAST_NORM = FIRST_BRANCH + BRANCHES * BRANCH_WEIGHTS;
constexpr int64_t DENSE = LAST_NORM + 2, FIRST_HIDDEN = DENSE + 2, WEIGHTS = FIRST_HIDDEN + 4;

// ---- checks

void check(const Tensor &ids, const Tensor &lengths, TensorList table, TensorList weights, TensorList packed) {
    TORCH_CHECK(ids.dim() == 1 && lengths.dim() == 1, "ids and lengths have one dimension");
    TORCH_CHECK(ids.scalar_type() == at::kLong && lengths.scalar_type() == at::kLong, "ids and lengths are int64");
    TORCH_CHECK(table.size() == 1 || table.size() == 3, "the table is one tensor, or bytes, scales and zero points");
    TORCH_CHECK(weights.size() == WEIGHTS, "there are ", WEIGHTS, " weights");
    TORCH_CHECK(packed.empty() || packed.size() == WEIGHTS, "all weights are packed, or none");
}

/// Checks the ids and lengths. The kernels do not: an invalid batch would read or write out of
/// bounds.
void check_sentences(const Batch &batch, int64_t vocabulary) {
    int64_t tokens = 0;
    for (int64_t sentence = 0; sentence < batch.sentences; sentence++) {
        const int64_t length = batch.lengths[sentence];
        TORCH_CHECK(length >= 1 && length <= batch.tokens - tokens, "the lengths do not divide the ids");
        tokens += length;
    }
    TORCH_CHECK(tokens == batch.tokens, "the lengths do not divide the ids");
    const bool known = std::all_of(batch.ids, batch.ids + tokens, [=](int64_t id) { return id >= 0 && id < vocabulary; });
    TORCH_CHECK(known, "there are ids outside the table");
}

// ---- the encoder with libtorch's operators

/// A linear layer over the tokens, in float32 as a convolution of width 1, which is the same sum:
/// libtorch computes a float32 linear layer with MKL and a convolution with oneDNN, and MKL runs at
/// half the speed of oneDNN on processors that are not Intel's.
Tensor linear(const Tensor &input, const Tensor &weight, const Tensor &bias) {
    if (weight.scalar_type() != at::kFloat) return at::linear(input, weight, bias);
    // One image in channels-last layout, (1, inputs, 1, T), without a copy.
    const Tensor picture = input.reshape({1, 1, -1, weight.size(1)}).permute({0, 3, 1, 2});
    // conv2d may round to TF32 on a GPU; with these arguments it does not.
    const bool benchmark = false, deterministic = false, cudnn = true, tf32 = false;
    const Tensor output = at::_convolution(picture, weight.unsqueeze(-1).unsqueeze(-1), bias, {1, 1}, {0, 0}, {1, 1}, false,
        {0, 0}, 1, benchmark, deterministic, cudnn, tf32);
    return output.permute({0, 2, 3, 1}).flatten(0, 2);
}

Tensor layer_norm(const Tensor &input, const Tensor &gamma, const Tensor &beta) {
    return std::get<0>(at::native_layer_norm(input, gamma.sizes(), gamma, beta, EPSILON));
}

/// Looks up the embeddings of the ids and dequantises them to float32.
Tensor gather(const Tensor &ids, TensorList table) {
    Tensor rows = table[0].index_select(0, ids).to(at::kFloat);
    if (table.size() == 1) return rows;
    const Tensor shard = ids.remainder(table[1].size(0));
    return rows.sub_(table[2].index_select(0, shard)).mul_(table[1].index_select(0, shard));
}

/// The sum of the normalised features of each sentence's tokens: (sentences, FEATURES).
Tensor sum_features(const Tensor &ids, const Tensor &lengths, TensorList table, TensorList weights) {
    const Tensor ends = lengths.cumsum(0), starts = ends - lengths;
    const Tensor positions = at::arange(ids.size(0), ids.options());
    // The rows of each token's neighbours, (T, 5). A neighbour outside the sentence is row T, a row
    // of zeros that is appended below.
    const Tensor sentence = at::repeat_interleave(lengths);
    const Tensor first = starts.index_select(0, sentence).unsqueeze(1), end = ends.index_select(0, sentence).unsqueeze(1);
    const Tensor offsets = at::arange(NEIGHBOURS[0], NEIGHBOURS[0] + 5, ids.options());
    const Tensor rows = positions.unsqueeze(1) + offsets;
    const Tensor windows = at::where(rows.ge(first).logical_and(rows.lt(end)), rows, ends.slice(0, -1));

    const auto kind = weights[0].scalar_type();
    const Tensor embedded = gather(ids, table), outside = at::zeros({1, HIDDEN}, weights[0].options());
    const std::vector<Tensor> projected = linear(embedded.to(kind), weights[0], weights[1]).chunk(BRANCHES, 1);
    std::vector<Tensor> features = {embedded};
    for (int branch = 0; branch < BRANCHES; branch++) {
        const TensorList of = weights.slice(FIRST_BRANCH + branch * BRANCH_WEIGHTS, BRANCH_WEIGHTS);
        const Tensor window = windows.narrow(1, CENTRE - LEFTS[branch], ORDERS[branch]).reshape(-1);
        Tensor hidden = layer_norm(projected[branch], of[0], of[1]);
        for (int layer = 0; layer < 2; layer++) {
            const Tensor padded = at::cat({hidden, outside});
            const Tensor wide = padded.index_select(0, window).reshape({-1, ORDERS[branch] * HIDDEN});
            hidden = linear(wide, of[2 + 2 * layer], of[3 + 2 * layer]).relu_().add_(hidden);
        }
        features.push_back(hidden);
    }
    // Concatenated with the float32 embeddings, the features are float32, which the sum needs.
    const Tensor normed = layer_norm(at::cat(features, 1), weights[LAST_NORM], weights[LAST_NORM + 1]);
    // A bag is a sentence, mode 0 is the sum. Unlike segment_reduce, embedding_bag uses all
    // threads.
    return std::get<0>(at::embedding_bag(normed, positions, starts, false, 0, false, {}, false));
}

/// The dense layers are computed in float32, like the sums, and with at::linear, that is MKL: their
/// rows are sentences, and oneDNN would compile new kernels for every new number of rows.
Tensor encode_with_libtorch(const Tensor &ids, const Tensor &lengths, TensorList table, TensorList weights) {
    const Tensor root = lengths.to(at::kFloat).sqrt().unsqueeze(1);
    const Tensor dense = at::linear(sum_features(ids, lengths, table, weights), weights[DENSE]);
    // sum_t(f @ D + d) / sqrt(n) = sum_t(f) @ D / sqrt(n) + d * sqrt(n).
    const Tensor y = dense.div(root).add_(weights[DENSE + 1].mul(root));
    const TensorList hidden = weights.slice(FIRST_HIDDEN, 4);
    const Tensor s0 = at::linear(y, hidden[0]).relu_();
    const Tensor s1 = at::linear(at::cat({s0, y}, 1), hidden[1]).relu_();
    const Tensor s2 = at::linear(s1, hidden[2]).relu_();
    return at::linear(at::cat({s1, s2}, 1), hidden[3]);
}

// ---- the encoder with a kernel

#ifdef MUSE_AMX
bool has_amx_bf16() {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1);
}
#endif

const Kernel *find_kernel([[maybe_unused]] at::ScalarType kind) {
#ifdef MUSE_X86_64
    // libtorch's detection, so that ATEN_CPU_CAPABILITY applies to the kernels, too.
    static const bool avx512 = at::get_cpu_capability() == "AVX512";
    static const bool avx2 = at::get_cpu_capability() == "AVX2";
    if (kind == at::kFloat && avx512) return &AVX512_F32;
    if (kind == at::kFloat && avx2) return &AVX2_F32;
#endif
#ifdef MUSE_AMX
    static const bool amx = avx512 && has_amx_bf16() && at::cpu::init_amx();
    if (kind == at::kBFloat16 && amx) return &AMX_BF16;
#endif
    return nullptr;
}

Weights weights_of(TensorList table, TensorList packed) {
    auto floats = [&](int64_t index) { return packed[index].const_data_ptr<float>(); };
    auto linear = [&](int64_t index) { return Linear{packed[index].const_data_ptr(), floats(index + 1)}; };
    Weights weights{};
    if (table.size() == 3) {
        weights.table = {table[0].const_data_ptr<uint8_t>(), table[1].const_data_ptr<float>(),
            table[2].const_data_ptr<float>(), table[1].numel(), nullptr};
    } else {
        weights.table.elements = table[0].const_data_ptr();
    }
    weights.projection = linear(0);
    for (int branch = 0; branch < BRANCHES; branch++) {
        const int64_t first = FIRST_BRANCH + branch * BRANCH_WEIGHTS;
        weights.norms[branch] = {floats(first), floats(first + 1)};
        for (int layer = 0; layer < 2; layer++) weights.layers[branch][layer] = linear(first + 2 + 2 * layer);
    }
    weights.features = {floats(LAST_NORM), floats(LAST_NORM + 1)};
    weights.dense = linear(DENSE);
    for (int layer = 0; layer < 4; layer++) {
        weights.hidden[layer] = {packed[FIRST_HIDDEN + layer].const_data_ptr(), nullptr};
    }
    return weights;
}

/// The workspace of a pass, about 7 KiB per token. Each thread caches a workspace of
/// WORKSPACE_CACHE_BYTES, because an allocation for each pass fragments the heap; pages that were
/// never touched take no memory. A larger workspace is freed after the pass.
Tensor allocate_workspace(int64_t bytes) {
    static thread_local Tensor cached;
    if (bytes > WORKSPACE_CACHE_BYTES) return at::empty({bytes}, at::kByte);
    if (!cached.defined()) cached = at::empty({WORKSPACE_CACHE_BYTES}, at::kByte);
    return cached;
}

/// Sentences are independent: they are divided among the threads.
Tensor encode_with_kernel(const Kernel &kernel, const Tensor &ids, const Tensor &lengths, TensorList table, TensorList packed) {
    const Weights weights = weights_of(table, packed);
    const Batch batch = {ids.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>(), ids.size(0), lengths.size(0)};
    const Tensor encoded = at::empty({batch.sentences, DIMENSION}, at::kFloat);
    float *const output = encoded.mutable_data_ptr<float>();
    check_sentences(batch, table[0].size(0));

    const int64_t threads = std::clamp<int64_t>(batch.tokens / TOKENS_A_THREAD, 1, at::get_num_threads());
    std::vector<std::future<void>> others;
    for (Batch rest = batch, part; rest.sentences > 0;) {
        const int64_t share = (batch.tokens + threads - 1) / threads;
        part = {rest.ids, rest.lengths, 0, 0};
        while (part.sentences < rest.sentences && part.tokens < share) part.tokens += rest.lengths[part.sentences++];
        rest = {rest.ids + part.tokens, rest.lengths + part.sentences, rest.tokens - part.tokens, rest.sentences - part.sentences};
        auto encode = [&kernel, &weights, part, output = output + (part.lengths - batch.lengths) * DIMENSION] {
            const Tensor workspace = allocate_workspace(static_cast<int64_t>(kernel.workspace(part)));
            kernel.encode(weights, part, workspace.mutable_data_ptr(), output);
        };
        if (rest.sentences > 0) {
            others.push_back(std::async(std::launch::async, encode));
        } else {
            encode();
        }
    }
    for (auto &other : others) other.get();
    return encoded;
}

// ---- the operator

Tensor encode(const Tensor &ids, const Tensor &lengths, TensorList table, TensorList weights, TensorList packed) {
    check(ids, lengths, table, weights, packed);
    const Kernel *kernel = ids.is_cpu() && !packed.empty() ? find_kernel(weights[0].scalar_type()) : nullptr;
    const Tensor encoded = kernel && lengths.size(0) > 0
        ? encode_with_kernel(*kernel, ids.contiguous(), lengths.contiguous(), table, packed)
        : encode_with_libtorch(ids, lengths, table, weights);
    const Tensor vectors = encoded.tanh();
    return vectors.div(vectors.mul(vectors).sum(1, true).clamp_min(1e-12).sqrt());
}

TORCH_LIBRARY(muse, library) {
    library.def("encode(Tensor ids, Tensor lengths, Tensor[] table, Tensor[] weights, Tensor[] packed) -> Tensor", &encode);
}

std::vector<Tensor> to_vector(Tensor *const *tensors, size_t count) {
    std::vector<Tensor> all;
    for (size_t i = 0; i < count; i++) all.push_back(*tensors[i]);
    return all;
}

} // namespace
} // namespace muse

extern "C" {

/// Calls the operator through TorchScript's registry, so that a trace records it. Returns null, or
/// an error text that the caller must free.
char *muse_encode(const at::Tensor *ids, const at::Tensor *lengths, at::Tensor *const *table, size_t table_size,
    at::Tensor *const *weights, size_t weights_size, at::Tensor *const *packed, size_t packed_size, at::Tensor **vectors) {
    try {
        const auto name = c10::Symbol::fromQualString("muse::encode");
        torch::jit::Stack stack = {*ids, *lengths, muse::to_vector(table, table_size),
            muse::to_vector(weights, weights_size), muse::to_vector(packed, packed_size)};
        torch::jit::getAllOperatorsFor(name).at(0)->getOperation()(stack);
        *vectors = new at::Tensor(torch::jit::pop(stack).toTensor());
        return nullptr;
    } catch (const std::exception &error) {
        return strdup(error.what());
    }
}

/// The name of the CPU kernel for float32 (6) or bfloat16 (15), or null if there is none.
const char *muse_kernel(int scalar_type) {
    const muse::Kernel *kernel = muse::find_kernel(static_cast<at::ScalarType>(scalar_type));
    return kernel ? kernel->name : nullptr;
}
}
