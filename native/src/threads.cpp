#include "threads.h"

#include "cpu.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(_M_ARM64)
#include <intrin.h>
#endif

namespace lucid {
namespace {

// About 20 to 50 microseconds: longer than the threads of one layer wait for each other, shorter
// than anyone would notice on a machine that has other work.
constexpr int kSpins = 1000;

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#elif defined(_M_ARM64)
  __isb(_ARM64_BARRIER_SY);
#endif
}

}  // namespace

// With more threads than processors the one that is waited for may need this one's processor.
ThreadPool::ThreadPool(int size) : size_(size), spins_(size <= available_cpus() ? kSpins : 0) {
  try {
    for (int thread = 1; thread < size; ++thread) {
      workers_.emplace_back(&ThreadPool::work, this, thread);
    }
  } catch (...) {
    stopping_ = true;
    announce(jobs_);
    for (std::thread& worker : workers_) worker.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  announce(jobs_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(Job job, void* context) {
  job_ = job;
  context_ = context;
  announce(jobs_);
  job(context, 0);
  barrier();
}

void ThreadPool::barrier() {
  const std::uint32_t before = barriers_.load();
  if (arrived_.fetch_add(1) + 1 < size_) {
    wait_for_change(barriers_, before);
    return;
  }
  arrived_.store(0);
  announce(barriers_);
}

void ThreadPool::work(int thread) {
  std::uint32_t seen = 0;
  while (true) {
    wait_for_change(jobs_, seen);
    ++seen;
    if (stopping_) return;
    job_(context_, thread);
    barrier();
  }
}

void ThreadPool::wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t before) {
  for (int k = 0; k < spins_; ++k) {
    if (value.load(std::memory_order_acquire) != before) return;
    pause();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  // Whoever changes the value does so before it looks for sleepers; this thread looks at the value
  // after it has become one. So one of the two sees the other.
  sleepers_.fetch_add(1);
  wake_.wait(lock, [&] { return value.load() != before; });
  sleepers_.fetch_sub(1);
}

void ThreadPool::announce(std::atomic<std::uint32_t>& value) {
  value.fetch_add(1);
  if (sleepers_.load() == 0) return;
  // A sleeper holds the mutex until it really sleeps, so the call can't come too early.
  { const std::lock_guard<std::mutex> lock(mutex_); }
  wake_.notify_all();
}

}  // namespace lucid
