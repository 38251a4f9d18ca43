// The instructions of AMX in plain C++, under the names of the compilers' intrinsics, so that kernels
// built with LUCID_EMULATE_AMX can be tested on machines without. Included behind <immintrin.h>.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lucid_amx {

struct Tiles {
  int rows[8];
  int row_bytes[8];
  unsigned char data[8][16][64];
};
inline thread_local Tiles tiles;

// The 64 bytes of a configuration: palette, start row, 14 reserved, bytes of a row of each of 16
// tiles, rows of each.
inline void configure(const void* memory) {
  const auto* bytes = static_cast<const unsigned char*>(memory);
  for (int tile = 0; tile < 8; ++tile) {
    std::uint16_t row_bytes;
    std::memcpy(&row_bytes, bytes + 16 + 2 * tile, sizeof(row_bytes));
    tiles.row_bytes[tile] = row_bytes;
    tiles.rows[tile] = bytes[48 + tile];
  }
  std::memset(tiles.data, 0, sizeof(tiles.data));
}

inline void release() { std::memset(&tiles, 0, sizeof(tiles)); }

inline void zero(int tile) { std::memset(tiles.data[tile], 0, sizeof(tiles.data[tile])); }

inline void load(int tile, const void* from, std::ptrdiff_t stride) {
  zero(tile);
  for (int row = 0; row < tiles.rows[tile]; ++row) {
    std::memcpy(tiles.data[tile][row], static_cast<const char*>(from) + row * stride,
                static_cast<std::size_t>(tiles.row_bytes[tile]));
  }
}

inline void store(int tile, void* to, std::ptrdiff_t stride) {
  for (int row = 0; row < tiles.rows[tile]; ++row) {
    std::memcpy(static_cast<char*>(to) + row * stride, tiles.data[tile][row],
                static_cast<std::size_t>(tiles.row_bytes[tile]));
  }
}

template <typename Type>
Type element(const unsigned char* row, int index) {
  Type value;
  std::memcpy(&value, row + static_cast<std::size_t>(index) * sizeof(Type), sizeof(Type));
  return value;
}

inline float widen(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline int widen(std::int8_t byte) { return byte; }
inline int widen(std::uint8_t byte) { return byte; }

// sums[m][n] += a[m][k][i] * b[k][n][i] over k and the values i that 32 bits hold.
template <typename Sum, typename A, typename B>
void multiply(int sums, int a, int b) {
  constexpr int kEach = 4 / static_cast<int>(sizeof(A));
  for (int m = 0; m < tiles.rows[sums]; ++m) {
    for (int n = 0; n < tiles.row_bytes[sums] / 4; ++n) {
      Sum sum = element<Sum>(tiles.data[sums][m], n);
      for (int k = 0; k < tiles.row_bytes[a] / 4; ++k) {
        for (int i = 0; i < kEach; ++i) {
          sum += widen(element<A>(tiles.data[a][m], kEach * k + i)) *
                 widen(element<B>(tiles.data[b][k], kEach * n + i));
        }
      }
      std::memcpy(tiles.data[sums][m] + 4 * n, &sum, sizeof(sum));
    }
  }
}

}  // namespace lucid_amx

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud
#define _tile_loadconfig(memory) lucid_amx::configure(memory)
#define _tile_release() lucid_amx::release()
#define _tile_zero(tile) lucid_amx::zero(tile)
#define _tile_loadd(tile, from, stride) lucid_amx::load(tile, from, stride)
#define _tile_stored(tile, to, stride) lucid_amx::store(tile, to, stride)
#define _tile_dpbf16ps(sums, a, b) lucid_amx::multiply<float, std::uint16_t, std::uint16_t>(sums, a, b)
#define _tile_dpbssd(sums, a, b) lucid_amx::multiply<int, std::int8_t, std::int8_t>(sums, a, b)
#define _tile_dpbsud(sums, a, b) lucid_amx::multiply<int, std::int8_t, std::uint8_t>(sums, a, b)
#define _tile_dpbusd(sums, a, b) lucid_amx::multiply<int, std::uint8_t, std::int8_t>(sums, a, b)
#define _tile_dpbuud(sums, a, b) lucid_amx::multiply<int, std::uint8_t, std::uint8_t>(sums, a, b)
