// A network, ready to run: packed weights, plans by image size, memory and threads.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "network.h"
#include "plan.h"
#include "threads.h"

namespace lucid {

struct Options {
  std::string precision;  // empty: as the file is stored
  std::string isa;        // empty: LUCID_ISA, or the best that runs here
  int threads = 1;        // 0: one for each processor that this process may use
};

// What one step took on one image.
struct StepProfile {
  std::vector<const Layer*> layers;  // two where a set runs a pair in one go
  std::int64_t multiply_adds;
  std::size_t weight_bytes;      // as packed
  std::size_t activation_bytes;  // read and written
  double seconds;                // the median of the repetitions
};

// Any number of threads may call run() and profile() of one engine at once. The first call uses the
// engine's threads; one that comes while they are busy runs on the thread that it came on.
class Engine {
 public:
  // Throws Error and std::bad_alloc; nothing is kept of the source.
  Engine(Source& source, const Options& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const KernelSet& kernels() const { return kernels_; }
  int threads() const { return threads_; }
  int resolution() const { return resolution_; }
  int channels() const { return layers_.front().layer.in_channels; }
  const std::vector<std::string>& class_names() const { return class_names_; }
  // The JSON object that describes the network, as the file has it.
  const std::string& text() const { return text_; }
  // Of the weights, as packed.
  std::size_t weight_bytes() const { return weights_.size(); }

  // Plans for images of a size, as the first run() would. Throws Error(kImage).
  void plan(int height, int width) { plan_for(height, width); }

  // images: uint8 (count, height, width, channels) -> logits: float32 (count, classes). The first
  // call for a size plans it; then nothing is allocated. Throws Error(kImage), std::bad_alloc.
  void run(const std::uint8_t* images, std::size_t count, int height, int width, float* logits);

  // Runs one image `repetitions` times and times each step.
  std::vector<StepProfile> profile(const std::uint8_t* image, int height, int width,
                                   int repetitions);

  // From now on fills the memory in which a run computes with a byte before it, for tests: kernels
  // must not depend on what they find there.
  void fill_workspaces(int byte) { fill_ = byte; }

 private:
  struct Workspace;
  struct Lease;
  struct Batch;

  Engine(NetworkFile file, const Options& options);
  void pack(NetworkFile& file);
  std::shared_ptr<const Plan> plan_for(int height, int width);
  std::size_t activation_bytes(const PlannedStep& planned) const;
  ThreadPool* take_pool();  // nullptr when there is none to be had

  const KernelSet& kernels_;
  int threads_;
  int resolution_;
  std::vector<std::string> class_names_;
  std::string text_;
  int fill_ = -1;
  Buffer weights_;
  std::vector<PackedLayer> layers_;

  // Guarded by the lock of engine.cpp.
  std::vector<std::shared_ptr<const Plan>> plans_;  // the latest used last
  std::vector<std::unique_ptr<Workspace>> idle_;
  std::unique_ptr<ThreadPool> pool_;
  bool pool_busy_ = false;
  unsigned pool_process_ = 0;  // in which process the pool's threads were started
};

}  // namespace lucid
