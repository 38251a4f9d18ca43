// What the AMX set shares with the AVX-512 VNNI set: every layer but the wide pointwise ones.

#pragma once

#include <cstddef>
#include <cstdint>

#include "../kernels.h"

namespace lucid::int8_avx512vnni {

// Bytes of a tensor by pixels, or by channels in blocks of `block` (16 or 64): what is more.
std::size_t tensor_bytes(const Tensor& tensor, int block);

// Bytes of a row by pixels.
std::size_t row_bytes(const Tensor& tensor);

// Biases and multipliers of whole panels of outputs, then the panels, whose quads of inputs are
// rounded up to a multiple.
std::size_t packed_bytes(const Weights& weights, int multiple);
void pack(const Weights& weights, void* packed, int multiple);

std::size_t scratch_bytes(const Step& step);
int units(const Step& step);
void run(const Step& step, const void* packed, const void* in, void* out, void* scratch, int begin,
         int end);

// `block` is 16, or 64: [channel/64][y][x][64 channels], rows padded to fours of pixels.
void depthwise(const Step& step, const void* packed, const void* in, void* out, void* scratch,
               int block, int begin, int end);

}  // namespace lucid::int8_avx512vnni
