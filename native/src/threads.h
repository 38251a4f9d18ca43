// A few threads that run one job at a time together, and wait without spinning in between.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace lucid {

class ThreadPool {
 public:
  // What every thread runs, each with its own number, 0 to size() - 1.
  using Job = void (*)(void* context, int thread);

  // The caller of run() is one of the threads, so one less is started.
  explicit ThreadPool(int size);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Runs the job on all threads and returns when all are done. One caller at a time.
  void run(Job job, void* context);

  // Inside a job: waits until all threads have come here.
  void barrier();

 private:
  void work(int thread);
  void wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t before);
  void announce(std::atomic<std::uint32_t>& value);

  const int size_;
  const int spins_;
  Job job_ = nullptr;
  void* context_ = nullptr;
  bool stopping_ = false;
  // Each on a cache line of its own, since all threads look at them all the time.
  alignas(64) std::atomic<std::uint32_t> jobs_{0};
  alignas(64) std::atomic<std::uint32_t> barriers_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace lucid
