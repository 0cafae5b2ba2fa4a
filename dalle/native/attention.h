// One query's attention to the slots that it sees: one task of one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "structures.h"
#include "vectors.h"

namespace {

inline float widen(float value) { return value; }
inline float widen(uint16_t value) { return from_bf16(value); }
inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, uint16_t* to) { *to = to_bf16(value); }

// A head's numbers of one slot in kVectors registers. bf16 is widened without moving lanes about:
// of two registers' numbers the even ones fill the first and the odd ones the second.
template <class T, int kVectors>
struct Lanes {
  static constexpr bool kSplit = sizeof(T) == 2 && kVectors % 2 == 0;
  f32v of[kVectors];

  explicit Lanes(const T* from) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kSplit) {
        const u32v both = load<u32v>(from + v / 2 * 2 * kLanes);
        of[v] = (f32v)(v % 2 ? both & 0xffff0000u : both << 16);
      } else if constexpr (sizeof(T) == 2) {
        of[v] = (f32v)(__builtin_convertvector(load<u16v>(from + v * kLanes), u32v) << 16);
      } else {
        of[v] = load<f32v>(from + v * kLanes);
      }
    }
  }
};

// Which number of a head stands in a lane of a register.
template <class T, int kVectors>
inline int placed(int vector, int lane) {
  return Lanes<T, kVectors>::kSplit ? vector / 2 * 2 * kLanes + 2 * lane + vector % 2
                                      : vector * kLanes + lane;
}

// Where a lane comes from when the pairs of two registers are brought together; below kLanes, from
// the first.
constexpr int paired(int lane, int step) { return lane & step ? kLanes + lane - step : lane; }

// Lanes of `a` and of `b` that stand `kStep` apart, added up, side by side.
template <int kStep, int... kLane>
inline f32v folded(f32v a, f32v b, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, paired(kLane, kStep)...) +
         __builtin_shufflevector(a, b, (paired(kLane, kStep) + kStep)...);
#else
  return __builtin_shuffle(a, b, i32v{paired(kLane, kStep)...}) +
         __builtin_shuffle(a, b, i32v{(paired(kLane, kStep) + kStep)...});
#endif
}

// Sums of as many registers as each has lanes, in their order.
template <int kStep = 1>
inline f32v sums_of(f32v (&v)[kLanes]) {
  if constexpr (kStep == kLanes) {
    return v[0];
  } else {
#pragma GCC unroll 8
    for (int pair = 0; pair < kLanes / 2 / kStep; ++pair)
      v[pair] = folded<kStep>(v[2 * pair], v[2 * pair + 1], std::make_integer_sequence<int, kLanes>());
    return sums_of<2 * kStep>(v);
  }
}

// Slots that the next task will read, fetched one by one while this task computes.
template <class T>
struct Ahead {
  const T* from;
  const int32_t* seen;
  const int32_t* end;

  template <int kWidth>
  void fetch_next() {
    if (seen != end) fetch<kWidth>(from + *seen++ * kWidth);
  }
};

// Attention of one query over the slots it sees, into `to`. kVectors is f / kLanes, or 0 for any f.
template <class T, int kVectors>
struct Head {
  static constexpr int kWidth = kVectors * kLanes;
  float* to;
  f32v query[kVectors], mixed[kVectors];

  Head(int64_t, const float* from, float* to) : to(to) {
    for (int v = 0; v < kVectors; ++v)
      for (int lane = 0; lane < kLanes; ++lane) query[v][lane] = from[placed<T, kVectors>(v, lane)];
    for (int v = 0; v < kVectors; ++v) mixed[v] = f32v{};
  }

  f32v products(const T* key) const {
    const Lanes<T, kVectors> lanes(key);
    f32v total = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) total += query[v] * lanes.of[v];
    return total;
  }

  void scores(const T* keys, const int32_t* seen, int64_t count, float* to, Ahead<T>& ahead) const {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      f32v each[kLanes];
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) {
        ahead.template fetch_next<kWidth>();
        each[j] = products(keys + seen[i + j] * kWidth);
      }
      store(to + i, sums_of(each));
    }
    for (; i < count; ++i) {
      f32v each[kLanes] = {products(keys + seen[i] * kWidth)};
      to[i] = sums_of(each)[0];
    }
  }

  void mix(const T* values, const int32_t* seen, int64_t count, const float* weights,
           Ahead<T>& ahead) {
    for (int64_t i = 0; i < count; ++i) {
      ahead.template fetch_next<kWidth>();
      const Lanes<T, kVectors> lanes(values + seen[i] * kWidth);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) mixed[v] += lanes.of[v] * weights[i];
    }
  }

  void finish(float scale) const {
    for (int v = 0; v < kVectors; ++v)
      for (int lane = 0; lane < kLanes; ++lane) to[placed<T, kVectors>(v, lane)] = mixed[v][lane] * scale;
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

  void scores(const T* keys, const int32_t* seen, int64_t count, float* to, Ahead<T>&) const {
    for (int64_t i = 0; i < count; ++i) {
      to[i] = 0;
      for (int64_t j = 0; j < width; ++j) to[i] += query[j] * widen(keys[seen[i] * width + j]);
    }
  }

  void mix(const T* values, const int32_t* seen, int64_t count, const float* weights,
           Ahead<T>&) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < width; ++j) to[j] += weights[i] * widen(values[seen[i] * width + j]);
  }

  void finish(float scale) const {
    for (int64_t i = 0; i < width; ++i) to[i] *= scale;
  }
};

void rms_norm(float* x, int64_t width, const float* gain) {
  float squares = 0;
  for (int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
  const float scale = 1 / std::sqrt(squares / width + 1.1920929e-7f);
  for (int64_t i = 0; i < width; ++i) x[i] *= scale * gain[i];
}

struct Shape {
  int64_t captions, candidates, heads, head_width, prefix_len, suffix_len;
};

// Makes a head's query and key ready, in their place, and puts key and value into the cache.
template <class T>
void place(const Layer& layer, int64_t f, float* query, int64_t d, T* keys, T* values) {
  float* key = query + d;
  const float* value = key + d;
  if (layer.query_gain) {
    rms_norm(query, f, layer.query_gain);
    rms_norm(key, f, layer.key_gain);
  }
  const float scale = 1 / std::sqrt(float(f));
  for (int64_t i = 0; i < f; ++i) query[i] *= scale;
  for (int64_t i = 0; i < f; ++i) {
    narrow(key[i], keys + i);
    narrow(value[i], values + i);
  }
}

// The newest token of one candidate: one head's task.
template <class T, int kVectors>
void attend(const Shape& shape, const Layer& layer, const LayerCache& cache, int64_t task,
            float* qkv, int64_t qkv_stride, float* mixed, int64_t mixed_stride, float* scores) {
  const int64_t f = shape.head_width;
  const int64_t candidate = task % shape.candidates, group = task / shape.candidates;
  const int64_t head = group % shape.heads, caption = group / shape.heads;
  const int64_t row = caption * shape.candidates + candidate;
  float* query = qkv + row * qkv_stride + head * f;

  const T* prefix_keys = static_cast<const T*>(cache.prefix_keys) + group * shape.prefix_len * f;
  const T* prefix_values = static_cast<const T*>(cache.prefix_values) + group * shape.prefix_len * f;
  T* keys = static_cast<T*>(cache.suffix_keys) + task * shape.suffix_len * f;
  T* values = static_cast<T*>(cache.suffix_values) + task * shape.suffix_len * f;
  const int64_t newest = cache.seen_suffix[cache.seen_suffix_count - 1];
  place(layer, f, query, shape.heads * f, keys + newest * f, values + newest * f);

  const int64_t before = cache.seen_prefix_count, drawn = cache.seen_suffix_count;
  Head<T, kVectors> one(f, query, mixed + row * mixed_stride + head * f);
  // The next task's slots lie behind this task's. Behind the last task's is none of the cache, but
  // what cannot be fetched is not.
  const T* keys_after = keys + shape.suffix_len * f;
  const T* values_after = values + shape.suffix_len * f;
  fetch<kVectors * kLanes, true>(keys_after + newest * f);
  fetch<kVectors * kLanes, true>(values_after + newest * f);
  Ahead<T> next_keys{keys_after, cache.seen_suffix, cache.seen_suffix + drawn};
  Ahead<T> next_values{values_after, cache.seen_suffix, cache.seen_suffix + drawn};
  one.scores(prefix_keys, cache.seen_prefix, before, scores, next_keys);
  one.scores(keys, cache.seen_suffix, drawn, scores + before, next_keys);
  const float total = exponentials(scores, before + drawn);
  one.mix(prefix_values, cache.seen_prefix, before, scores, next_values);
  one.mix(values, cache.seen_suffix, drawn, scores + before, next_values);
  one.finish(1 / total);
}

// Keys and values of one head in a prefix.
template <class T>
struct PrefixHead {
  T *keys, *values;
  PrefixHead(const Shape& shape, const LayerPrefix& prefix, int64_t caption, int64_t head) {
    const int64_t begin = (caption * shape.heads + head) * shape.prefix_len * shape.head_width;
    keys = static_cast<T*>(prefix.keys) + begin;
    values = static_cast<T*>(prefix.values) + begin;
  }
};

// One slot of a prefix, whose keys and values are all in their places: one head's task.
template <class T, int kVectors>
void attend_prefix(const Shape& shape, const LayerPrefix& prefix, int64_t task, const float* qkv,
                   int64_t qkv_stride, float* mixed, int64_t mixed_stride, float* scores) {
  const int64_t f = shape.head_width;
  const int64_t head = task % shape.heads, row = task / shape.heads;
  const int64_t slot = row % shape.prefix_len, caption = row / shape.prefix_len;
  const PrefixHead<T> all(shape, prefix, caption, head);
  const int32_t* seen = prefix.seen + prefix.seen_begin[slot];
  const int64_t count = prefix.seen_begin[slot + 1] - prefix.seen_begin[slot];
  Head<T, kVectors> one(f, qkv + row * qkv_stride + head * f,
                        mixed + row * mixed_stride + head * f);
  Ahead<T> nothing{nullptr, nullptr, nullptr};  // a prefix fits a cache
  one.scores(all.keys, seen, count, scores, nothing);
  const float total = exponentials(scores, count);
  one.mix(all.values, seen, count, scores, nothing);
  one.finish(1 / total);
}

// The two above for one width of heads.
template <class T>
struct Attention {
  decltype(&attend<T, 0>) newest;
  decltype(&attend_prefix<T, 0>) prefix;
};

template <class T, int kVectors>
constexpr Attention<T> kAttention{attend<T, kVectors>, attend_prefix<T, kVectors>};

template <class T>
Attention<T> attention_for(int64_t head_width) {
  switch (head_width) {
    case 16: return kAttention<T, 16 / kLanes>;
    case 32: return kAttention<T, 32 / kLanes>;
    case 48: return kAttention<T, 48 / kLanes>;
    case 64: return kAttention<T, 64 / kLanes>;
    case 96: return kAttention<T, 96 / kLanes>;
    case 128: return kAttention<T, 128 / kLanes>;
    default: return kAttention<T, 0>;
  }
}

}  // namespace
