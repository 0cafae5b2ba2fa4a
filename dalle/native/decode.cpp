// One decode step of the joint transformer, and the choice of the next tokens, on a CPU.
//
// dalle/native/build.py compiles this file, with the headers beside it, for the processor at hand;
// dalle/native/decoder.py fills structures.h. A whole step is one call and one parallel region, so
// that a model of any size pays for its arithmetic and its memory traffic, and not for hundreds of
// small calls.
//
// Every row of a batch is computed by the same operations in the same order whatever stands beside
// it and however many threads there are: a picture is the same bits in every batch.
//
// Axis letters: b rows of the batch (c captions x g candidates), d width, a heads, f head width,
// p prefix slots, s suffix slots, k image vocabulary.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <sys/syscall.h>
#include <unistd.h>

#include "attention.h"
#include "choice.h"
#include "products.h"
#include "structures.h"
#include "threads.h"
#include "vectors.h"

namespace {

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

// Where a step keeps what it is working on, in one block of memory.
struct Workspace {
  float *x, *qkv, *mixed, *hidden, *scales, *own;
  uint32_t* words;
  int64_t width, qkv_width, hidden_width, word_count, own_count;

  // Floats that a step needs; with a block given, its parts.
  static int64_t lay_out(const Model& model, int64_t batch, int64_t slots, int64_t threads,
                         float* block, Workspace* out) {
    const Layer& layer = model.layer[0];
    Workspace w{};
    w.width = layer.out.panels * kPanel;
    w.qkv_width = layer.qkv.panels * kPanel;
    w.hidden_width = layer.mlp_in.panels * kPanel;
    w.word_count = std::max(layer.qkv.groups, layer.mlp_out.groups) * kMostInputWords;
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
    w.words = reinterpret_cast<uint32_t*>(part(rows * w.word_count));
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
    const auto inputs = [&](const Linear& linear) {
      return Rows{w.words, w.scales, linear.groups * int64_t(sizeof(typename F::Input)) / 4};
    };
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

}  // namespace

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
