// How threads share out a step, and wait for each other.
#pragma once

#include <atomic>
#include <climits>
#include <cstdint>
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

}  // namespace
