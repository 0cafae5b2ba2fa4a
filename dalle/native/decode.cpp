// The joint transformer on a CPU: captions read, one decode step, the choice of the next tokens.
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

// What a thread does of the passage of some rows through a model.
template <class F>
struct Passage {
  const Model& model;
  const Workspace& w;
  int64_t batch;  // rows
  Barrier& barrier;
  int64_t thread, threads;
  float* own;
  Share mine;  // rows that the thread prepares

  Passage(const Model& model, const Workspace& w, int64_t batch, Barrier& barrier, int64_t thread,
          int64_t threads)
      : model(model), w(w), batch(batch), barrier(barrier), thread(thread), threads(threads),
        own(w.own + thread * w.own_count), mine(batch, thread, threads) {}

  void wait() const { barrier.wait(int(threads)); }

  Rows inputs(const Linear& linear) const {
    return Rows{w.words, w.scales, linear.groups * int64_t(sizeof(typename F::Input)) / 4};
  }

  // Row `row` of the states, normalised, as input number `input` of the next product.
  void norm_row(const Norm& norm, const Linear& next, int64_t row, int64_t input) const {
    layer_norm(w.x + row * w.width, model.width, norm, own);
    pack_row(F{}, own, model.width, inputs(next), input);
  }

  void normed(const Norm& norm, const Linear& next) const {
    for (int64_t row = mine.begin; row < mine.end; ++row) norm_row(norm, next, row, row);
    wait();
  }

  void packed(const float* from, int64_t width, int64_t stride, const Linear& next) const {
    for (int64_t row = mine.begin; row < mine.end; ++row)
      pack_row(F{}, from + row * stride, width, inputs(next), row);
    wait();
  }

  template <Then then>
  void product(const Linear& linear, int64_t rows, float* to, int64_t stride) const {
    multiply<F, then>(linear, inputs(linear), rows, to, stride,
                      Share(linear.panels / kPair, thread, threads));
  }

  // All layers; `attend(number)` fills `w.mixed` from `w.qkv`, as far as the thread has a share.
  template <class Attend>
  void layers(Attend attend) const {
    for (int64_t number = 0; number < model.layers; ++number) {
      const Layer& layer = model.layer[number];
      normed(layer.attention_norm, layer.qkv);
      product<Then::kStore>(layer.qkv, batch, w.qkv, w.qkv_width);
      wait();
      attend(number);
      wait();
      packed(w.mixed, model.width, w.width, layer.out);
      product<Then::kAdd>(layer.out, batch, w.x, w.width);
      wait();
      normed(layer.mlp_norm, layer.mlp_in);
      product<Then::kGelu>(layer.mlp_in, batch, w.hidden, w.hidden_width);
      wait();
      packed(w.hidden, model.hidden, w.hidden_width, layer.mlp_out);
      product<Then::kAdd>(layer.mlp_out, batch, w.x, w.width);
      wait();
    }
  }
};

// `work(passage)` in each of up to so many threads, with what tiles need around it.
template <class F, class Work>
void pass(const Model& model, int64_t batch, int64_t slots, int64_t threads, float* scratch,
          Work work) {
  Workspace w;
  Workspace::lay_out(model, batch, slots, threads, scratch, &w);
  Barrier barrier;
  in_parallel(threads, [&](int64_t thread, int64_t together) {
#if defined(DALLE_TILES)
    configure_tiles(batch);
#endif
    work(Passage<F>(model, w, batch, barrier, thread, together));
#if defined(DALLE_TILES)
    _tile_release();
#endif
  });
}

template <class F>
void run_step(const Model& model, const Step& step) {
  using T = typename F::Stored;
  const Shape shape{step.captions, step.candidates, model.heads, model.width / model.heads,
                    step.prefix_len, step.suffix_len};
  const auto attention = attention_for<T>(shape.head_width).newest;
  const int64_t batch = step.captions * step.candidates, slots = step.prefix_len + step.suffix_len;
  pass<F>(model, batch, slots, step.threads, step.scratch, [&](const Passage<F>& passage) {
    const Workspace& w = passage.w;
    for (int64_t row = passage.mine.begin; row < passage.mine.end; ++row) {
      const float* token = model.image_embedding + step.tokens[row] * model.width;
      const float* place = model.row_position + step.position / model.grid_w * model.width;
      const float* column = model.column_position + step.position % model.grid_w * model.width;
      for (int64_t i = 0; i < model.width; ++i)
        w.x[row * w.width + i] = token[i] + (place[i] + column[i]);
    }
    const Share tasks(batch * shape.heads, passage.thread, passage.threads);
    passage.layers([&](int64_t number) {
      for (int64_t task = tasks.begin; task < tasks.end; ++task)
        attention(shape, model.layer[number], step.cache[number], task, w.qkv, w.qkv_width, w.mixed,
                  w.width, passage.own);
    });
    passage.normed(model.final_norm, model.head);
    passage.template product<Then::kStore>(model.head, batch, step.logits,
                                           model.head.panels * kPanel);
  });
}

template <class F>
void run_prefill(const Model& model, const Prefill& prefill) {
  using T = typename F::Stored;
  const Shape shape{prefill.captions, 1, model.heads, model.width / model.heads,
                    prefill.prefix_len, 0};
  const int64_t f = shape.head_width, p = prefill.prefix_len;
  const auto attention = attention_for<T>(f).prefix;
  const int64_t batch = prefill.captions * p;
  pass<F>(model, batch, p, prefill.threads, prefill.scratch, [&](const Passage<F>& passage) {
    const Workspace& w = passage.w;
    for (int64_t row = passage.mine.begin; row < passage.mine.end; ++row)
      std::copy_n(prefill.embedded + row * model.width, model.width, w.x + row * w.width);
    const Share tasks(batch * shape.heads, passage.thread, passage.threads);
    passage.layers([&](int64_t number) {
      const LayerPrefix& prefix = prefill.layer[number];
      for (int64_t task = tasks.begin; task < tasks.end; ++task) {
        const int64_t head = task % shape.heads, row = task / shape.heads;
        const PrefixHead<T> all(shape, prefix, row / p, head);
        place(model.layer[number], f, w.qkv + row * w.qkv_width + head * f, model.width,
              all.keys + row % p * f, all.values + row % p * f);
      }
      passage.wait();  // a slot looks at those before it, whoever placed them
      for (int64_t task = tasks.begin; task < tasks.end; ++task)
        attention(shape, prefix, task, w.qkv, w.qkv_width, w.mixed, w.width, passage.own);
    });
    // Of each caption the last slot alone says what follows.
    const Share captions(prefill.captions, passage.thread, passage.threads);
    for (int64_t caption = captions.begin; caption < captions.end; ++caption)
      passage.norm_row(model.final_norm, model.head, caption * p + p - 1, caption);
    passage.wait();
    passage.template product<Then::kStore>(model.head, prefill.captions, prefill.logits,
                                           model.head.panels * kPanel);
  });
}

}  // namespace

extern "C" {

// Changes when a structure or the layout of weights does.
int64_t dalle_version() { return 2; }

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
    case 4: return run_step<Fp32>(*model, *step);
    case 2: return run_step<Bf16>(*model, *step);
    default: return run_step<Int8>(*model, *step);
  }
}

void dalle_prefill(const Model* model, const Prefill* prefill) {
  switch (model->format) {
    case 4: return run_prefill<Fp32>(*model, *prefill);
    case 2: return run_prefill<Bf16>(*model, *prefill);
    default: return run_prefill<Int8>(*model, *prefill);
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
