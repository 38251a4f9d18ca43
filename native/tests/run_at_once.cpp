// Several threads use one engine at once, with threads of its own, for the sanitizers: exits with 1
// when one of them gets other logits than it would alone.
//
//   run_at_once NETWORK SIDE PRECISION ISA

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

#include "engine.h"

int main(int, char** arguments) {
  const int side = std::atoi(arguments[2]);
  std::atomic<int> wrong{0};
  for (const int threads : {1, 2}) {
    lucid::FileSource source(arguments[1]);
    lucid::Engine engine(source, {arguments[3], arguments[4], threads});
    const auto run = [&](int number) {
      const int size = side + number % 3;
      constexpr std::size_t kCount = 3;
      const std::vector<std::uint8_t> images(kCount * static_cast<std::size_t>(size) *
                                                 static_cast<std::size_t>(size) *
                                                 static_cast<std::size_t>(engine.channels()),
                                             static_cast<std::uint8_t>(20 * number));
      std::vector<float> logits(kCount * engine.class_names().size());
      engine.run(images.data(), kCount, size, size, logits.data());
      return logits;
    };
    std::vector<std::vector<float>> expected;
    for (int number = 0; number < 4; ++number) expected.push_back(run(number));
    std::vector<std::thread> callers;
    for (int number = 0; number < 4; ++number) {
      callers.emplace_back([&, number] {
        for (int repeat = 0; repeat < 5; ++repeat) wrong += run(number) != expected[number];
      });
    }
    for (std::thread& caller : callers) caller.join();
  }
  return wrong == 0 ? 0 : 1;
}
