// One decode step of the joint transformer, and the choice of the next tokens, on a CPU.
//
// dalle/native/build.py compiles this file for the processor at hand; dalle/native/decoder.py fills
// the structures below. A whole step is one call and one parallel region, so that a model of
// any size pays for its arithmetic and its memory traffic, and not for hundreds of small calls.
//
// Every row of a batch is computed by the same operations in the same order whatever stands beside
// it and however many threads there are: a picture is the same bits in every batch.
//
// Axis letters: b rows of the batch (c captions x g candidates), d width, a heads, f head width,
// p prefix slots, s suffix slots, k image vocabulary.

#include <algorithm>
#include <atomic>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// torch's OpenMP is GNU's, and only GNU's compiler calls it for a parallel region: others have a
// runtime of their own, whose threads would fight with torch's. So its functions are called by name.
extern "C" {
int omp_get_thread_num();
int omp_get_num_threads();
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
}

namespace {

// `body(thread, threads)` in each of up to so many threads at once.
template <class Body>
void in_parallel(int64_t threads, Body body) {
  const auto call = [](void* data) {
    (*static_cast<Body*>(data))(omp_get_thread_num(), omp_get_num_threads());
  };
  GOMP_parallel(call, &body, unsigned(threads), 0);
}

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

// ------------------------------------------------------------------------------ the structures

extern "C" {

struct Linear {
  const void* weights;     // panels x groups x 16 outputs x 4 bytes, see decoder.py
  const float* bias;       // outputs, padded; null for none
  const float* scales;     // int8: what one step of each output is worth
  const int32_t* sums;     // int8: 128 times the sum of each output's weights
  int64_t groups;          // input, padded, in groups of 4 bytes
  int64_t panels;          // outputs, padded, in panels of 16
};

struct Norm {
  const float* gain;
  const float* offset;
};

struct Layer {
  Norm attention_norm;
  Linear qkv;
  const float* query_gain;  // null without QK-norm
  const float* key_gain;
  Linear out;
  Norm mlp_norm;
  Linear mlp_in;
  Linear mlp_out;
};

struct Model {
  int64_t format;  // bytes of a weight: 4 fp32, 2 bf16, 1 int8
  int64_t layers, width, hidden, heads, grid_w;
  const Layer* layer;
  Norm final_norm;
  Linear head;
  const float* image_embedding;
  const float* row_position;
  const float* column_position;
};

struct LayerCache {
  const void* prefix_keys;  // c a p f, in bf16, or fp32 for format fp32
  const void* prefix_values;
  void* suffix_keys;  // c a g s f
  void* suffix_values;
  const int32_t* seen_prefix;  // slots that the query sees
  int64_t seen_prefix_count;
  const int32_t* seen_suffix;  // its own, newest slot is the last
  int64_t seen_suffix_count;
};

struct Step {
  int64_t captions, candidates, prefix_len, suffix_len, position;
  const int64_t* tokens;  // c g
  const LayerCache* cache;
  float* scratch;
  float* logits;  // b, padded vocabulary
  int64_t threads;
};

struct Choice {
  int64_t captions, candidates, vocab, stride;
  const float* conditional;  // c g stride
  const float* null;         // same shape; null pointer when unguided
  const float* noise;        // g, noise_stride
  int64_t noise_stride;
  float guidance_scale, temperature, top_p;
  int64_t top_k;  // 0 keeps all
  float* scratch;
  int64_t* tokens;         // c g
  float* log_probability;  // c g
  int64_t threads;
};
}

// ------------------------------------------------------------------------------- the formats

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

// --------------------------------------------------------------------------- rows for products

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

void layer_norm(const float* x, int64_t width, const Norm& norm, float* to) {
  float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < width; ++i) total += x[i];
  const float mean = total / width;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float scale = 1 / std::sqrt(squares / width + 1e-5f);
  for (int64_t i = 0; i < width; ++i) to[i] = (x[i] - mean) * scale * norm.gain[i] + norm.offset[i];
}

// ------------------------------------------------------------------------------------- products

enum class Then { kStore, kGelu, kAdd };

// What happens to a row of 16 sums, once they are complete.
template <Then then>
inline void finish(f32x16 y, float* to) {
  if (then == Then::kGelu) y = gelu(y);
  if (then == Then::kAdd) y += load<f32x16>(to);
  store(to, y);
}

template <Then then>
inline void finish(const Linear& linear, const Rows&, int64_t, int64_t panel, f32x16 y, float* to) {
  if (linear.bias) y += load<f32x16>(linear.bias + panel * kPanel);
  finish<then>(y, to);
}

template <Then then>
inline void finish(const Linear& linear, const Rows& rows, int64_t row, int64_t panel, i32x16 sums,
                   float* to) {
  sums -= load<i32x16>(linear.sums + panel * kPanel);
  f32x16 y = __builtin_convertvector(sums, f32x16) * rows.scales[row];
  y *= load<f32x16>(linear.scales + panel * kPanel);
  if (linear.bias) y += load<f32x16>(linear.bias + panel * kPanel);
  finish<then>(y, to);
}

template <class F, Then then, int kRows>
void multiply_block(const Linear& linear, const Rows& rows, int64_t row, int64_t panel, float* y,
                    int64_t stride) {
  const char* first = static_cast<const char*>(linear.weights) + panel * linear.groups * 64;
  const char* second = first + linear.groups * 64;
  typename F::Sum sums[kRows][kPair] = {};
  for (int64_t group = 0; group < linear.groups; ++group) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const uint32_t inputs = rows.groups[(row + r) * rows.stride + group];
      sums[r][0] = F::add(sums[r][0], first + group * 64, inputs);
      sums[r][1] = F::add(sums[r][1], second + group * 64, inputs);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int p = 0; p < kPair; ++p)
      finish<then>(linear, rows, row + r, panel + p, sums[r][p],
                   y + (row + r) * stride + (panel + p) * kPanel);
}

template <class F, Then then>
void multiply_vectors(const Linear& linear, const Rows& rows, int64_t count, int64_t begin,
                      int64_t end, float* y, int64_t stride) {
  for (int64_t panel = begin; panel < end; panel += kPair) {
    int64_t row = 0;
    for (; row + 8 <= count; row += 8)
      multiply_block<F, then, 8>(linear, rows, row, panel, y, stride);
    for (; row + 2 <= count; row += 2)
      multiply_block<F, then, 2>(linear, rows, row, panel, y, stride);
    for (; row < count; ++row) multiply_block<F, then, 1>(linear, rows, row, panel, y, stride);
  }
}

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__)
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
    finish<then>(linear, rows, row + r, panel, sums[r], y + (row + r) * stride + panel * kPanel);
}

// Up to 16 rows times four panels: few rows, so the weights alone set the pace.
template <class F, Then then>
void tile_row(const Linear& linear, const Rows& rows, int64_t row, int64_t count, int64_t panel,
              float* y, int64_t stride) {
  const char* weights = static_cast<const char*>(linear.weights) + panel * linear.groups * 64;
  const int64_t step = linear.groups * 64;
  const uint32_t* inputs = rows.groups + row * rows.stride;
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
  const uint32_t* inputs = rows.groups + row * rows.stride;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t group = 0; group < linear.groups; group += 16, weights += 1024) {
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

// Where threads wait for each other. OpenMP's own barrier spins for a long time, and where another
// program holds the core of the thread that is waited for, each wait then costs a whole time slice:
// a step has a hundred of them. This one soon sleeps, and so leaves its core to that thread.
class Barrier {
 public:
  void wait(int threads) {
    if (threads == 1) return;
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_seq_cst);
      if (asleep_.load(std::memory_order_seq_cst)) futex(FUTEX_WAKE_PRIVATE, INT_MAX);
      return;
    }
    for (int spin = 0; spin < kSpins; ++spin) {
      if (round_.load(std::memory_order_acquire) != round) return;
      pause();
    }
    asleep_.fetch_add(1, std::memory_order_seq_cst);
    while (round_.load(std::memory_order_seq_cst) == round) futex(FUTEX_WAIT_PRIVATE, round);
    asleep_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
  static constexpr int kSpins = 1000;  // some 30 microseconds

  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  void futex(int operation, int value) {
    syscall(SYS_futex, reinterpret_cast<int*>(&round_), operation, value, nullptr, nullptr, 0);
  }

  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
  std::atomic<int> asleep_{0};
};

// What one of several threads does of `count` equal pieces.
struct Share {
  int64_t begin, end;
  Share(int64_t count, int64_t thread, int64_t threads)
      : begin(count * thread / threads), end(count * (thread + 1) / threads) {}
};

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

// ------------------------------------------------------------------------------------ attention

inline float widen(float value) { return value; }
inline float widen(uint16_t value) { return from_bf16(value); }
inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, uint16_t* to) { *to = to_bf16(value); }

// A head's numbers of one slot in kVectors registers. bf16 is widened without moving lanes about:
// of 32 numbers the even ones fill one register and the odd ones the next.
template <class T, int kVectors>
struct Lanes {
  static constexpr bool kSplit = sizeof(T) == 2 && kVectors % 2 == 0;
  f32x16 of[kVectors];

  explicit Lanes(const T* from) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kSplit) {
        const u32x16 both = load<u32x16>(from + v / 2 * 32);
        of[v] = (f32x16)(v % 2 ? both & 0xffff0000u : both << 16);
      } else if constexpr (sizeof(T) == 2) {
        of[v] = (f32x16)(__builtin_convertvector(load<u16x16>(from + v * 16), u32x16) << 16);
      } else {
        of[v] = load<f32x16>(from + v * 16);
      }
    }
  }
};

// Which number of a head stands in a lane of a register.
template <class T, int kVectors>
inline int placed(int vector, int lane) {
  return Lanes<T, kVectors>::kSplit ? vector / 2 * 32 + 2 * lane + vector % 2 : vector * 16 + lane;
}

// Where a lane comes from when the pairs of two registers are brought together; below 16, from the
// first.
constexpr int paired(int lane, int step) { return lane & step ? 16 + lane - step : lane; }

// Lanes of `a` and of `b` that stand `kStep` apart, added up, side by side.
template <int kStep, int... kLane>
inline f32x16 folded(f32x16 a, f32x16 b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, paired(kLane, kStep)...) +
         __builtin_shufflevector(a, b, (paired(kLane, kStep) + kStep)...);
#else
  return __builtin_shuffle(a, b, i32x16{paired(kLane, kStep)...}) +
         __builtin_shuffle(a, b, i32x16{(paired(kLane, kStep) + kStep)...});
#endif
}

template <int kStep>
inline void fold_pairs(f32x16 (&v)[16]) {
#pragma GCC unroll 8
  for (int pair = 0; pair < 8 / kStep; ++pair)
    v[pair] = folded<kStep>(v[2 * pair], v[2 * pair + 1], std::make_integer_sequence<int, 16>());
}

// Sums of 16 registers, in their order.
inline f32x16 sums_of(f32x16 (&v)[16]) {
  fold_pairs<1>(v);
  fold_pairs<2>(v);
  fold_pairs<4>(v);
  fold_pairs<8>(v);
  return v[0];
}

// Attention of one query over the slots it sees, into `to`. kVectors is f / 16, or 0 for any f.
template <class T, int kVectors>
struct Head {
  int64_t width;
  float* to;
  f32x16 query[kVectors], mixed[kVectors];

  Head(int64_t width, const float* from, float* to) : width(width), to(to) {
    for (int v = 0; v < kVectors; ++v)
      for (int lane = 0; lane < 16; ++lane) query[v][lane] = from[placed<T, kVectors>(v, lane)];
    for (int v = 0; v < kVectors; ++v) mixed[v] = f32x16{};
  }

  f32x16 products(const T* key) const {
    const Lanes<T, kVectors> lanes(key);
    f32x16 total = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) total += query[v] * lanes.of[v];
    return total;
  }

  void scores(const T* keys, const int32_t* seen, int64_t count, float* to) const {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      f32x16 sixteen[16];
#pragma GCC unroll 16
      for (int j = 0; j < 16; ++j) sixteen[j] = products(keys + seen[i + j] * width);
      store(to + i, sums_of(sixteen));
    }
    for (; i < count; ++i) {
      f32x16 sixteen[16] = {products(keys + seen[i] * width)};
      to[i] = sums_of(sixteen)[0];
    }
  }

  void mix(const T* values, const int32_t* seen, int64_t count, const float* weights) {
    for (int64_t i = 0; i < count; ++i) {
      const Lanes<T, kVectors> lanes(values + seen[i] * width);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) mixed[v] += lanes.of[v] * weights[i];
    }
  }

  void finish(float scale) const {
    for (int v = 0; v < kVectors; ++v)
      for (int lane = 0; lane < 16; ++lane) to[placed<T, kVectors>(v, lane)] = mixed[v][lane] * scale;
  }
};

template <class T>
struct Head<T, 0> {
  int64_t width;
  const float* query;
  float* to;

  Head(int64_t width, const float* from, float* to) : width(width), query(from), to(to) {
    std::fill(to, to + width, 0.0f);
  }

  void scores(const T* keys, const int32_t* seen, int64_t count, float* to) const {
    for (int64_t i = 0; i < count; ++i) {
      to[i] = 0;
      for (int64_t j = 0; j < width; ++j) to[i] += query[j] * widen(keys[seen[i] * width + j]);
    }
  }

  void mix(const T* values, const int32_t* seen, int64_t count, const float* weights) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < width; ++j) to[j] += weights[i] * widen(values[seen[i] * width + j]);
  }

  void finish(float scale) const {
    for (int64_t i = 0; i < width; ++i) to[i] *= scale;
  }
};

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

void rms_norm(float* x, int64_t width, const float* gain) {
  float squares = 0;
  for (int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  const float scale = 1 / std::sqrt(squares / width + 1.1920929e-7f);
  for (int64_t i = 0; i < width; ++i) x[i] *= scale * gain[i];
}

struct Shape {
  int64_t captions, candidates, heads, head_width, prefix_len, suffix_len;
};

template <class T, int kVectors>
void attend(const Shape& shape, const Layer& layer, const LayerCache& cache, int64_t task,
            float* qkv, int64_t qkv_stride, float* mixed, int64_t mixed_stride, float* scores) {
  const int64_t f = shape.head_width, d = shape.heads * f;
  const int64_t candidate = task % shape.candidates, group = task / shape.candidates;
  const int64_t head = group % shape.heads, caption = group / shape.heads;
  const int64_t row = caption * shape.candidates + candidate;
  float* query = qkv + row * qkv_stride + head * f;
  float* key = query + d;
  float* value = key + d;
  if (layer.query_gain) {
    rms_norm(query, f, layer.query_gain);
    rms_norm(key, f, layer.key_gain);
  }
  const float scale = 1 / std::sqrt(float(f));
  for (int64_t i = 0; i < f; ++i) query[i] *= scale;

  const T* prefix_keys = static_cast<const T*>(cache.prefix_keys) + group * shape.prefix_len * f;
  const T* prefix_values = static_cast<const T*>(cache.prefix_values) + group * shape.prefix_len * f;
  T* keys = static_cast<T*>(cache.suffix_keys) + task * shape.suffix_len * f;
  T* values = static_cast<T*>(cache.suffix_values) + task * shape.suffix_len * f;
  const int64_t newest = cache.seen_suffix[cache.seen_suffix_count - 1];
  for (int64_t i = 0; i < f; ++i) {
    narrow(key[i], keys + newest * f + i);
    narrow(value[i], values + newest * f + i);
  }

  const int64_t before = cache.seen_prefix_count, drawn = cache.seen_suffix_count;
  Head<T, kVectors> one(f, query, mixed + row * mixed_stride + head * f);
  one.scores(prefix_keys, cache.seen_prefix, before, scores);
  one.scores(keys, cache.seen_suffix, drawn, scores + before);
  const float total = exponentials(scores, before + drawn);
  one.mix(prefix_values, cache.seen_prefix, before, scores);
  one.mix(values, cache.seen_suffix, drawn, scores + before);
  one.finish(1 / total);
}

template <class T>
decltype(&attend<T, 0>) attention_for(int64_t head_width) {
  switch (head_width) {
    case 16: return attend<T, 1>;
    case 32: return attend<T, 2>;
    case 48: return attend<T, 3>;
    case 64: return attend<T, 4>;
    case 96: return attend<T, 6>;
    case 128: return attend<T, 8>;
    default: return attend<T, 0>;
  }
}

// -------------------------------------------------------------------------------------- the step

// Where a step keeps what it is working on, in one block of memory.
struct Workspace {
  float *x, *qkv, *mixed, *hidden, *scales, *own;
  uint32_t* groups;
  int64_t width, qkv_width, hidden_width, group_count, own_count;

  // Floats that a step needs; with a block given, its parts.
  static int64_t lay_out(const Model& model, int64_t batch, int64_t slots, int64_t threads,
                         float* block, Workspace* out) {
    const Layer& layer = model.layer[0];
    Workspace w{};
    w.width = layer.out.panels * kPanel;
    w.qkv_width = layer.qkv.panels * kPanel;
    w.hidden_width = layer.mlp_in.panels * kPanel;
    w.group_count = std::max(layer.qkv.groups, layer.mlp_out.groups);
    w.own_count = std::max((slots + 31) / 16 * 16, w.width);
    const int64_t rows = (batch + 31) / 32 * 32;  // whole tiles are read
    int64_t used = 0;
    const auto part = [&](int64_t count) {
      float* at = block ? block + used : nullptr;
      used += (count + 15) / 16 * 16;
      return at;
    };
    w.x = part(batch * w.width);
    w.qkv = part(batch * w.qkv_width);
    w.mixed = part(batch * w.width);
    w.hidden = part(batch * w.hidden_width);
    w.scales = part(rows);
    w.groups = reinterpret_cast<uint32_t*>(part(rows * w.group_count));
    w.own = part(threads * w.own_count);
    if (out) *out = w;
    return used;
  }
};

template <class F>
void run(const Model& model, const Step& step) {
  const int64_t batch = step.captions * step.candidates;
  const Shape shape{step.captions, step.candidates, model.heads, model.width / model.heads,
                    step.prefix_len, step.suffix_len};
  Workspace w;
  Workspace::lay_out(model, batch, step.prefix_len + step.suffix_len, step.threads, step.scratch,
                     &w);
  const auto attention = attention_for<typename F::Stored>(shape.head_width);

  Barrier barrier;
  in_parallel(step.threads, [&](int64_t thread, int64_t threads) {
    float* own = w.own + thread * w.own_count;
    const Share mine(batch, thread, threads);
    const Share tasks(batch * shape.heads, thread, threads);
    const auto share = [&](const Linear& linear) {
      return Share(linear.panels / kPair, thread, threads);
    };
    const auto inputs = [&](const Linear& linear) { return Rows{w.groups, w.scales, linear.groups}; };
    const auto normed = [&](const Norm& norm, const Linear& next) {
      for (int64_t row = mine.begin; row < mine.end; ++row) {
        layer_norm(w.x + row * w.width, model.width, norm, own);
        pack_row(F{}, own, model.width, inputs(next), row);
      }
      barrier.wait(int(threads));
    };
    const auto packed = [&](const float* from, int64_t width, int64_t stride, const Linear& next) {
      for (int64_t row = mine.begin; row < mine.end; ++row)
        pack_row(F{}, from + row * stride, width, inputs(next), row);
      barrier.wait(int(threads));
    };
#if defined(DALLE_TILES)
    configure_tiles(batch);
#endif
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const float* token = model.image_embedding + step.tokens[row] * model.width;
      const float* place = model.row_position + step.position / model.grid_w * model.width;
      const float* column = model.column_position + step.position % model.grid_w * model.width;
      for (int64_t i = 0; i < model.width; ++i)
        w.x[row * w.width + i] = token[i] + (place[i] + column[i]);
    }
    for (int64_t number = 0; number < model.layers; ++number) {
      const Layer& layer = model.layer[number];
      normed(layer.attention_norm, layer.qkv);
      multiply<F, Then::kStore>(layer.qkv, inputs(layer.qkv), batch, w.qkv, w.qkv_width,
                                share(layer.qkv));
      barrier.wait(int(threads));
      for (int64_t task = tasks.begin; task < tasks.end; ++task)
        attention(shape, layer, step.cache[number], task, w.qkv, w.qkv_width, w.mixed, w.width, own);
      barrier.wait(int(threads));
      packed(w.mixed, model.width, w.width, layer.out);
      multiply<F, Then::kAdd>(layer.out, inputs(layer.out), batch, w.x, w.width, share(layer.out));
      barrier.wait(int(threads));
      normed(layer.mlp_norm, layer.mlp_in);
      multiply<F, Then::kGelu>(layer.mlp_in, inputs(layer.mlp_in), batch, w.hidden, w.hidden_width,
                               share(layer.mlp_in));
      barrier.wait(int(threads));
      packed(w.hidden, model.hidden, w.hidden_width, layer.mlp_out);
      multiply<F, Then::kAdd>(layer.mlp_out, inputs(layer.mlp_out), batch, w.x, w.width,
                              share(layer.mlp_out));
      barrier.wait(int(threads));
    }
    normed(model.final_norm, model.head);
    multiply<F, Then::kStore>(model.head, inputs(model.head), batch, step.logits,
                              model.head.panels * kPanel, share(model.head));
#if defined(DALLE_TILES)
    _tile_release();
#endif
  });
}

// ----------------------------------------------------------------------------- the next tokens

// The smallest key at which `enough` holds; it holds for the largest and never ceases to.
template <class Enough>
int32_t first_key(const Enough& enough) {
  int32_t low = 0, high = 0x7f800000;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (enough(middle))
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// One row's choice. Distances below the best score, in float bits, are keys in order of
// likelihood; a filter is found by halving the range of keys, without sorting.
struct RowChoice {
  const Choice& c;
  float* distance;  // v: (best - score) / temperature; infinite for what a filter dropped
  float* weight;    // v: exp(-distance)

  int32_t key(int64_t i) const {
    int32_t bits;
    std::memcpy(&bits, distance + i, 4);
    return bits;
  }

  void keep_top_k() {
    if (c.top_k >= c.vocab) return;
    const int32_t last = first_key([&](int32_t limit) {
      int32_t count = 0;
      for (int64_t i = 0; i < c.vocab; ++i) count += key(i) <= limit;
      return count >= c.top_k;
    });
    int64_t better = 0;
    for (int64_t i = 0; i < c.vocab; ++i) better += key(i) < last;
    for (int64_t i = 0, ties = 0; i < c.vocab; ++i)
      if (key(i) > last || (key(i) == last && ++ties > c.top_k - better)) distance[i] = INFINITY;
  }

  void keep_nucleus() {
    const int64_t padded = (c.vocab + 15) / 16 * 16;
    for (int64_t i = c.vocab; i < padded; ++i) distance[i] = INFINITY;
    for (int64_t i = 0; i < padded; i += 16) {
      const f32x16 d = load<f32x16>(distance + i);
      store(weight + i, d > 87.0f ? f32x16{} : exp_negative(-d));
    }
    const auto mass = [&](int32_t limit) {
      float held = 0;
#pragma omp simd reduction(+ : held)
      for (int64_t i = 0; i < c.vocab; ++i) held += key(i) <= limit ? weight[i] : 0.0f;
      return held;
    };
    const float total = mass(0x7f800000);
    const int32_t last = first_key([&](int32_t limit) {
      return limit == 0x7f800000 || mass(limit) >= c.top_p * total;
    });
    float held = last > 0 ? mass(last - 1) : 0;
    for (int64_t i = 0; i < c.vocab; ++i) {
      if (key(i) < last) continue;
      if (key(i) == last && held < c.top_p * total) {
        held += weight[i];
        continue;
      }
      distance[i] = INFINITY;
    }
  }

  int64_t choose(const float* conditional, const float* null, const float* noise) {
    float best = -INFINITY;
    for (int64_t i = 0; i < c.vocab; ++i) {
      const float score = null ? null[i] + c.guidance_scale * (conditional[i] - null[i])
                               : conditional[i];
      distance[i] = score;
      best = std::max(best, score);
    }
    if (c.temperature == 0) return std::max_element(distance, distance + c.vocab) - distance;
    for (int64_t i = 0; i < c.vocab; ++i) distance[i] = (best - distance[i]) / c.temperature;
    if (c.top_k) keep_top_k();
    if (c.top_p < 1) keep_nucleus();
    int64_t token = 0;
    for (int64_t i = 1; i < c.vocab; ++i)
      if (noise[i] - distance[i] > noise[token] - distance[token]) token = i;
    return token;
  }
};

float log_probability(const float* logits, int64_t vocab, int64_t token, float* scratch) {
  std::memcpy(scratch, logits, vocab * 4);
  const float best = *std::max_element(logits, logits + vocab);
  return logits[token] - best - std::log(exponentials(scratch, vocab));
}

}  // namespace

// --------------------------------------------------------------------------------- what is called

extern "C" {

// Changes when a structure or the layout of weights does.
int64_t dalle_version() { return 1; }

// What was compiled in, and whether the system lets this process use it: 2 tiles, 1 wide vectors
// with the products of bf16 and int8, 0 neither.
int64_t dalle_level() {
#if defined(DALLE_TILES)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0 ? 2 : -1;
#elif defined(__AVX512BF16__) && defined(__AVX512VNNI__)
  return 1;
#else
  return 0;
#endif
}

int64_t dalle_scratch_floats(const Model* model, int64_t batch, int64_t slots, int64_t threads) {
  return Workspace::lay_out(*model, batch, slots, threads, nullptr, nullptr);
}

void dalle_step(const Model* model, const Step* step) {
  switch (model->format) {
    case 4: return run<Fp32>(*model, *step);
    case 2: return run<Bf16>(*model, *step);
    default: return run<Int8>(*model, *step);
  }
}

void dalle_choose(const Choice* choice) {
  const Choice& c = *choice;
  const int64_t room = (c.vocab + 31) / 16 * 16;
  in_parallel(c.threads, [&](int64_t thread, int64_t threads) {
    float* scratch = c.scratch + thread * 2 * room;
    const Share rows(c.captions * c.candidates, thread, threads);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const float* conditional = c.conditional + row * c.stride;
      const float* null = c.null ? c.null + row * c.stride : nullptr;
      const float* noise = c.noise + row % c.candidates * c.noise_stride;
      RowChoice chosen{c, scratch, scratch + room};
      c.tokens[row] = chosen.choose(conditional, null, noise);
      c.log_probability[row] = log_probability(conditional, c.vocab, c.tokens[row], scratch);
    }
  });
}
}
