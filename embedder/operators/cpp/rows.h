// Rows of floats and of bfloat16 in the registers of AVX-512.

#pragma once

#include <immintrin.h>

#include "kernel.h"

namespace {

/// Floats of a register.
constexpr int LANES = 16;

using bf16 = uint16_t;

inline __m512 load(const float *from) { return _mm512_loadu_ps(from); }
inline void store(float *to, __m512 values) { _mm512_storeu_ps(to, values); }

#ifdef __AVX512BF16__
inline __m512 load(const bf16 *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store(bf16 *to, __m512 values) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}
#endif

/// The row of one token in float32.
template <class Element> inline void embed(const muse::Table &table, int64_t id, __m512 (&row)[muse::DIMENSION / LANES]) {
    if (table.bytes) {
        const __m512 scale = _mm512_set1_ps(table.scales[id % table.shards]);
        const __m512 zero_point = _mm512_set1_ps(table.zero_points[id % table.shards]);
        const uint8_t *bytes = table.bytes + id * muse::DIMENSION;
        for (int part = 0; part < muse::DIMENSION / LANES; part++) {
            __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes + part * LANES));
            __m512 value = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(narrow));
            row[part] = _mm512_mul_ps(_mm512_sub_ps(value, zero_point), scale);
        }
    } else {
        const Element *elements = static_cast<const Element *>(table.elements) + id * muse::DIMENSION;
        for (int part = 0; part < muse::DIMENSION / LANES; part++) row[part] = load(elements + part * LANES);
    }
}

/// Mean, and one over the standard deviation, of rows one after the other.
struct Moments {
    float mean;
    float scale;
};

template <int PARTS> inline Moments moments(const __m512 (&row)[PARTS]) {
    __m512 sums[4] = {};
    for (int part = 0; part < PARTS; part++) sums[part % 4] = _mm512_add_ps(sums[part % 4], row[part]);
    const float mean = _mm512_reduce_add_ps(sums[0] + sums[1] + (sums[2] + sums[3])) / (PARTS * LANES);
    __m512 squares[4] = {};
    for (int part = 0; part < PARTS; part++) {
        __m512 centred = row[part] - _mm512_set1_ps(mean);
        squares[part % 4] = _mm512_fmadd_ps(centred, centred, squares[part % 4]);
    }
    const float variance = _mm512_reduce_add_ps(squares[0] + squares[1] + (squares[2] + squares[3])) / (PARTS * LANES);
    return {mean, 1.0f / __builtin_sqrtf(variance + muse::EPSILON)};
}

/// One row of HIDDEN values, normalised.
template <class Element> inline void normalise(const float *from, const muse::Norm &norm, Element *to) {
    __m512 row[muse::HIDDEN / LANES];
    for (int part = 0; part < muse::HIDDEN / LANES; part++) row[part] = load(from + part * LANES);
    const Moments of = moments(row);
    for (int part = 0; part < muse::HIDDEN / LANES; part++) {
        __m512 value = (row[part] - _mm512_set1_ps(of.mean)) * _mm512_set1_ps(of.scale);
        store(to + part * LANES, _mm512_fmadd_ps(value, load(norm.gamma + part * LANES), load(norm.beta + part * LANES)));
    }
}

} // namespace
