// The next token of a row: guidance, temperature, filters and noise.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "structures.h"
#include "vectors.h"

namespace {

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
    const int64_t padded = (c.vocab + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = c.vocab; i < padded; ++i) distance[i] = INFINITY;
    for (int64_t i = 0; i < padded; i += kLanes) {
      const f32v d = load<f32v>(distance + i);
      store(weight + i, d > 87.0f ? f32v{} : exp_negative(-d));
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
