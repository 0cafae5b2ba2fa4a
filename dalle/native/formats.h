// How weights of each type are multiplied, and inputs laid out for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "vectors.h"

namespace {

// A format multiplies 4 bytes of inputs with the 4 bytes of weights of each of 16 outputs.

struct Fp32 {
  using Stored = float;
  using Sum = f32x16;
  static constexpr int kInputs = 1;
  static Sum add(Sum sum, const char* weights, uint32_t inputs) {
    float input;
    std::memcpy(&input, &inputs, 4);
    return sum + load<f32x16>(weights) * input;
  }
};

struct Bf16 {
  using Stored = uint16_t;
  using Sum = f32x16;
  static constexpr int kInputs = 2;
  static Sum add(Sum sum, const char* weights, uint32_t inputs) {
#if defined(__AVX512BF16__)
    return (f32x16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(weights),
                                    (__m512bh)_mm512_set1_epi32(int32_t(inputs)));
#else
    const u32x16 both = load<u32x16>(weights);
    sum += (f32x16)(both << 16) * from_bf16(uint16_t(inputs));
    return sum + (f32x16)(both & 0xffff0000u) * from_bf16(uint16_t(inputs >> 16));
#endif
  }
};

struct Int8 {
  using Stored = uint16_t;
  using Sum = i32x16;
  static constexpr int kInputs = 4;
  static Sum add(Sum sum, const char* weights, uint32_t inputs) {
#if defined(__AVX512VNNI__)
    return (i32x16)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(int32_t(inputs)),
                                       _mm512_loadu_si512(weights));
#else
    const i32x16 four = load<i32x16>(weights);
    for (int i = 0; i < 4; ++i)
      sum += ((four << (24 - 8 * i)) >> 24) * int32_t((inputs >> (8 * i)) & 0xff);
    return sum;
#endif
  }
};

// The inputs of a product: rows of 4-byte groups, zero beyond the width, and for int8 what a step of
// each row is worth.
struct Rows {
  uint32_t* groups;
  float* scales;
  int64_t stride;  // groups from row to row
};

void pack_row(Fp32, const float* from, int64_t count, const Rows& rows, int64_t row) {
  float* to = reinterpret_cast<float*>(rows.groups + row * rows.stride);
  std::fill(std::copy(from, from + count, to), to + rows.stride, 0.0f);
}

void pack_row(Bf16, const float* from, int64_t count, const Rows& rows, int64_t row) {
  uint16_t* to = reinterpret_cast<uint16_t*>(rows.groups + row * rows.stride);
  for (int64_t i = 0; i < count; ++i) to[i] = to_bf16(from[i]);
  std::fill(to + count, to + 2 * rows.stride, uint16_t(0));
}

void pack_row(Int8, const float* from, int64_t count, const Rows& rows, int64_t row) {
  int64_t i = 0;
  f32x16 tops = {};
  for (; i + 16 <= count; i += 16) {
    const f32x16 v = load<f32x16>(from + i);
    tops = larger(tops, larger(v, -v));
  }
  float largest = largest_of(tops);
  for (; i < count; ++i) largest = std::max(largest, std::fabs(from[i]));
  const float scale = largest > 0 ? largest / 127 : 1, steps = 1 / scale;
  uint8_t* to = reinterpret_cast<uint8_t*>(rows.groups + row * rows.stride);
  // Unsigned for the processor's instruction; `Linear::sums` takes the 128 away again.
  for (int64_t i = 0; i < count; ++i) to[i] = uint8_t(int32_t(std::nearbyintf(from[i] * steps)) + 128);
  std::fill(to + count, to + 4 * rows.stride, uint8_t(0));
  rows.scales[row] = scale;
}

}  // namespace
