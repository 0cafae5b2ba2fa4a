// How weights of each type are multiplied, and inputs laid out for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace {

// A format multiplies a group of inputs with the 4 bytes that hold their weights for each of the 16
// outputs of a panel. Where the processor has no product of its own for it, inputs are kept in a
// wider type, `Input`, than the weights.

// The 64 bytes of a group's weights as they lie there.
template <class V>
struct AsStored {
  V of[kRegisters];
  explicit AsStored(const char* from) {
    for (int v = 0; v < kRegisters; ++v) of[v] = load<V>(from + v * sizeof(V));
  }
};

struct Fp32 {
  using Stored = float;
  using Input = float;
  using Weights = AsStored<f32v>;
  static constexpr int kInputs = 1;
  struct Sum {
    f32v of[kRegisters];
  };
  static void add(Sum& sum, const Weights& weights, Input input) {
    for (int v = 0; v < kRegisters; ++v) sum.of[v] += weights.of[v] * input;
  }
};

struct Bf16 {
  using Stored = uint16_t;
  static constexpr int kInputs = 2;
  struct Sum {
    f32v of[kRegisters];
  };
#if defined(__AVX512BF16__)
  using Input = uint32_t;
  using Weights = AsStored<i32v>;
  static void add(Sum& sum, const Weights& weights, Input input) {
    sum.of[0] = (f32v)_mm512_dpbf16_ps((__m512)sum.of[0], (__m512bh)weights.of[0],
                                       (__m512bh)_mm512_set1_epi32(int32_t(input)));
  }
#else
  struct Input {
    float of[2];
  };
  struct Weights {
    f32v first[kRegisters], second[kRegisters];
    explicit Weights(const char* from) {
      for (int v = 0; v < kRegisters; ++v) {
        const u32v both = load<u32v>(from + v * sizeof(u32v));
        first[v] = (f32v)(both << 16);
        second[v] = (f32v)(both & 0xffff0000u);
      }
    }
  };
  static void add(Sum& sum, const Weights& weights, const Input& input) {
    for (int v = 0; v < kRegisters; ++v) sum.of[v] += weights.first[v] * input.of[0];
    for (int v = 0; v < kRegisters; ++v) sum.of[v] += weights.second[v] * input.of[1];
  }
#endif
};

struct Int8 {
  using Stored = uint16_t;
  using Input = uint32_t;  // four inputs
  static constexpr int kInputs = 4;
  struct Sum {
    i32v of[kRegisters];
  };
#if defined(__AVX512VNNI__)
  using Weights = AsStored<i32v>;
  static constexpr int kOffset = 128;  // these products are of unsigned inputs
  static void add(Sum& sum, const Weights& weights, Input input) {
    sum.of[0] = (i32v)_mm512_dpbusd_epi32((__m512i)sum.of[0], _mm512_set1_epi32(int32_t(input)),
                                          (__m512i)weights.of[0]);
  }
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
  using Weights = AsStored<i32v>;
  static constexpr int kOffset = 128;
  static void add(Sum& sum, const Weights& weights, Input input) {
    const __m256i inputs = _mm256_set1_epi32(int32_t(input));
    for (int v = 0; v < kRegisters; ++v)
      sum.of[v] = (i32v)_mm256_dpbusd_avx_epi32((__m256i)sum.of[v], inputs, (__m256i)weights.of[v]);
  }
#elif defined(__AVX2__) && !defined(__AVX512F__)
  using Weights = AsStored<i32v>;
  static constexpr int kOffset = 0;
  // The sizes of the inputs times the weights with their signs: two products of at most 127 * 127
  // fit 16 bits, which those of unsigned inputs up to 255 would not.
  static void add(Sum& sum, const Weights& weights, Input input) {
    const __m256i inputs = _mm256_set1_epi32(int32_t(input)), sizes = _mm256_abs_epi8(inputs);
    for (int v = 0; v < kRegisters; ++v) {
      const __m256i two = _mm256_maddubs_epi16(
          sizes, _mm256_sign_epi8((__m256i)weights.of[v], inputs));
      sum.of[v] += (i32v)_mm256_madd_epi16(two, _mm256_set1_epi16(1));
    }
  }
#else
  static constexpr int kOffset = 0;
  struct Weights {
    i32v of[kInputs][kRegisters];
    explicit Weights(const char* from) {
      for (int v = 0; v < kRegisters; ++v)
        for (int i = 0; i < kInputs; ++i)
          of[i][v] = (load<i32v>(from + v * sizeof(i32v)) << (24 - 8 * i)) >> 24;
    }
  };
  static void add(Sum& sum, const Weights& weights, Input input) {
    for (int i = 0; i < kInputs; ++i)
      for (int v = 0; v < kRegisters; ++v)
        sum.of[v] += weights.of[i][v] * int32_t(int8_t(input >> (8 * i)));
  }
#endif
};

constexpr int64_t kMostInputWords =
    std::max({sizeof(Fp32::Input), sizeof(Bf16::Input), sizeof(Int8::Input)}) / 4;

// The inputs of a product: rows of groups, zero beyond the width, and for int8 what a step of each
// row is worth.
struct Rows {
  uint32_t* words;
  float* scales;
  int64_t stride;  // words from row to row

  template <class F>
  const typename F::Input& input(int64_t row, int64_t group) const {
    return reinterpret_cast<const typename F::Input*>(words + row * stride)[group];
  }
};

void pack_row(Fp32, const float* from, int64_t count, const Rows& rows, int64_t row) {
  float* to = reinterpret_cast<float*>(rows.words + row * rows.stride);
  std::fill(std::copy(from, from + count, to), to + rows.stride, 0.0f);
}

void pack_row(Bf16, const float* from, int64_t count, const Rows& rows, int64_t row) {
#if defined(__AVX512BF16__)
  uint16_t* to = reinterpret_cast<uint16_t*>(rows.words + row * rows.stride);
  for (int64_t i = 0; i < count; ++i) to[i] = to_bf16(from[i]);
  std::fill(to + count, to + 2 * rows.stride, uint16_t(0));
#else
  pack_row(Fp32{}, from, count, rows, row);
#endif
}

void pack_row(Int8, const float* from, int64_t count, const Rows& rows, int64_t row) {
  int64_t i = 0;
  f32v tops = {};
  for (; i + kLanes <= count; i += kLanes) {
    const f32v v = load<f32v>(from + i);
    tops = larger(tops, larger(v, -v));
  }
  float largest = largest_of(tops);
  for (; i < count; ++i) largest = std::max(largest, std::fabs(from[i]));
  const float scale = largest > 0 ? largest / 127 : 1, steps = 1 / scale;
  uint8_t* to = reinterpret_cast<uint8_t*>(rows.words + row * rows.stride);
  for (int64_t i = 0; i < count; ++i)
    to[i] = uint8_t(int32_t(std::nearbyintf(from[i] * steps)) + Int8::kOffset);
  std::fill(to + count, to + 4 * rows.stride, uint8_t(0));
  rows.scales[row] = scale;
}

}  // namespace
