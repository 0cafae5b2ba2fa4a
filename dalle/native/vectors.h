// Sixteen numbers at a time, on whatever registers the processor has.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

// Outputs of a panel: one vector register of results.
constexpr int kPanel = 16;
// Panels that are computed together; outputs are padded to whole pairs.
constexpr int kPair = 2;

template <class V>
inline V load(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class V>
inline void store(void* to, V value) {
  std::memcpy(to, &value, sizeof value);
}

inline f32x16 larger(f32x16 a, f32x16 b) { return a > b ? a : b; }

inline float largest_of(f32x16 v) {
  float largest = v[0];
  for (int i = 1; i < 16; ++i) largest = std::max(largest, v[i]);
  return largest;
}

inline float sum(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float total = 0;
  for (int i = 0; i < 16; ++i) total += v[i];
  return total;
#endif
}

inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest, ties to even
}

inline float from_bf16(uint16_t value) {
  const uint32_t bits = uint32_t(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, 4);
  return wide;
}

// exp(x) for x <= 0, relative error 2e-7; below -87 it stays at 1.6e-38.
inline f32x16 exp_negative(f32x16 x) {
  const f32x16 lowest = f32x16{} - 87.0f;
  x = x > lowest ? x : lowest;
  // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
  const f32x16 shift = f32x16{} + 12582912.0f;
  const f32x16 n = (x * 1.44269504f + shift) - shift;
  f32x16 r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  f32x16 y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const i32x16 exponent = __builtin_convertvector(n, i32x16) << 23;
  return (f32x16)((i32x16)y + exponent);
}

// Exact GELU; erf by Abramowitz & Stegun 7.1.26, absolute error 1.5e-7.
inline f32x16 gelu(f32x16 x) {
  const f32x16 z = x * 0.70710678f;
  const f32x16 size = z < 0 ? -z : z;
  const f32x16 t = 1.0f / (size * 0.3275911f + 1.0f);
  f32x16 tail = t * 1.061405429f - 1.453152027f;
  tail = tail * t + 1.421413741f;
  tail = tail * t - 0.284496736f;
  tail = tail * t + 0.254829592f;
  tail = tail * t * exp_negative(-z * z);
  const f32x16 erf = z < 0 ? tail - 1.0f : 1.0f - tail;
  return x * 0.5f * (1.0f + erf);
}

// Turns scores into weights that sum to the value returned. `scores` has room for 16 more.
float exponentials(float* scores, int64_t count) {
  const int64_t padded = (count + 15) / 16 * 16;
  for (int64_t i = count; i < padded; ++i) scores[i] = -INFINITY;
  f32x16 tops = load<f32x16>(scores);
  for (int64_t i = 16; i < padded; i += 16) tops = larger(tops, load<f32x16>(scores + i));
  const float best = largest_of(tops);
  f32x16 total = {};
  for (int64_t i = 0; i < padded; i += 16) {
    const f32x16 weights = exp_negative(load<f32x16>(scores + i) - best);
    store(scores + i, weights);
    total += weights;
  }
  return sum(total);
}

}  // namespace
