// What the AMX set shares with the AVX-512 VNNI set: every layer but the pointwise one.

#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernels.h"

namespace lucid::int8_avx512vnni {

// Bytes of an activation tensor whose depthwise outputs are stored in blocks of `block` channels.
std::size_t tensor_bytes(const Tensor& tensor, int block);

std::size_t packed_bytes(const Weights& weights);
void pack(const Weights& weights, void* packed);
std::size_t scratch_bytes(const Step& step);
int units(const Step& step);

void stem(const Step& step, const void* packed, const void* in, void* out, void* scratch, int begin,
          int end);
void pool(const Step& step, const void* in, void* out, int begin, int end);
void dense(const Step& step, const void* packed, const void* in, void* out, int begin, int end);

// Writes [y][channel/block][x][block channels]; `block` is 16 or 64.
void depthwise(const Step& step, const void* packed, const void* in, void* out, void* scratch,
               int block, int begin, int end);

}  // namespace lucid::int8_avx512vnni
