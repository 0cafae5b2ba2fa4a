// What dalle/native/decoder.py fills and the step reads; dalle/native/structures.py is its mirror.
#pragma once

#include <cstdint>

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

// One layer's keys and values of a prefix, and which of its slots each slot sees.
struct LayerPrefix {
  void* keys;  // c a p f, as in LayerCache
  void* values;
  const int32_t* seen;        // slots that slot 0 sees, then those of slot 1, ...
  const int32_t* seen_begin;  // where they begin for each slot; one more says where they end
};

struct Prefill {
  int64_t captions, prefix_len;
  const float* embedded;  // c p d
  const LayerPrefix* layer;
  float* scratch;
  float* logits;  // c, padded vocabulary: what follows the prefix
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
