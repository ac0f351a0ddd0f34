// Vector registers of float32 and bfloat16: AVX-512, or AVX2 if the file is compiled for AVX2 only.

#pragma once

#include <immintrin.h>

#include "kernel.h"

namespace {

using bf16 = uint16_t;

#ifdef __AVX512F__

/// Number of floats in a register.
constexpr int LANES = 16;
using Floats = __m512;

inline Floats load(const float *from) { return _mm512_loadu_ps(from); }
inline void store(float *to, Floats values) { _mm512_storeu_ps(to, values); }
/// All lanes are `value`.
inline Floats broadcast(float value) { return _mm512_set1_ps(value); }
/// a * b + c
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats relu(Floats values) { return _mm512_max_ps(values, Floats{}); }
/// `values` if `keep`, else zeros.
inline Floats mask(bool keep, Floats values) { return _mm512_maskz_mov_ps(keep ? 0xffff : 0, values); }
/// The sum of all lanes.
inline float reduce_add(Floats values) { return _mm512_reduce_add_ps(values); }
/// Converts LANES bytes to floats.
inline Floats widen(const uint8_t *bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes))));
}

#ifdef __AVX512BF16__
inline Floats load(const bf16 *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store(bf16 *to, Floats values) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}
#endif

#else

constexpr int LANES = 8;
using Floats = __m256;

inline Floats load(const float *from) { return _mm256_loadu_ps(from); }
inline void store(float *to, Floats values) { _mm256_storeu_ps(to, values); }
inline Floats broadcast(float value) { return _mm256_set1_ps(value); }
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats relu(Floats values) { return _mm256_max_ps(values, Floats{}); }
inline Floats mask(bool keep, Floats values) {
    return _mm256_and_ps(values, _mm256_castsi256_ps(_mm256_set1_epi32(keep ? -1 : 0)));
}
inline float reduce_add(Floats values) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline Floats widen(const uint8_t *bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(bytes))));
}

#endif

/// Looks up the embedding of one token and dequantises it to float32.
template <class Element> inline void embed(const muse::Table &table, int64_t id, Floats (&row)[muse::DIMENSION / LANES]) {
    if (table.bytes) {
        const Floats scale = broadcast(table.scales[id % table.shards]), zero_point = broadcast(table.zero_points[id % table.shards]);
        const uint8_t *bytes = table.bytes + id * muse::DIMENSION;
        for (int part = 0; part < muse::DIMENSION / LANES; part++) {
            row[part] = (widen(bytes + part * LANES) - zero_point) * scale;
        }
    } else {
        const Element *elements = static_cast<const Element *>(table.elements) + id * muse::DIMENSION;
        for (int part = 0; part < muse::DIMENSION / LANES; part++) row[part] = load(elements + part * LANES);
    }
}

/// Mean and reciprocal standard deviation of a row.
struct Moments {
    float mean;
    float scale;
};

template <int PARTS> inline Moments moments(const Floats (&row)[PARTS]) {
    Floats sums[4] = {};
    for (int part = 0; part < PARTS; part++) sums[part % 4] += row[part];
    const float mean = reduce_add(sums[0] + sums[1] + (sums[2] + sums[3])) / (PARTS * LANES);
    Floats squares[4] = {};
    for (int part = 0; part < PARTS; part++) {
        Floats centred = row[part] - broadcast(mean);
        squares[part % 4] = multiply_add(centred, centred, squares[part % 4]);
    }
    const float variance = reduce_add(squares[0] + squares[1] + (squares[2] + squares[3])) / (PARTS * LANES);
    return {mean, 1.0f / __builtin_sqrtf(variance + muse::EPSILON)};
}

/// LayerNorm of one row of HIDDEN values.
template <class Element> inline void layer_norm(const float *from, const muse::Norm &norm, Element *to) {
    Floats row[muse::HIDDEN / LANES];
    for (int part = 0; part < muse::HIDDEN / LANES; part++) row[part] = load(from + part * LANES);
    const Moments row_moments = moments(row);
    for (int part = 0; part < muse::HIDDEN / LANES; part++) {
        Floats value = (row[part] - broadcast(row_moments.mean)) * broadcast(row_moments.scale);
        store(to + part * LANES, multiply_add(value, load(norm.gamma + part * LANES), load(norm.beta + part * LANES)));
    }
}

} // namespace
