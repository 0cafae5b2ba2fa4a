// As many numbers at a time as a register of the processor holds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// Vectors that are wider than a register go through memory, ten times as slowly.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float f32v __attribute__((vector_size(4 * kLanes)));
typedef int32_t i32v __attribute__((vector_size(4 * kLanes)));
typedef uint32_t u32v __attribute__((vector_size(4 * kLanes)));
typedef uint16_t u16v __attribute__((vector_size(2 * kLanes)));

// Outputs of a panel, and the registers that hold a result for each.
constexpr int kPanel = 16;
constexpr int kRegisters = kPanel / kLanes;
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

// Has the lines of `kCount` numbers brought from memory: into the second cache, which has more requests
// under way at once than the first, or into the first to be written.
template <int kCount, bool kWritten = false, class T>
inline void fetch(const T* from) {
#pragma GCC unroll 16
  for (int byte = 0; byte < kCount * int(sizeof(T)); byte += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(from) + byte, kWritten, kWritten ? 3 : 1);
}

inline f32v larger(f32v a, f32v b) { return a > b ? a : b; }

inline float largest_of(f32v v) {
  float largest = v[0];
  for (int i = 1; i < kLanes; ++i) largest = std::max(largest, v[i]);
  return largest;
}

inline float sum(f32v v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += v[i];
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
inline f32v exp_negative(f32v x) {
  const f32v lowest = f32v{} - 87.0f;
  x = x > lowest ? x : lowest;
  // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
  const f32v shift = f32v{} + 12582912.0f;
  const f32v n = (x * 1.44269504f + shift) - shift;
  f32v r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  f32v y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  const i32v exponent = __builtin_convertvector(n, i32v) << 23;
  return (f32v)((i32v)y + exponent);
}

// Exact GELU; erf by Abramowitz & Stegun 7.1.26, absolute error 1.5e-7.
inline f32v gelu(f32v x) {
  const f32v z = x * 0.70710678f;
  const f32v size = z < 0 ? -z : z;
  const f32v t = 1.0f / (size * 0.3275911f + 1.0f);
  f32v tail = t * 1.061405429f - 1.453152027f;
  tail = tail * t + 1.421413741f;
  tail = tail * t - 0.284496736f;
  tail = tail * t + 0.254829592f;
  tail = tail * t * exp_negative(-z * z);
  const f32v erf = z < 0 ? tail - 1.0f : 1.0f - tail;
  return x * 0.5f * (1.0f + erf);
}

// Turns scores into weights that sum to the value returned. `scores` has room for 16 more.
float exponentials(float* scores, int64_t count) {
  const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
  for (int64_t i = count; i < padded; ++i) scores[i] = -INFINITY;
  f32v tops = load<f32v>(scores);
  for (int64_t i = kLanes; i < padded; i += kLanes) tops = larger(tops, load<f32v>(scores + i));
  const float best = largest_of(tops);
  f32v total = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    const f32v weights = exp_negative(load<f32v>(scores + i) - best);
    store(scores + i, weights);
    total += weights;
  }
  return sum(total);
}

}  // namespace
