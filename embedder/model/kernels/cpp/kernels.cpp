// Runs the kernels on tensors: chooses a kernel for the processor and the precision, checks the
// batch, and divides it among threads.

#include <algorithm>
#include <cstring>
#include <exception>
#include <future>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/Utils.h>

#ifdef MUSE_X86_64
#include <cpuid.h>
#endif

#include "kernel.h"

namespace muse {
namespace {

using at::Tensor, at::TensorList;

/// Minimum number of tokens for each thread.
constexpr int64_t TOKENS_A_THREAD = 128;
/// Size of the workspace that each thread caches.
constexpr int64_t WORKSPACE_CACHE_BYTES = 8 << 20;

/// The order of the weights: weight and bias of the projection; for each branch gamma, beta, and
/// weight and bias of both layers; gamma and beta of the features; weight and bias of the dense
/// layer; weights of the four hidden layers.
constexpr int64_t BRANCH_WEIGHTS = 6, FIRST_BRANCH = 2, LAST_NORM = FIRST_BRANCH + BRANCHES * BRANCH_WEIGHTS;
constexpr int64_t DENSE = LAST_NORM + 2, FIRST_HIDDEN = DENSE + 2, WEIGHTS = FIRST_HIDDEN + 4;
/// Of int8 kernels, scales and column sums of the projection and of both layers of each branch follow.
constexpr int64_t QUANTIZED_WEIGHTS = WEIGHTS + 2 * (1 + 2 * BRANCHES);

// ---- checks

void check(const Tensor &ids, const Tensor &lengths, TensorList table, TensorList packed) {
    TORCH_CHECK(ids.dim() == 1 && lengths.dim() == 1, "ids and lengths have one dimension");
    TORCH_CHECK(ids.scalar_type() == at::kLong && lengths.scalar_type() == at::kLong, "ids and lengths are int64");
    TORCH_CHECK(table.size() == 1 || table.size() == 3, "the table is one tensor, or bytes, scales and zero points");
    TORCH_CHECK(packed.size() == WEIGHTS || packed.size() == QUANTIZED_WEIGHTS, "weights are missing");
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

// ---- the choice of a kernel

#ifdef MUSE_X86_64
struct Registers {
    unsigned a, b, c, d;
};

/// The features of the processor (CPUID leaf 7).
Registers features(unsigned subleaf) {
    Registers all{};
    if (!__get_cpuid_count(7, subleaf, &all.a, &all.b, &all.c, &all.d)) return {};
    return all;
}

bool has_bit(unsigned bits, int bit) { return bits >> bit & 1; }
bool has_avx512_vnni() { return has_bit(features(0).c, 11); }
bool has_avx_vnni() { return has_bit(features(1).a, 4); }
/// The kernel rounds with AVX512-BF16.
bool has_amx_bf16() { return has_bit(features(0).d, 22) && has_bit(features(0).d, 24) && has_bit(features(1).a, 5); }
bool has_amx_int8() { return has_bit(features(0).d, 25) && has_bit(features(0).d, 24); }
#endif

// libtorch's detection, so that ATEN_CPU_CAPABILITY applies to the kernels, too.
bool has_avx512() { return at::get_cpu_capability() == "AVX512"; }
bool has_avx2() { return has_avx512() || at::get_cpu_capability() == "AVX2"; }

struct Choice {
    const Kernel &kernel;
    /// The precision: float32, bfloat16 or int8.
    at::ScalarType kind;
    /// The type of the packed matrices of the tokens.
    at::ScalarType element;
    bool supported;
    /// Whether it is faster than libtorch.
    bool automatic;
};

/// All kernels, the fastest of each precision first.
const std::vector<Choice> &choices() {
    static const std::vector<Choice> all = {
#ifdef MUSE_AMX
        {AMX_BF16, at::kBFloat16, at::kBFloat16, has_avx512() && has_amx_bf16() && at::cpu::init_amx(), true},
        {AMX_INT8, at::kChar, at::kChar, has_avx512() && has_amx_int8() && at::cpu::init_amx(), true},
#endif
#ifdef MUSE_X86_64
        {AVX512_F32, at::kFloat, at::kFloat, has_avx512(), true},
        {AVX2_F32, at::kFloat, at::kFloat, has_avx2(), true},
        {PORTABLE_F32, at::kFloat, at::kFloat, has_avx2(), false},
        {AVX512_VNNI_INT8, at::kChar, at::kChar, has_avx512() && has_avx512_vnni(), true},
#ifdef MUSE_AVX_VNNI
        {AVX_VNNI_INT8, at::kChar, at::kChar, has_avx2() && has_avx_vnni(), true},
#endif
        {AVX2_INT8, at::kChar, at::kShort, has_avx2(), true},
        {PORTABLE_INT8, at::kChar, at::kChar, has_avx2(), false},
#else
        {PORTABLE_F32, at::kFloat, at::kFloat, true, true},
        {PORTABLE_INT8, at::kChar, at::kChar, true, true},
#endif
    };
    return all;
}

// ---- the forward pass

Weights weights_of(TensorList table, TensorList packed) {
    auto floats = [&](int64_t index) { return packed[index].const_data_ptr<float>(); };
    auto linear = [&](int64_t index) { return Linear{packed[index].const_data_ptr(), floats(index + 1), nullptr, nullptr}; };
    auto add_scales = [&](Linear &linear, int64_t matrix) {
        if (packed.size() != QUANTIZED_WEIGHTS) return;
        linear.scales = floats(WEIGHTS + 2 * matrix);
        linear.column_sums = floats(WEIGHTS + 2 * matrix + 1);
    };
    Weights weights{};
    if (table.size() == 3) {
        weights.table = {table[0].const_data_ptr<uint8_t>(), table[1].const_data_ptr<float>(),
            table[2].const_data_ptr<float>(), table[1].numel(), nullptr};
    } else {
        weights.table.elements = table[0].const_data_ptr();
    }
    weights.projection = linear(0);
    add_scales(weights.projection, 0);
    for (int branch = 0; branch < BRANCHES; branch++) {
        const int64_t first = FIRST_BRANCH + branch * BRANCH_WEIGHTS;
        weights.norms[branch] = {floats(first), floats(first + 1)};
        for (int layer = 0; layer < 2; layer++) {
            weights.layers[branch][layer] = linear(first + 2 + 2 * layer);
            add_scales(weights.layers[branch][layer], 1 + 2 * branch + layer);
        }
    }
    weights.features = {floats(LAST_NORM), floats(LAST_NORM + 1)};
    weights.dense = linear(DENSE);
    for (int layer = 0; layer < 4; layer++) {
        weights.hidden[layer].packed = packed[FIRST_HIDDEN + layer].const_data_ptr();
    }
    return weights;
}

/// The workspace of a pass: in float32 about 7 KiB per token, in int8 6 KiB per token of a
/// micro-batch and 12 KiB per sentence. The calling thread caches a workspace of
/// WORKSPACE_CACHE_BYTES, because an allocation for each pass fragments the heap; pages that were
/// never touched take no memory. A larger workspace is freed after the pass.
Tensor cached_workspace(int64_t bytes) {
    static thread_local Tensor cached;
    if (bytes > WORKSPACE_CACHE_BYTES) return at::empty({bytes}, at::kByte);
    if (!cached.defined()) cached = at::empty({WORKSPACE_CACHE_BYTES}, at::kByte);
    return cached;
}

/// Sentences are independent: they are divided among the threads.
Tensor encode_with(const Kernel &kernel, const Tensor &ids, const Tensor &lengths, TensorList table, TensorList packed) {
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
        const int64_t bytes = static_cast<int64_t>(kernel.workspace(part));
        float *const vectors = output + (part.lengths - batch.lengths) * DIMENSION;
        if (rest.sentences > 0) {
            // These threads end with the pass, so they have nothing to cache.
            others.push_back(std::async(std::launch::async, [&kernel, &weights, part, bytes, vectors] {
                kernel.encode(weights, part, at::empty({bytes}, at::kByte).mutable_data_ptr(), vectors);
            }));
        } else {
            kernel.encode(weights, part, cached_workspace(bytes).mutable_data_ptr(), vectors);
        }
    }
    for (auto &other : others) other.get();
    return encoded;
}

/// The unit vectors of the sentences: float32 (sentences, DIMENSION).
Tensor encode(size_t kernel, const Tensor &ids, const Tensor &lengths, TensorList table, TensorList packed) {
    check(ids, lengths, table, packed);
    const Choice &choice = choices().at(kernel);
    TORCH_CHECK(choice.supported, "this processor does not support the kernel ", choice.kernel.name);
    TORCH_CHECK(packed[0].scalar_type() == choice.element, "the weights are packed for another kernel");
    if (lengths.size(0) == 0 && ids.size(0) == 0) return at::empty({0, DIMENSION}, at::kFloat);
    return encode_with(choice.kernel, ids.contiguous(), lengths.contiguous(), table, packed);
}

std::vector<Tensor> to_vector(Tensor *const *tensors, size_t count) {
    std::vector<Tensor> all;
    for (size_t i = 0; i < count; i++) all.push_back(*tensors[i]);
    return all;
}

} // namespace
} // namespace muse

extern "C" {

/// Computes the vectors of sentences. Returns null, or an error text that the caller must free.
char *muse_encode(size_t kernel, const at::Tensor *ids, const at::Tensor *lengths, at::Tensor *const *table, size_t table_size,
    at::Tensor *const *packed, size_t packed_size, at::Tensor **vectors) {
    try {
        *vectors = new at::Tensor(
            muse::encode(kernel, *ids, *lengths, muse::to_vector(table, table_size), muse::to_vector(packed, packed_size)));
        return nullptr;
    } catch (const std::exception &error) {
        return strdup(error.what());
    }
}

/// The name of a kernel; null beyond the last one.
const char *muse_kernel_name(size_t kernel) {
    return kernel < muse::choices().size() ? muse::choices()[kernel].kernel.name : nullptr;
}

/// Its precision as c10::ScalarType: int8 (1), float32 (6) or bfloat16 (15).
int muse_kernel_kind(size_t kernel) { return static_cast<int>(muse::choices().at(kernel).kind); }

/// The type of the packed matrices of the tokens: as muse_kernel_kind, or int16 (2).
int muse_kernel_element(size_t kernel) { return static_cast<int>(muse::choices().at(kernel).element); }

bool muse_kernel_supported(size_t kernel) { return muse::choices().at(kernel).supported; }

bool muse_kernel_automatic(size_t kernel) { return muse::choices().at(kernel).automatic; }
}
