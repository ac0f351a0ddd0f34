// Operations on rows of float32 and bfloat16.

#pragma once

#include "kernel.h"
#include "vector.h"

namespace {

using bf16 = uint16_t;

#ifdef __AVX512BF16__
inline Floats load(const bf16 *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store(bf16 *to, Floats values) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}
#endif

/// Prefetches the embedding of one token.
template <class Element> inline void prefetch_embedding(const muse::Table &table, int64_t id) {
    const int64_t size = muse::DIMENSION * (table.bytes ? 1 : sizeof(Element));
    const char *row = (table.bytes ? reinterpret_cast<const char *>(table.bytes) : static_cast<const char *>(table.elements)) + id * size;
    for (int64_t line = 0; line < size; line += 64) __builtin_prefetch(row + line);
}

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

/// The sum of all values of a row, in four interleaved partial sums.
template <int PARTS> inline float reduce_add(const Floats (&row)[PARTS]) {
    Floats sums[4] = {};
    for (int part = 0; part < PARTS; part += 4) {
        for (int i = 0; i < 4; i++) sums[i] += row[part + i];
    }
    return reduce_add(sums[0] + sums[1] + (sums[2] + sums[3]));
}

/// The sum of the squares of the differences from `centre`.
template <int PARTS> inline float sum_of_squares(const Floats (&row)[PARTS], Floats centre) {
    Floats sums[4] = {};
    for (int part = 0; part < PARTS; part += 4) {
        for (int i = 0; i < 4; i++) {
            const Floats difference = row[part + i] - centre;
            sums[i] = multiply_add(difference, difference, sums[i]);
        }
    }
    return reduce_add(sums[0] + sums[1] + (sums[2] + sums[3]));
}

/// Mean and reciprocal standard deviation of a row.
struct Moments {
    float mean;
    float scale;
};

template <int PARTS> inline Moments moments(const Floats (&row)[PARTS]) {
    const float mean = reduce_add(row) / (PARTS * LANES);
    const float variance = sum_of_squares(row, broadcast(mean)) / (PARTS * LANES);
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

/// The hyperbolic tangent as x * P(x^2) / Q(x^2), where P and Q have degree 4. The coefficients
/// minimise the largest relative error up to 9.02, from where on the result is 1 in float32
/// (weighted linear least squares after Sanathanan and Koerner 1963, with Lawson's weights). The
/// error is at most 5 units in the last place.
inline Floats tanh(Floats values) {
    constexpr float LIMIT = 9.02f;
    constexpr float P[] = {1.0f, 0.13379718363285065f, 0.0034940356854349375f, 2.058349855360575e-05f, 1.3319094271935228e-08f};
    constexpr float Q[] = {1.0f, 0.4671303331851959f, 0.025871077552437782f, 0.00032830945565365255f, 7.762029099467327e-07f};
    const Floats x = max(min(values, broadcast(LIMIT)), broadcast(-LIMIT)), square = x * x;
    Floats p = broadcast(P[4]), q = broadcast(Q[4]);
    for (int degree = 3; degree >= 0; degree--) {
        p = multiply_add(p, square, broadcast(P[degree]));
        q = multiply_add(q, square, broadcast(Q[degree]));
    }
    return max(min(x * p / q, broadcast(1.0f)), broadcast(-1.0f));
}

/// Applies tanh to a row of DIMENSION values and scales it to norm 1.
inline void to_unit_vector(float *values) {
    Floats row[muse::DIMENSION / LANES];
    for (int part = 0; part < muse::DIMENSION / LANES; part++) row[part] = tanh(load(values + part * LANES));
    const float squares = sum_of_squares(row, Floats{});
    const Floats norm = broadcast(__builtin_sqrtf(squares < 1e-12f ? 1e-12f : squares));
    for (int part = 0; part < muse::DIMENSION / LANES; part++) store(values + part * LANES, row[part] / norm);
}

} // namespace
