// The operator muse::encode, of which the TorchScript module consists: by a kernel where there is one for the processor and the
// precision, and otherwise by libtorch's own operators, which run on GPUs, too.

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
/// Tokens below which a second thread does not pay.
constexpr int64_t TOKENS_A_THREAD = 128;
/// Bytes of memory to work in that a thread keeps.
constexpr int64_t KEPT = 8 << 20;

/// Weights in the order in which they are passed: projection's weight and bias; for each branch gamma, beta and, of both
/// layers, weight and bias; gamma and beta of the features; weight and bias of the dense layer; weights of four hidden ones.
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

/// What a kernel relies on, as it reads and writes memory by it.
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

// ---- by libtorch's operators

/// Of rows that are tokens. In float32 it is a convolution over one element, which is the same sum: libtorch gives a float32
/// linear to MKL, which on processors other than Intel's runs at half the speed of oneDNN, and a convolution to oneDNN.
Tensor linear(const Tensor &input, const Tensor &weight, const Tensor &bias) {
    if (weight.scalar_type() != at::kFloat) return at::linear(input, weight, bias);
    // The rows are the width of one picture whose channels lie together, (1, inputs, 1, T), without a copy.
    const Tensor picture = input.reshape({1, 1, -1, weight.size(1)}).permute({0, 3, 1, 2});
    // On a GPU a plain conv2d may round to TF32; spelt out, it may not.
    const bool benchmark = false, deterministic = false, cudnn = true, tf32 = false;
    const Tensor output = at::_convolution(picture, weight.unsqueeze(-1).unsqueeze(-1), bias, {1, 1}, {0, 0}, {1, 1}, false,
        {0, 0}, 1, benchmark, deterministic, cudnn, tf32);
    return output.permute({0, 2, 3, 1}).flatten(0, 2);
}

Tensor layer_norm(const Tensor &input, const Tensor &gamma, const Tensor &beta) {
    return std::get<0>(at::native_layer_norm(input, gamma.sizes(), gamma, beta, EPSILON));
}

/// The rows of the ids, in float32.
Tensor gather(const Tensor &ids, TensorList table) {
    Tensor rows = table[0].index_select(0, ids).to(at::kFloat);
    if (table.size() == 1) return rows;
    const Tensor shard = ids.remainder(table[1].size(0));
    return rows.sub_(table[2].index_select(0, shard)).mul_(table[1].index_select(0, shard));
}

/// For each sentence the sum over its tokens of their normalised features: (sentences, FEATURES).
Tensor sum_features(const Tensor &ids, const Tensor &lengths, TensorList table, TensorList weights) {
    const Tensor ends = lengths.cumsum(0), starts = ends - lengths;
    const Tensor positions = at::arange(ids.size(0), ids.options());
    // For each token the rows of its neighbours, (T, 5); a neighbour in another sentence is the row after the last, which
    // is zero.
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
    // Concatenating with the float32 embeddings makes the whole float32, which the sum needs.
    const Tensor normed = layer_norm(at::cat(features, 1), weights[LAST_NORM], weights[LAST_NORM + 1]);
    // A bag is a sentence; mode 0 is the sum. Unlike segment_reduce it uses all threads.
    return std::get<0>(at::embedding_bag(normed, positions, starts, false, 0, false, {}, false));
}

/// In float32, as the sums are. These rows are sentences, and libtorch gives them to MKL: oneDNN would make new kernels for
/// every new number of rows.
Tensor by_libtorch(const Tensor &ids, const Tensor &lengths, TensorList table, TensorList weights) {
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

// ---- by a kernel

#ifdef MUSE_AMX
bool has_amx_bf16() {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1);
}
#endif

const Kernel *find_kernel([[maybe_unused]] at::ScalarType kind) {
#ifdef MUSE_X86_64
    // Of libtorch, so that ATEN_CPU_CAPABILITY counts here as it does there.
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

/// Memory that a pass works in: 7 KiB a token, and some. A thread keeps that of its usual passes, as the heap, whose other
/// blocks come and go, would have to find it each time; what of it was never touched is none. What only a long sentence takes
/// goes back with it.
Tensor workspace_of(int64_t bytes) {
    static thread_local Tensor kept;
    if (bytes > KEPT) return at::empty({bytes}, at::kByte);
    if (!kept.defined()) kept = at::empty({KEPT}, at::kByte);
    return kept;
}

/// Sentences have nothing to do with each other: each thread takes some.
Tensor by_kernel(const Kernel &kernel, const Tensor &ids, const Tensor &lengths, TensorList table, TensorList packed) {
    const Weights weights = weights_of(table, packed);
    const Batch all = {ids.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>(), ids.size(0), lengths.size(0)};
    const Tensor encoded = at::empty({all.sentences, DIMENSION}, at::kFloat);
    float *const to = encoded.mutable_data_ptr<float>();
    check_sentences(all, table[0].size(0));

    const int64_t threads = std::clamp<int64_t>(all.tokens / TOKENS_A_THREAD, 1, at::get_num_threads());
    std::vector<std::future<void>> others;
    for (Batch rest = all, part; rest.sentences > 0;) {
        const int64_t share = (all.tokens + threads - 1) / threads;
        part = {rest.ids, rest.lengths, 0, 0};
        while (part.sentences < rest.sentences && part.tokens < share) part.tokens += rest.lengths[part.sentences++];
        rest = {rest.ids + part.tokens, rest.lengths + part.sentences, rest.tokens - part.tokens, rest.sentences - part.sentences};
        auto encode = [&kernel, &weights, part, to = to + (part.lengths - all.lengths) * DIMENSION] {
            const Tensor workspace = workspace_of(static_cast<int64_t>(kernel.workspace(part)));
            kernel.encode(weights, part, workspace.mutable_data_ptr(), to);
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
        ? by_kernel(*kernel, ids.contiguous(), lengths.contiguous(), table, packed)
        : by_libtorch(ids, lengths, table, weights);
    const Tensor vectors = encoded.tanh();
    return vectors.div(vectors.mul(vectors).sum(1, true).clamp_min(1e-12).sqrt());
}

TORCH_LIBRARY(muse, library) {
    library.def("encode(Tensor ids, Tensor lengths, Tensor[] table, Tensor[] weights, Tensor[] packed) -> Tensor", &encode);
}

std::vector<Tensor> list(Tensor *const *tensors, size_t count) {
    std::vector<Tensor> all;
    for (size_t i = 0; i < count; i++) all.push_back(*tensors[i]);
    return all;
}

} // namespace
} // namespace muse

extern "C" {

/// Calls the operator as TorchScript does, so that a trace records it. Returns what went wrong, to be given to `free`, or
/// null.
char *muse_encode(const at::Tensor *ids, const at::Tensor *lengths, at::Tensor *const *table, size_t table_size,
    at::Tensor *const *weights, size_t weights_size, at::Tensor *const *packed, size_t packed_size, at::Tensor **vectors) {
    try {
        const auto name = c10::Symbol::fromQualString("muse::encode");
        torch::jit::Stack stack = {*ids, *lengths, muse::list(table, table_size), muse::list(weights, weights_size),
            muse::list(packed, packed_size)};
        torch::jit::getAllOperatorsFor(name).at(0)->getOperation()(stack);
        *vectors = new at::Tensor(torch::jit::pop(stack).toTensor());
        return nullptr;
    } catch (const std::exception &error) {
        return strdup(error.what());
    }
}

/// The name of the kernel that is used on CPUs for float32 (6) or bfloat16 (15), or null.
const char *muse_kernel(int scalar_type) {
    const muse::Kernel *kernel = muse::find_kernel(static_cast<at::ScalarType>(scalar_type));
    return kernel ? kernel->name : nullptr;
}
}
