// AMX tiles in plain C++, so that a kernel's packing, edges and epilogue are tested on a CPU without
// them. Included instead of <immintrin.h>'s tile functions where LUCID_EMULATE_AMX is defined.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace amx_emulation {
namespace {

struct Tile {
  std::uint8_t rows = 0;
  std::uint16_t row_bytes = 0;
  unsigned char data[16][64];
};

thread_local Tile tiles[8];

// Uses of tiles that the CPU would refuse end the program.
inline void require(bool allowed) {
  if (!allowed) std::abort();
}

inline Tile& configured(int at) {
  require(tiles[at].rows > 0);
  return tiles[at];
}

inline void load_config(const void* memory) {
  const auto* bytes = static_cast<const unsigned char*>(memory);
  require(bytes[0] == 1);
  for (int i = 0; i < 8; ++i) {
    std::memcpy(&tiles[i].row_bytes, bytes + 16 + 2 * i, 2);
    tiles[i].rows = bytes[48 + i];
    require(tiles[i].rows <= 16 && tiles[i].row_bytes <= 64);
    std::memset(tiles[i].data, 0, sizeof tiles[i].data);
  }
}

inline void release() {
  for (Tile& tile : tiles) tile = Tile();
}

inline void zero(int to) { std::memset(configured(to).data, 0, sizeof tiles[to].data); }

inline void load(int to, const void* base, std::ptrdiff_t stride) {
  Tile& tile = configured(to);
  std::memset(tile.data, 0, sizeof tile.data);
  for (int row = 0; row < tile.rows; ++row) {
    std::memcpy(tile.data[row], static_cast<const char*>(base) + row * stride, tile.row_bytes);
  }
}

inline void store(int from, void* base, std::ptrdiff_t stride) {
  const Tile& tile = configured(from);
  for (int row = 0; row < tile.rows; ++row) {
    std::memcpy(static_cast<char*>(base) + row * stride, tile.data[row], tile.row_bytes);
  }
}

// sums += bytes * signed bytes, four products to each sum.
inline void dot_bytes(int to, int left, int right) {
  Tile& sums = configured(to);
  const Tile& a = configured(left);
  const Tile& b = configured(right);
  require(a.rows == sums.rows && b.row_bytes == sums.row_bytes && a.row_bytes == b.rows * 4);
  for (int m = 0; m < sums.rows; ++m) {
    for (int n = 0; n < sums.row_bytes / 4; ++n) {
      std::int32_t sum;
      std::memcpy(&sum, sums.data[m] + 4 * n, 4);
      for (int k = 0; k < a.row_bytes; ++k) {
        sum += a.data[m][k] * static_cast<signed char>(b.data[k / 4][4 * n + k % 4]);
      }
      std::memcpy(sums.data[m] + 4 * n, &sum, 4);
    }
  }
}

inline float widened(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// sums += bfloat16 * bfloat16 in float32, two products to each sum.
inline void dot_bfloat16(int to, int left, int right) {
  Tile& sums = configured(to);
  const Tile& a = configured(left);
  const Tile& b = configured(right);
  require(a.rows == sums.rows && b.row_bytes == sums.row_bytes && a.row_bytes == b.rows * 4);
  for (int m = 0; m < sums.rows; ++m) {
    for (int n = 0; n < sums.row_bytes / 4; ++n) {
      float sum;
      std::memcpy(&sum, sums.data[m] + 4 * n, 4);
      for (int k = 0; k < a.row_bytes / 2; ++k) {
        std::uint16_t x, y;
        std::memcpy(&x, a.data[m] + 2 * k, 2);
        std::memcpy(&y, b.data[k / 2] + 4 * n + 2 * (k % 2), 2);
        sum += widened(x) * widened(y);
      }
      std::memcpy(sums.data[m] + 4 * n, &sum, 4);
    }
  }
}

}  // namespace
}  // namespace amx_emulation

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig(memory) amx_emulation::load_config(memory)
#define _tile_release() amx_emulation::release()
#define _tile_zero(to) amx_emulation::zero(to)
#define _tile_loadd(to, base, stride) amx_emulation::load(to, base, stride)
#define _tile_stored(from, base, stride) amx_emulation::store(from, base, stride)
#define _tile_dpbusd(to, left, right) amx_emulation::dot_bytes(to, left, right)
#define _tile_dpbf16ps(to, left, right) amx_emulation::dot_bfloat16(to, left, right)
