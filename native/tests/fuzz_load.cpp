// Any bytes are loaded or refused; what was loaded runs, on the set that LUCID_ISA names or the best.
// For libFuzzer, or for fuzz_main.cpp.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine.h"
#include "error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    lucid::MemorySource source(data, size);
    lucid::Engine engine(source, {"", "", 1});
    constexpr int kSide = 32;
    std::vector<std::uint8_t> image(kSide * kSide * static_cast<std::size_t>(engine.channels()));
    for (std::size_t k = 0; k < image.size(); ++k) image[k] = static_cast<std::uint8_t>(37 * k);
    std::vector<float> logits(engine.class_names().size());
    engine.run(image.data(), 1, kSide, kSide, logits.data());
  } catch (const lucid::Error&) {
  }
  return 0;
}
