/* The kernels in plain C99, for every CPU; the others have to give the same bytes. */

#include "kernels.h"

#include <stddef.h>

#if (defined(__arm__) && !defined(__ARM_FP)) || (defined(__riscv) && !defined(__riscv_flen))
#define LUCID_SOFT_FLOAT
#endif

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
static inline uint8_t requantise_float(int32_t sum, float multiplier, uint32_t maximum_bits) {
  uint32_t bits = bits_of((float)sum * multiplier);
  if (bits >> 31) bits = 0;
  if (bits > maximum_bits) bits = maximum_bits;
  return (uint8_t)bits_of(float_of(bits) + ROUNDER);
}

#ifdef LUCID_SOFT_FLOAT
/* Without an FPU, the product as a whole number of 1/65536: at most one less than the exact one,
 * from which float arithmetic departs by two at most below 256. So only where a half is nearer than
 * that does float have to say to which side it rounds.
 */
static uint8_t requantise(int32_t sum, float multiplier, uint32_t maximum) {
  const uint32_t bits = bits_of(multiplier);
  const int shift = 134 - (int)(bits >> 23);
  uint64_t product;
  uint32_t rounded;
  if (sum <= 0 || shift > 63) return 0;
  if (shift <= 0) return requantise_float(sum, multiplier, bits_of((float)maximum));
  product = (uint64_t)(uint32_t)sum * ((bits & 0x7fffffu) | 0x800000u) >> shift;
  if (product >= (uint64_t)(maximum + 1) << 16) return (uint8_t)maximum;
  if (((uint32_t)product & 0xffffu) - 0x7ffcu <= 8u) {
    return requantise_float(sum, multiplier, bits_of((float)maximum));
  }
  rounded = ((uint32_t)product + 0x8000u) >> 16;
  return (uint8_t)(rounded < maximum ? rounded : maximum);
}
#define limit_of(maximum) ((uint32_t)(maximum))
#else
#define requantise(sum, multiplier, limit) requantise_float(sum, multiplier, limit)
#define limit_of(maximum) bits_of((float)(maximum))
#endif

#if !defined(LUCID_HAS_STEM) || !defined(LUCID_HAS_POINTWISE)
/* All channels of two pixels at once: a weight that has been read is used for both, a value for two
 * channels. Without a second pixel, or where one channel is left, the first counts for both.
 *
 * first, second: `inputs` values of each pixel. out, next: their channels.
 */
static void two_pixels(const lucid_layer *layer, int inputs, const uint8_t *first,
                       const uint8_t *second, uint8_t *out, uint8_t *next) {
  const int channels = layer->out_channels;
  const uint32_t maximum = limit_of(layer->maximum);
  int o, i;
  for (o = 0; o < channels; o += 2) {
    const int other = o + 1 < channels ? o + 1 : o;
    const int8_t *weights = layer->weights + o * inputs;
    const int8_t *others = layer->weights + other * inputs;
    int32_t a = layer->bias[o], b = layer->bias[other], c = a, d = b;
    for (i = 0; i < inputs; ++i) {
      a += weights[i] * first[i];
      b += others[i] * first[i];
      c += weights[i] * second[i];
      d += others[i] * second[i];
    }
    out[o] = requantise(a, layer->multiplier[o], maximum);
    out[other] = requantise(b, layer->multiplier[other], maximum);
    next[o] = requantise(c, layer->multiplier[o], maximum);
    next[other] = requantise(d, layer->multiplier[other], maximum);
  }
}
#endif

#ifndef LUCID_HAS_STEM
/* Lays the window of one pixel out in the order of the weights. */
static void lay_out(const lucid_layer *layer, const uint8_t *const rows[3],
                    const uint8_t *outside, int x, uint8_t *window) {
  const int channels = layer->in_channels;
  int tap, i;
  for (tap = 0; tap < 9; ++tap) {
    const int column = x * layer->stride - layer->left + tap % 3;
    const uint8_t *pixel = outside;
    if (rows[tap / 3] != NULL && column >= 0 && column < layer->in_width) {
      pixel = rows[tap / 3] + column * channels;
    }
    for (i = 0; i < channels; ++i) *window++ = pixel[i];
  }
}

void lucid_stem_row(const lucid_layer *layer, const uint8_t *const rows[3], const uint8_t *outside,
                    void *work, uint8_t *out) {
  const int inputs = 9 * layer->in_channels, width = layer->out_width;
  uint8_t *const first = work, *const second = first + inputs;
  int x;
  for (x = 0; x < width; x += 2) {
    const int is_pair = x + 1 < width;
    lay_out(layer, rows, outside, x, first);
    if (is_pair) lay_out(layer, rows, outside, x + 1, second);
    two_pixels(layer, inputs, first, is_pair ? second : first, out,
               is_pair ? out + layer->out_channels : out);
    out += 2 * layer->out_channels;
  }
}
#endif

#ifndef LUCID_HAS_DEPTHWISE
/* One pixel whose window is inside the image; `window` holds the places of its rows. */
static void inner_pixel(const lucid_layer *layer, const uint8_t *const window[3], uint8_t *out) {
  const int channels = layer->in_channels;
  const uint32_t maximum = limit_of(layer->maximum);
  const int8_t *w = layer->weights;
  int c, row;
  for (c = 0; c < channels; ++c) {
    int32_t sum = layer->bias[c];
    for (row = 0; row < 3; ++row, w += 3) {
      const uint8_t *seen = window[row] + c;
      sum += w[0] * seen[0] + w[1] * seen[channels] + w[2] * seen[2 * channels];
    }
    out[c] = requantise(sum, layer->multiplier[c], maximum);
  }
}

/* One pixel at column `x` of the input, some of whose window is outside, where there are zeros. */
static void edge_pixel(const lucid_layer *layer, const uint8_t *const *rows, int x, uint8_t *out) {
  const int channels = layer->in_channels;
  const uint32_t maximum = limit_of(layer->maximum);
  int c, tap;
  for (c = 0; c < channels; ++c) {
    const int8_t *weights = layer->weights + 9 * c;
    int32_t sum = layer->bias[c];
    for (tap = 0; tap < 9; ++tap) {
      const int column = x + tap % 3;
      if (rows[tap / 3] == NULL || column < 0 || column >= layer->in_width) continue;
      sum += weights[tap] * rows[tap / 3][column * channels + c];
    }
    out[c] = requantise(sum, layer->multiplier[c], maximum);
  }
}

void lucid_depthwise(const lucid_layer *layer, const uint8_t *const *rows, int count, void *work,
                     void *between) {
  const int channels = layer->in_channels;
  uint8_t *out = between;
  int y, x;
  (void)work;
  for (y = 0; y < count; ++y, rows += layer->stride) {
    const int is_inner = rows[0] != NULL && rows[1] != NULL && rows[2] != NULL;
    for (x = 0; x < layer->out_width; ++x, out += channels) {
      const int column = x * layer->stride - layer->left;
      if (is_inner && column >= 0 && column + 2 < layer->in_width) {
        const uint8_t *window[3];
        window[0] = rows[0] + column * channels;
        window[1] = rows[1] + column * channels;
        window[2] = rows[2] + column * channels;
        inner_pixel(layer, window, out);
      } else {
        edge_pixel(layer, rows, column, out);
      }
    }
  }
}
#endif

#ifndef LUCID_HAS_POINTWISE
void lucid_pointwise(const lucid_layer *layer, const void *between, int pixels, void *work,
                     uint8_t *out) {
  const int inputs = layer->in_channels;
  const uint8_t *in = between;
  int x;
  (void)work;
  for (x = 0; x < pixels; x += 2) {
    const int is_pair = x + 1 < pixels;
    two_pixels(layer, inputs, in, is_pair ? in + inputs : in, out,
               is_pair ? out + layer->out_channels : out);
    in += 2 * inputs;
    out += 2 * layer->out_channels;
  }
}
#endif

#ifndef LUCID_HAS_POOL
void lucid_pool(const lucid_layer *layer, const uint8_t *in, uint8_t *out) {
  const int32_t pixels = (int32_t)layer->in_height * layer->in_width;
  const int channels = layer->in_channels;
  const uint32_t maximum = limit_of(255);
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
