#include "engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <mutex>
#include <system_error>

#include "cpu.h"
#include "dispatch.h"
#include "error.h"
#include "float_mode.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace lucid {
namespace {

constexpr int kMaxThreads = 1024;
constexpr std::size_t kMaxPlans = 16;
constexpr std::size_t kMaxPackedBytes = std::numeric_limits<int>::max();

// Counts the forks on the way from the first process to this one.
std::atomic<unsigned> process{0};

// One lock for the short moments in which engines look up what they have. A fork waits for it, so
// that no child finds it held by a thread that it does not have.
std::mutex& state_lock() {
  static std::mutex* const lock = [] {
    auto* created = new std::mutex;  // never freed: threads may outlive static objects
#if !defined(_WIN32)
    pthread_atfork([] { state_lock().lock(); }, [] { state_lock().unlock(); },
                   [] {
                     ++process;
                     state_lock().unlock();
                   });
#endif
    return created;
  }();
  return *lock;
}

std::size_t image_bytes(const Tensor& image) {
  return static_cast<std::size_t>(image.channels) * static_cast<std::size_t>(image.height) *
         static_cast<std::size_t>(image.width);
}

double now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

Precision wanted_precision(const NetworkFile& file, const std::string& name) {
  if (name.empty()) return file.is_int8() ? Precision::kInt8 : Precision::kFloat32;
  const Precision precision = parse_precision(name);
  if ((precision == Precision::kInt8) != file.is_int8()) {
    throw Error(ErrorKind::kArgument,
                file.is_int8()
                    ? "the network's weights are int8, so it can't run in " + name +
                          "; use the checkpoint that it was made from"
                    : "the network's weights are float32, so it can't run in int8; quantise it "
                      "first, with: lucid quantize");
  }
  return precision;
}

}  // namespace

// Memory of one call: two activation buffers for each image that is under way at once, and scratch
// memory for each thread.
struct Engine::Workspace {
  std::vector<Buffer> activations;  // 2k and 2k + 1 are of image k
  std::vector<Buffer> scratch;

  static void grow(std::vector<Buffer>& buffers, std::size_t index, std::size_t bytes) {
    if (buffers.size() <= index) buffers.resize(index + 1);
    if (buffers[index].size() >= bytes) return;
    buffers[index] = Buffer();  // first, so that both never exist at once
    buffers[index] = Buffer(bytes);
  }

  void prepare(const Plan& plan, std::size_t images, std::size_t threads) {
    for (std::size_t k = 0; k < 2 * images; ++k) {
      grow(activations, k, plan.activation_bytes[k % 2]);
    }
    for (std::size_t k = 0; k < threads; ++k) grow(scratch, k, plan.scratch_bytes);
  }

  void fill(int byte) {
    for (auto* buffers : {&activations, &scratch}) {
      for (Buffer& buffer : *buffers) {
        if (buffer.size() > 0) std::memset(buffer.data(), byte, buffer.size());
      }
    }
  }
};

// What a call has to itself until it ends.
struct Engine::Lease {
  Engine& engine;
  std::shared_ptr<const Plan> plan;
  std::unique_ptr<Workspace> workspace;
  ThreadPool* pool = nullptr;  // none: the caller's thread works alone

  Lease(Engine& owner, int height, int width)
      : engine(owner), plan(owner.plan_for(height, width)) {
    const std::lock_guard<std::mutex> lock(state_lock());
    if (!engine.idle_.empty()) {
      workspace = std::move(engine.idle_.back());
      engine.idle_.pop_back();
    } else {
      workspace = std::make_unique<Workspace>();
    }
    pool = engine.take_pool();  // last: should anything fail, nobody would hand it back
  }
  ~Lease() {
    const std::lock_guard<std::mutex> lock(state_lock());
    if (pool != nullptr) engine.pool_busy_ = false;
    if (engine.idle_.size() < engine.idle_.capacity()) {
      engine.idle_.push_back(std::move(workspace));
    }
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
};

// The images of one call. Each thread takes as many whole images as the others; those that are left
// over are shared, each layer divided among the threads.
struct Engine::Batch {
  const Engine& engine;
  const Plan& plan;
  Workspace& workspace;
  ThreadPool* pool;
  const std::uint8_t* images;
  std::size_t count;
  float* logits;
  double* seconds = nullptr;  // of each step, when asked for

  std::size_t threads() const {
    return pool == nullptr ? 1 : static_cast<std::size_t>(pool->size());
  }
  std::size_t whole_images() const { return count / threads(); }  // of each thread

  void run() {
    workspace.prepare(plan, whole_images() > 0 ? threads() : 1, threads());
    if (engine.fill_ >= 0) workspace.fill(engine.fill_);
    if (pool == nullptr) {
      run_share(this, 0);
    } else {
      pool->run(&run_share, this);
    }
  }

  static void run_share(void* context, int thread_number) {
    const auto& batch = *static_cast<const Batch*>(context);
    const FloatMode mode;
    const std::size_t thread = static_cast<std::size_t>(thread_number);
    const std::size_t each = batch.whole_images(), shared = each * batch.threads();
    for (std::size_t image = thread * each; image < (thread + 1) * each; ++image) {
      batch.run_image(image, thread, thread, 0, 1);
    }
    // Image buffers of the first thread serve for those that are shared.
    if (each > 0 && shared < batch.count) batch.pool->barrier();
    for (std::size_t image = shared; image < batch.count; ++image) {
      batch.run_image(image, 0, thread, thread, batch.threads());
    }
  }

  // Runs part `part` of `parts` of each step of an image in buffers of place `place`.
  void run_image(std::size_t image, std::size_t place, std::size_t thread, std::size_t part,
                 std::size_t parts) const {
    char* const buffers[2] = {workspace.activations[2 * place].data(),
                              workspace.activations[2 * place + 1].data()};
    char* const scratch = workspace.scratch[thread].data();
    float* const result = logits + image * engine.class_names_.size();
    const void* in = images + image * image_bytes(plan.steps.front().step.in);
    const std::size_t last = plan.steps.size() - 1;
    double before = seconds == nullptr ? 0 : now();
    for (std::size_t k = 0; k <= last; ++k) {
      const PlannedStep& planned = plan.steps[k];
      void* const out = k == last ? static_cast<void*>(result) : buffers[k % 2];
      const auto units = static_cast<std::size_t>(planned.units);
      const int begin = static_cast<int>(units * part / parts);
      const int end = static_cast<int>(units * (part + 1) / parts);
      const KernelSet& kernels = engine.kernels_;
      if (begin < end && planned.is_pair) {
        kernels.run_pair(planned.step, planned.second, planned.packed, planned.second_packed, in,
                         out, scratch, begin, end);
      } else if (begin < end) {
        kernels.run(planned.step, planned.packed, in, out, scratch, begin, end);
      }
      if (parts > 1) pool->barrier();
      if (seconds != nullptr && part == 0) {
        const double after = now();
        seconds[k] = after - before;
        before = after;
      }
      in = out;
    }
  }
};

Engine::Engine(Source& source, const Options& options)
    : Engine(NetworkFile(source), options) {}

Engine::Engine(NetworkFile file, const Options& options)
    : kernels_(choose_kernel_set(wanted_precision(file, options.precision), options.isa)),
      threads_(options.threads == 0 ? available_cpus() : options.threads),
      resolution_(file.resolution()),
      class_names_(file.class_names()),
      text_(file.text()) {
  if (threads_ < 1 || threads_ > kMaxThreads) {
    throw Error(ErrorKind::kArgument, "threads must be from 1 to " + std::to_string(kMaxThreads) +
                                          ", got " + std::to_string(threads_));
  }
  pack(file);
  plans_.reserve(kMaxPlans + 1);
  idle_.reserve(kMaxThreads);
}

Engine::~Engine() {
  if (pool_ != nullptr && pool_process_ != process) pool_.release();
}

// Kernel sets may lay out what a pointwise layer gives in another way than what it takes, since a
// depthwise layer stands before it. Where none does, one that copies is put there.
void Engine::pack(NetworkFile& file) {
  std::vector<std::size_t> offsets;
  std::size_t total = 0;
  const auto add = [&](const Layer& layer, bool is_copy) {
    const bool huge = layer.multiply_adds(1) > static_cast<std::int64_t>(kMaxPackedBytes);
    const std::size_t bytes = huge ? 0 : kernels_.packed_bytes(LayerValues().weights(layer));
    if (huge || bytes > kMaxPackedBytes) {
      throw Error(ErrorKind::kNetwork, layer.name + ": has more weights than the engine takes");
    }
    offsets.push_back(total);
    layers_.push_back({layer, 0, 0, 1, 1, nullptr, bytes, is_copy});
    total += aligned(bytes);
  };
  for (const Layer& layer : file.layers()) {
    const bool follows = !layers_.empty() && layers_.back().layer.kind != Kind::kDepthwise;
    if (follows && layer.kind == Kind::kPointwise) {
      Layer copy = layer;
      copy.kind = Kind::kDepthwise;
      copy.out_channels = layer.in_channels;
      add(copy, true);
    }
    add(layer, false);
  }
  weights_ = Buffer(total);
  LayerValues values;
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    PackedLayer& packed = layers_[k];
    char* const place = weights_.data() + offsets[k];
    do {
      if (packed.is_copy) {
        values.set_copy(packed.layer.in_channels);
      } else {
        file.next(values);
      }
      if (packed.layer.kind != Kind::kPool) kernels_.pack(values.weights(packed.layer), place);
    } while (values.end < packed.layer.out_channels);
    packed.packed = place;
    packed.maximum = values.maximum;
    packed.ceiling = values.ceiling;
    packed.input_scale = values.input_scale;
    packed.output_scale = values.output_scale;
  }
}

std::shared_ptr<const Plan> Engine::plan_for(int height, int width) {
  const auto find = [&] {
    const auto fits = [&](const auto& plan) {
      return plan->height == height && plan->width == width;
    };
    return std::find_if(plans_.begin(), plans_.end(), fits);
  };
  {
    const std::lock_guard<std::mutex> lock(state_lock());
    const auto found = find();
    if (found != plans_.end()) {
      std::rotate(found, found + 1, plans_.end());
      return plans_.back();
    }
  }
  const auto plan = std::make_shared<const Plan>(
      make_plan(kernels_, layers_, resolution_, height, width));
  const std::lock_guard<std::mutex> lock(state_lock());
  if (find() == plans_.end()) plans_.push_back(plan);
  if (plans_.size() > kMaxPlans) plans_.erase(plans_.begin());
  return plan;
}

ThreadPool* Engine::take_pool() {
  if (pool_ != nullptr && pool_process_ != process) {
    pool_.release();  // its threads are in the process that forked; joining them would never end
    pool_busy_ = false;
  }
  if (threads_ == 1 || pool_busy_) return nullptr;
  if (pool_ == nullptr) {
    try {
      pool_ = std::make_unique<ThreadPool>(threads_);
    } catch (const std::system_error& error) {
      throw Error(ErrorKind::kArgument, "threads: the system does not start " +
                                            std::to_string(threads_) + " (" + error.what() +
                                            "); take fewer");
    }
    pool_process_ = process;
  }
  pool_busy_ = true;
  return pool_.get();
}

void Engine::run(const std::uint8_t* images, std::size_t count, int height, int width,
                 float* logits) {
  Lease lease(*this, height, width);
  if (count == 0) return;
  Batch{*this, *lease.plan, *lease.workspace, lease.pool, images, count, logits}.run();
}

std::vector<StepProfile> Engine::profile(const std::uint8_t* image, int height, int width,
                                         int repetitions) {
  Lease lease(*this, height, width);
  const std::size_t steps = lease.plan->steps.size();
  const std::size_t runs = static_cast<std::size_t>(std::max(repetitions, 1));
  std::vector<double> seconds(steps * runs);
  std::vector<float> logits(class_names_.size());
  for (std::size_t run = 0; run < runs; ++run) {
    Batch{*this, *lease.plan, *lease.workspace, lease.pool, image, 1, logits.data(),
          &seconds[run * steps]}
        .run();
  }
  std::vector<StepProfile> found;
  std::vector<double> times(runs);
  auto packed = layers_.begin();
  double copying = 0;  // counts for the layer behind it
  for (std::size_t k = 0; k < steps; ++k) {
    for (std::size_t run = 0; run < runs; ++run) times[run] = seconds[run * steps + k];
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(runs / 2);
    std::nth_element(times.begin(), middle, times.end());
    const PlannedStep& planned = lease.plan->steps[k];
    if (packed->is_copy && !planned.is_pair) {
      copying = *middle;
      ++packed;
      continue;
    }
    found.push_back({{}, 0, 0, activation_bytes(planned), *middle + copying});
    copying = 0;
    for (int layers = planned.is_pair ? 2 : 1; layers > 0; --layers, ++packed) {
      if (packed->is_copy) continue;
      const Tensor& out = layers == 1 ? planned.last().out : planned.step.out;
      found.back().layers.push_back(&packed->layer);
      found.back().multiply_adds +=
          packed->layer.multiply_adds(std::int64_t{out.height} * out.width);
      found.back().weight_bytes += packed->packed_bytes;
    }
  }
  return found;
}

std::size_t Engine::activation_bytes(const PlannedStep& planned) const {
  const Tensor& tensor = planned.step.in;
  const bool is_image = planned.step.kind == Kind::kStem;
  const std::size_t in = is_image ? image_bytes(tensor) : kernels_.tensor_bytes(tensor);
  const std::size_t out = planned.step.kind == Kind::kDense
                              ? sizeof(float) * class_names_.size()
                              : kernels_.tensor_bytes(planned.last().out);
  return in + out;
}

}  // namespace lucid
