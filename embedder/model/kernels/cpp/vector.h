// Vectors of 16 float32, with the same results on every processor: AVX-512, AVX2, or plain C++.
//
// A vector has 16 lanes whatever the width of a register, fused multiply-adds are written as such
// (the files are compiled with -ffp-contract=off), and reductions have one order. So each kernel
// performs the same operations in the same order, and returns the same bits.

#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdint>

namespace {

/// Number of floats in a vector.
constexpr int LANES = 16;

/// Prefetches a cache line into the second-level cache.
inline void prefetch(const void *line) { __builtin_prefetch(line, 0, 2); }

#if defined(__AVX512F__)

using Floats = __m512;
/// A register, for the microkernels.
using Register = __m512;

inline Floats load(const float *from) { return _mm512_loadu_ps(from); }
inline void store(float *to, Floats values) { _mm512_storeu_ps(to, values); }
/// All lanes are `value`.
inline Floats broadcast(float value) { return _mm512_set1_ps(value); }
/// a * b + c, rounded once.
inline Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
/// The larger one; `b` if they are equal or not comparable.
inline Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
/// `values` if `keep`, else zeros.
inline Floats mask(bool keep, Floats values) { return _mm512_maskz_mov_ps(keep ? 0xffff : 0, values); }
/// Converts LANES bytes to floats.
inline Floats widen(const uint8_t *bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bytes))));
}
inline Floats to_floats(const int32_t *from) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(from)); }
/// Rounds values between 0 and 255 to the nearest integers; ties to even.
inline void store_rounded(uint8_t *to, Floats values) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(values)));
}
inline __m256 max_halves(Floats values) {
    return _mm256_max_ps(_mm512_castps512_ps256(values), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(values), 1)));
}
inline Register load_register(const float *from) { return load(from); }
inline void store_register(float *to, Register values) { store(to, values); }
inline Register broadcast_register(float value) { return broadcast(value); }
inline Register multiply_add_registers(Register a, Register b, Register c) { return multiply_add(a, b, c); }
inline __m256 add_halves(Floats values) {
    return _mm512_castps512_ps256(values) + _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(values), 1));
}

#elif defined(__AVX2__)

struct Floats {
    __m256 low, high;
};
using Register = __m256;

inline Floats operator+(Floats a, Floats b) { return {a.low + b.low, a.high + b.high}; }
inline Floats operator-(Floats a, Floats b) { return {a.low - b.low, a.high - b.high}; }
inline Floats operator*(Floats a, Floats b) { return {a.low * b.low, a.high * b.high}; }
inline Floats operator/(Floats a, Floats b) { return {a.low / b.low, a.high / b.high}; }
inline Floats &operator+=(Floats &a, Floats b) { return a = a + b; }

inline Floats load(const float *from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline void store(float *to, Floats values) {
    _mm256_storeu_ps(to, values.low);
    _mm256_storeu_ps(to + 8, values.high);
}
inline Floats broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Floats mask(bool keep, Floats values) {
    const __m256 bits = _mm256_castsi256_ps(_mm256_set1_epi32(keep ? -1 : 0));
    return {_mm256_and_ps(values.low, bits), _mm256_and_ps(values.high, bits)};
}
inline __m256 widen_half(const uint8_t *bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(bytes))));
}
inline Floats widen(const uint8_t *bytes) { return {widen_half(bytes), widen_half(bytes + 8)}; }
inline __m256i round_to_16_bits(Floats values) {
    const __m256i words = _mm256_packus_epi32(_mm256_cvtps_epi32(values.low), _mm256_cvtps_epi32(values.high));
    return _mm256_permute4x64_epi64(words, 0xd8);
}
inline void store_rounded(int16_t *to, Floats values) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), round_to_16_bits(values));
}
inline void store_rounded(uint8_t *to, Floats values) {
    const __m256i words = round_to_16_bits(values);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), bytes);
}
inline __m256 max_halves(Floats values) { return _mm256_max_ps(values.low, values.high); }
inline Register load_register(const float *from) { return _mm256_loadu_ps(from); }
inline void store_register(float *to, Register values) { _mm256_storeu_ps(to, values); }
inline Register broadcast_register(float value) { return _mm256_set1_ps(value); }
inline Register multiply_add_registers(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256 add_halves(Floats values) { return values.low + values.high; }

#else

struct Floats {
    float lanes[LANES];
};

template <class Operation> inline Floats for_each_lane(Operation operation) {
    Floats result;
    for (int lane = 0; lane < LANES; lane++) result.lanes[lane] = operation(lane);
    return result;
}

inline Floats operator+(const Floats &a, const Floats &b) {
    return for_each_lane([&](int lane) { return a.lanes[lane] + b.lanes[lane]; });
}
inline Floats operator-(const Floats &a, const Floats &b) {
    return for_each_lane([&](int lane) { return a.lanes[lane] - b.lanes[lane]; });
}
inline Floats operator*(const Floats &a, const Floats &b) {
    return for_each_lane([&](int lane) { return a.lanes[lane] * b.lanes[lane]; });
}
inline Floats operator/(const Floats &a, const Floats &b) {
    return for_each_lane([&](int lane) { return a.lanes[lane] / b.lanes[lane]; });
}
inline Floats &operator+=(Floats &a, const Floats &b) { return a = a + b; }

inline Floats load(const float *from) {
    return for_each_lane([&](int lane) { return from[lane]; });
}
inline void store(float *to, const Floats &values) {
    for (int lane = 0; lane < LANES; lane++) to[lane] = values.lanes[lane];
}
inline Floats broadcast(float value) {
    return for_each_lane([&](int) { return value; });
}
inline Floats multiply_add(const Floats &a, const Floats &b, const Floats &c) {
    return for_each_lane([&](int lane) { return __builtin_fmaf(a.lanes[lane], b.lanes[lane], c.lanes[lane]); });
}
inline Floats max(const Floats &a, const Floats &b) {
    return for_each_lane([&](int lane) { return a.lanes[lane] > b.lanes[lane] ? a.lanes[lane] : b.lanes[lane]; });
}
inline Floats min(const Floats &a, const Floats &b) {
    return for_each_lane([&](int lane) { return a.lanes[lane] < b.lanes[lane] ? a.lanes[lane] : b.lanes[lane]; });
}
inline Floats mask(bool keep, const Floats &values) { return keep ? values : Floats{}; }
inline Floats widen(const uint8_t *bytes) {
    return for_each_lane([&](int lane) { return static_cast<float>(bytes[lane]); });
}
inline Floats to_floats(const int32_t *from) {
    return for_each_lane([&](int lane) { return static_cast<float>(from[lane]); });
}
template <class Code> inline void store_rounded(Code *to, const Floats &values) {
    for (int lane = 0; lane < LANES; lane++) to[lane] = static_cast<Code>(__builtin_rintf(values.lanes[lane]));
}

#endif

/// The sum of all lanes. Lane i is added to lane i + 8, then to i + 4, i + 2 and i + 1.
#if defined(__AVX2__)
inline float reduce_add(Floats values) {
    const __m256 eight = add_halves(values);
    const __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
    const __m128 two = four + _mm_movehl_ps(four, four);
    return two[0] + two[1];
}
/// The largest lane.
inline float reduce_max(Floats values) {
    const __m256 eight = max_halves(values);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return two[0] > two[1] ? two[0] : two[1];
}
#else
inline float reduce_add(Floats values) {
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; lane++) values.lanes[lane] += values.lanes[lane + half];
    }
    return values.lanes[0];
}
inline float reduce_max(const Floats &values) {
    float largest = values.lanes[0];
    for (int lane = 1; lane < LANES; lane++) largest = values.lanes[lane] > largest ? values.lanes[lane] : largest;
    return largest;
}
#endif

/// The larger one of each lane and 0; 0 for NaN.
inline Floats relu(Floats values) { return max(values, Floats{}); }

} // namespace
