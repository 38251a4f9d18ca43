// Runs a fuzz target without libFuzzer: on files, and on so many altered copies of each.
//
//   fuzz COPIES FILE...

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int count, char** arguments) {
  std::mt19937 random(0);
  const auto below = [&](std::size_t end) { return random() % end; };
  for (int k = 2; k < count; ++k) {
    std::ifstream file(arguments[k], std::ios::binary);
    const std::vector<std::uint8_t> whole{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(whole.data(), whole.size());
    for (int copy = std::atoi(arguments[1]); copy > 0 && !whole.empty(); --copy) {
      std::vector<std::uint8_t> altered = whole;
      for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
        altered[below(altered.size())] = static_cast<std::uint8_t>(random());
      }
      if (below(8) == 0) altered.resize(below(altered.size() + 1));
      LLVMFuzzerTestOneInput(altered.data(), altered.size());
    }
  }
  return 0;
}
