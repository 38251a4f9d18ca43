/* The kernels in plain C99, for every CPU; the others have to give the same bytes. */

#include "kernels.h"

#include <stddef.h>

/* From 0 to 2^22, a float plus 2^23 has no place for fractions: the sum is rounded to a whole
 * number, half to even, which are the low bits of its representation. That is three operations
 * where lrintf may be a call, and it needs no more of a floating-point library without an FPU.
 */
#define ROUNDER 8388608.0f

typedef union {
  float value;
  uint32_t bits;
} number;

static inline uint32_t bits_of(float value) {
  number found;
  found.value = value;
  return found.bits;
}

static inline float float_of(uint32_t bits) {
  number found;
  found.bits = bits;
  return found.value;
}

/* Clamping to whole numbers before rounding is the same as after. Floats from 0 on are in the order
 * of their bits, and negative ones have the top bit; and as integers stand between the product and
 * the sum, no compiler can fuse the two into one operation that rounds once.
 */
static inline uint8_t requantise(int32_t sum, float multiplier, uint32_t maximum_bits) {
  uint32_t bits = bits_of((float)sum * multiplier);
  if (bits >> 31) bits = 0;
  if (bits > maximum_bits) bits = maximum_bits;
  return (uint8_t)bits_of(float_of(bits) + ROUNDER);
}

#ifndef LUCID_HAS_STEM
void lucid_stem_row(const lucid_layer *layer, const uint8_t *const rows[3], const uint8_t *outside,
                    void *work, uint8_t *out) {
  const int channels = layer->in_channels, width = layer->in_width;
  const uint32_t maximum = bits_of((float)layer->maximum);
  int x, o, tap, i;
  (void)work;
  for (x = 0; x < layer->out_width; ++x) {
    const uint8_t *seen[9];
    const int8_t *weights = layer->weights;
    for (tap = 0; tap < 9; ++tap) {
      const uint8_t *row = rows[tap / 3];
      const int column = x * layer->stride - layer->left + tap % 3;
      const int inside = row != NULL && column >= 0 && column < width;
      seen[tap] = inside ? row + column * channels : outside;
    }
    for (o = 0; o < layer->out_channels; ++o) {
      int32_t sum = layer->bias[o];
      for (tap = 0; tap < 9; ++tap) {
        for (i = 0; i < channels; ++i) sum += *weights++ * seen[tap][i];
      }
      *out++ = requantise(sum, layer->multiplier[o], maximum);
    }
  }
}
#endif

#ifndef LUCID_HAS_DEPTHWISE
void lucid_depthwise(const lucid_layer *layer, const uint8_t *const *rows, int count, void *work,
                     void *between) {
  const int channels = layer->in_channels, width = layer->in_width;
  const uint32_t maximum = bits_of((float)layer->maximum);
  uint8_t *out = between;
  int y, x, c, k, tap;
  (void)work;
  for (y = 0; y < count; ++y, rows += layer->stride) {
    for (x = 0; x < layer->out_width; ++x) {
      const uint8_t *seen[9]; /* where the window is inside the image */
      int place[9];
      int inside = 0;
      for (tap = 0; tap < 9; ++tap) {
        const int column = x * layer->stride - layer->left + tap % 3;
        if (rows[tap / 3] == NULL || column < 0 || column >= width) continue;
        seen[inside] = rows[tap / 3] + column * channels;
        place[inside++] = tap;
      }
      for (c = 0; c < channels; ++c) {
        const int8_t *weights = layer->weights + 9 * c;
        int32_t sum = layer->bias[c];
        for (k = 0; k < inside; ++k) sum += weights[place[k]] * seen[k][c];
        *out++ = requantise(sum, layer->multiplier[c], maximum);
      }
    }
  }
}
#endif

#ifndef LUCID_HAS_POINTWISE
void lucid_pointwise(const lucid_layer *layer, const void *between, int pixels, void *work,
                     uint8_t *out) {
  const int channels = layer->in_channels;
  const uint32_t maximum = bits_of((float)layer->maximum);
  const uint8_t *in = between;
  int x, o, i;
  (void)work;
  for (x = 0; x < pixels; ++x, in += channels) {
    const int8_t *weights = layer->weights;
    for (o = 0; o < layer->out_channels; ++o) {
      int32_t sum = layer->bias[o];
      for (i = 0; i < channels; ++i) sum += *weights++ * in[i];
      *out++ = requantise(sum, layer->multiplier[o], maximum);
    }
  }
}
#endif

#ifndef LUCID_HAS_POOL
void lucid_pool(const lucid_layer *layer, const uint8_t *in, uint8_t *out) {
  const int32_t pixels = (int32_t)layer->in_height * layer->in_width;
  const int channels = layer->in_channels;
  const uint32_t maximum = bits_of(255.0f);
  int c;
  int32_t k;
  for (c = 0; c < channels; ++c) {
    const uint8_t *value = in + c;
    int32_t sum = 0;
    for (k = 0; k < pixels; ++k, value += channels) sum += *value;
    out[c] = requantise(sum, layer->multiplier[0], maximum);
  }
}
#endif

#ifndef LUCID_HAS_DENSE
void lucid_dense(const lucid_layer *layer, const uint8_t *in, float *logits) {
  const int8_t *weights = layer->weights;
  int o, i;
  for (o = 0; o < layer->out_channels; ++o) {
    int32_t sum = layer->bias[o];
    for (i = 0; i < layer->in_channels; ++i) sum += *weights++ * in[i];
    logits[o] = (float)sum * layer->multiplier[o];
  }
}
#endif
