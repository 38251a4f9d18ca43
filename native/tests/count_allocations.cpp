// Prints how often memory is allocated in runs after the first, by any thread; 0 is expected.
//
//   count_allocations NETWORK SIDE THREADS

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "engine.h"

namespace {

std::atomic<int> allocations{0};

void* allocate(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const place = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (place == nullptr) throw std::bad_alloc();
  return place;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* place) noexcept { std::free(place); }
void operator delete(void* place, std::size_t) noexcept { std::free(place); }
void operator delete(void* place, std::align_val_t) noexcept { std::free(place); }
void operator delete(void* place, std::size_t, std::align_val_t) noexcept { std::free(place); }

int main(int, char** arguments) {
  lucid::FileSource source(arguments[1]);
  const int side = std::atoi(arguments[2]);
  lucid::Engine engine(source, {"", "", std::atoi(arguments[3])});
  constexpr std::size_t kCount = 3;
  const std::size_t bytes = kCount * static_cast<std::size_t>(side) *
                            static_cast<std::size_t>(side) *
                            static_cast<std::size_t>(engine.channels());
  const std::vector<std::uint8_t> images(bytes, 100);
  std::vector<float> logits(kCount * engine.class_names().size());
  const auto run = [&] {
    engine.run(images.data(), kCount, side, side, logits.data());
    engine.run(images.data(), 1, side, side, logits.data());
  };
  run();
  const int before = allocations;
  for (int k = 0; k < 10; ++k) run();
  std::printf("%d\n", allocations - before);
  return 0;
}
