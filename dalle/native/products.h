// Rows of inputs times the weights of a linear layer: by tiles (AMX) or by vectors.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "formats.h"
#include "structures.h"
#include "threads.h"
#include "vectors.h"

namespace {

enum class Then { kStore, kGelu, kAdd };

// What happens to a register of complete sums.
template <Then then>
inline void finish(f32v y, float* to) {
  if (then == Then::kGelu) y = gelu(y);
  if (then == Then::kAdd) y += load<f32v>(to);
  store(to, y);
}

inline f32v scaled(const Linear&, const Rows&, int64_t, int64_t, f32v sums) { return sums; }

inline f32v scaled(const Linear& linear, const Rows& rows, int64_t row, int64_t output, i32v sums) {
  // What the offset of the inputs has added, `Linear::sums` takes away again.
  if (Int8::kOffset) sums -= load<i32v>(linear.sums + output);
  return __builtin_convertvector(sums, f32v) * rows.scales[row] * load<f32v>(linear.scales + output);
}

template <class F, Then then>
inline void finish(const Linear& linear, const Rows& rows, int64_t row, int64_t panel,
                   const typename F::Sum& sums, float* to) {
#pragma GCC unroll 4
  for (int v = 0; v < kRegisters; ++v) {
    const int64_t output = panel * kPanel + v * kLanes;
    f32v y = scaled(linear, rows, row, output, sums.of[v]);
    if (linear.bias) y += load<f32v>(linear.bias + output);
    finish<then>(y, to + v * kLanes);
  }
}

// How many rows and panels are computed together: as many as there are registers for their sums.
constexpr int kTall = kLanes == 16 ? 8 : 4, kTallPanels = kLanes == 16 ? kPair : 1;

template <class F, Then then, int kRows, int kPanels>
void multiply_block(const Linear& linear, const Rows& rows, int64_t row, int64_t panel, float* y,
                    int64_t stride) {
  const char* weights = static_cast<const char*>(linear.weights) + panel * linear.groups * 64;
  typename F::Sum sums[kRows][kPanels] = {};
  for (int64_t group = 0; group < linear.groups; ++group) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      const typename F::Weights of_group(weights + (p * linear.groups + group) * 64);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
        F::add(sums[r][p], of_group, rows.input<F>(row + r, group));
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int p = 0; p < kPanels; ++p)
      finish<F, then>(linear, rows, row + r, panel + p, sums[r][p],
                      y + (row + r) * stride + (panel + p) * kPanel);
}

template <class F, Then then>
void multiply_vectors(const Linear& linear, const Rows& rows, int64_t count, int64_t begin,
                      int64_t end, float* y, int64_t stride) {
  const int64_t tall = count / kTall * kTall;
  for (int64_t panel = begin; panel < end; panel += kPair) {
    for (int64_t p = panel; p < panel + kPair; p += kTallPanels)
      for (int64_t row = 0; row < tall; row += kTall)
        multiply_block<F, then, kTall, kTallPanels>(linear, rows, row, p, y, stride);
    int64_t row = tall;
    for (; row + 2 <= count; row += 2)
      multiply_block<F, then, 2, kPair>(linear, rows, row, panel, y, stride);
    for (; row < count; ++row) multiply_block<F, then, 1, kPair>(linear, rows, row, panel, y, stride);
  }
}

// The inputs of a tile are laid out as for the products of AVX-512, see formats.h.
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && \
    defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define DALLE_TILES 1

// Tiles 0 to 3 hold sums, 4 and 5 inputs, 6 and 7 weights.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

void configure_tiles(int64_t batch) {
  TileConfig config;
  const uint8_t rows = uint8_t(std::min<int64_t>(batch, 16));
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = tile < 6 ? rows : 16;
  }
  // GCC 12 believes that the instruction reads the first eight bytes alone, and leaves out the rest.
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

#define DALLE_TILE_PRODUCT(F, sum, inputs, weights)   \
  if (F::kInputs == 2) {                              \
    _tile_dpbf16ps(sum, inputs, weights);             \
  } else {                                            \
    _tile_dpbusd(sum, inputs, weights);               \
  }

template <class F, Then then>
void finish_tiles(const Linear& linear, const Rows& rows, int64_t row, int64_t count, int64_t panel,
                  const typename F::Sum* sums, float* y, int64_t stride) {
  for (int64_t r = 0; r < std::min<int64_t>(count - row, 16); ++r)
    finish<F, then>(linear, rows, row + r, panel, sums[r],
                    y + (row + r) * stride + panel * kPanel);
}

// Up to 16 rows times four panels: few rows, so the weights alone set the pace.
template <class F, Then then>
void tile_row(const Linear& linear, const Rows& rows, int64_t row, int64_t count, int64_t panel,
              float* y, int64_t stride) {
  const char* weights = static_cast<const char*>(linear.weights) + panel * linear.groups * 64;
  const int64_t step = linear.groups * 64;
  const uint32_t* inputs = rows.words + row * rows.stride;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t group = 0; group < linear.groups; group += 16, weights += 1024) {
    _tile_loadd(4, inputs + group, rows.stride * 4);
    _tile_loadd(6, weights, 64);
    DALLE_TILE_PRODUCT(F, 0, 4, 6)
    _tile_loadd(7, weights + step, 64);
    DALLE_TILE_PRODUCT(F, 1, 4, 7)
    _tile_loadd(6, weights + 2 * step, 64);
    DALLE_TILE_PRODUCT(F, 2, 4, 6)
    _tile_loadd(7, weights + 3 * step, 64);
    DALLE_TILE_PRODUCT(F, 3, 4, 7)
  }
  typename F::Sum sums[4][16];
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  for (int p = 0; p < 4; ++p)
    finish_tiles<F, then>(linear, rows, row, count, panel + p, sums[p], y, stride);
}

// One or two tiles of rows times two panels.
template <class F, Then then, bool two>
void tile_square(const Linear& linear, const Rows& rows, int64_t row, int64_t count, int64_t panel,
                 float* y, int64_t stride) {
  const char* weights = static_cast<const char*>(linear.weights) + panel * linear.groups * 64;
  const int64_t step = linear.groups * 64;
  const uint32_t* inputs = rows.words + row * rows.stride;
  // While the last rows are multiplied with these panels, the next two are brought from memory.
  const bool fetching = row + 32 >= count && panel + 4 <= linear.panels;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t group = 0; group < linear.groups; group += 16, weights += 1024) {
    if (fetching) {
      fetch<1024>(weights + 2 * step);
      fetch<1024>(weights + 3 * step);
    }
    _tile_loadd(4, inputs + group, rows.stride * 4);
    _tile_loadd(6, weights, 64);
    _tile_loadd(7, weights + step, 64);
    DALLE_TILE_PRODUCT(F, 0, 4, 6)
    DALLE_TILE_PRODUCT(F, 1, 4, 7)
    if (two) {
      _tile_loadd(5, inputs + 16 * rows.stride + group, rows.stride * 4);
      DALLE_TILE_PRODUCT(F, 2, 5, 6)
      DALLE_TILE_PRODUCT(F, 3, 5, 7)
    }
  }
  typename F::Sum sums[4][16];
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  finish_tiles<F, then>(linear, rows, row, count, panel, sums[0], y, stride);
  finish_tiles<F, then>(linear, rows, row, count, panel + 1, sums[1], y, stride);
  if (!two) return;
  finish_tiles<F, then>(linear, rows, row + 16, count, panel, sums[2], y, stride);
  finish_tiles<F, then>(linear, rows, row + 16, count, panel + 1, sums[3], y, stride);
}

template <class F, Then then>
void multiply_tiles(const Linear& linear, const Rows& rows, int64_t count, int64_t begin,
                    int64_t end, float* y, int64_t stride) {
  int64_t panel = begin;
  if (count <= 16)
    for (; panel + 4 <= end; panel += 4) tile_row<F, then>(linear, rows, 0, count, panel, y, stride);
  for (; panel < end; panel += kPair) {
    int64_t row = 0;
    for (; row + 16 < count; row += 32)
      tile_square<F, then, true>(linear, rows, row, count, panel, y, stride);
    if (row < count) tile_square<F, then, false>(linear, rows, row, count, panel, y, stride);
  }
}
#endif

template <class F, Then then>
void multiply(const Linear& linear, const Rows& rows, int64_t count, float* y, int64_t stride,
              Share pairs) {
#if defined(DALLE_TILES)
  if (F::kInputs > 1)
    return multiply_tiles<F, then>(linear, rows, count, pairs.begin * kPair, pairs.end * kPair, y,
                                   stride);
#endif
  multiply_vectors<F, then>(linear, rows, count, pairs.begin * kPair, pairs.end * kPair, y, stride);
}

}  // namespace
