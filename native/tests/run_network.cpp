// Runs networks where there is no Python: under an emulator, for example.
//
//   run_network ISA [NETWORK HEIGHT WIDTH IMAGES LOGITS]...
//
// ISA is "" for the engine's own choice; the set that ran is printed. IMAGES holds raw bytes (count,
// height, width, channels), LOGITS is written as raw float32 (count, classes).

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine.h"

namespace {

std::vector<char> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void run(const std::string& isa, char** job) {
  lucid::FileSource source(job[0]);
  lucid::Engine engine(source, {"int8", isa, 2});
  const int height = std::atoi(job[1]);
  const int width = std::atoi(job[2]);
  const std::vector<char> images = read(job[3]);
  const std::size_t stride = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) *
                             static_cast<std::size_t>(engine.channels());
  const std::size_t count = images.size() / stride;
  std::vector<float> logits(count * engine.class_names().size());
  engine.fill_workspaces(0xa5);
  engine.run(reinterpret_cast<const std::uint8_t*>(images.data()), count, height, width,
             logits.data());
  std::ofstream(job[4], std::ios::binary)
      .write(reinterpret_cast<const char*>(logits.data()),
             static_cast<std::streamsize>(logits.size() * sizeof(float)));
  std::printf("%s\n", engine.kernels().isa);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    for (int k = 2; k + 5 <= count; k += 5) run(arguments[1], arguments + k);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
