/* Kernels for RISC-V with the vector extension (RVV 1.0), for any length of vectors.
 *
 * Lanes are channels out. A depthwise layer multiplies bytes into 16-bit products and adds them to
 * 32-bit sums; a pointwise one multiplies the weights of many channels with one value of each of
 * eight pixels.
 */
#include "kernels.h"

#ifdef LUCID_RVV

#include <riscv_vector.h>
#include <string.h>

#define TAPS 9
#define WINDOW 3
#define CHUNK 36 /* pixels of a row of the first layer that are computed at once */

/* Multipliers and the maximum of some channels; four registers of sums become bytes. */
static inline void requantise_4(vint32m4_t sums, const float *multiplier, int32_t maximum,
                                uint8_t *out, size_t lanes) {
  const vfloat32m4_t scale = __riscv_vle32_v_f32m4(multiplier, lanes);
  const vfloat32m4_t scaled =
      __riscv_vfmul_vv_f32m4(__riscv_vfcvt_f_x_v_f32m4(sums, lanes), scale, lanes);
  vint32m4_t whole = __riscv_vfcvt_x_f_v_i32m4_rm(scaled, __RISCV_FRM_RNE, lanes);
  whole = __riscv_vmin_vx_i32m4(__riscv_vmax_vx_i32m4(whole, 0, lanes), maximum, lanes);
  __riscv_vse8_v_i8m1((int8_t *)out,
                      __riscv_vncvt_x_x_w_i8m1(__riscv_vncvt_x_x_w_i16m2(whole, lanes), lanes),
                      lanes);
}

/* The same of two registers. */
static inline void requantise_2(vint32m2_t sums, vfloat32m2_t scale, int32_t maximum, uint8_t *out,
                                size_t lanes) {
  const vfloat32m2_t scaled =
      __riscv_vfmul_vv_f32m2(__riscv_vfcvt_f_x_v_f32m2(sums, lanes), scale, lanes);
  vint32m2_t whole = __riscv_vfcvt_x_f_v_i32m2_rm(scaled, __RISCV_FRM_RNE, lanes);
  whole = __riscv_vmin_vx_i32m2(__riscv_vmax_vx_i32m2(whole, 0, lanes), maximum, lanes);
  __riscv_vse8_v_i8mf2((int8_t *)out,
                       __riscv_vncvt_x_x_w_i8mf2(__riscv_vncvt_x_x_w_i16m1(whole, lanes), lanes),
                       lanes);
}

/* Eight pixels, `step` bytes apart, of as many channels out as fit; those behind the last pixel are
 * it once more.
 */
static void eight_pixels(const lucid_layer *layer, int first, size_t lanes, const uint8_t *in,
                         int channels, int pixels, uint8_t *out) {
  const int8_t *weights = layer->weights + first * channels;
  const vint32m2_t bias = __riscv_vle32_v_i32m2(layer->bias + first, lanes);
  const vfloat32m2_t scale = __riscv_vle32_v_f32m2(layer->multiplier + first, lanes);
  vint32m2_t s0 = bias, s1 = bias, s2 = bias, s3 = bias, s4 = bias, s5 = bias, s6 = bias, s7 = bias;
  const uint8_t *pixel[8];
  int i, k;
  for (k = 0; k < 8; ++k) pixel[k] = in + (k < pixels ? k : pixels - 1) * channels;
  for (i = 0; i < channels; ++i) {
    const vint16m1_t w = __riscv_vsext_vf2_i16m1(
        __riscv_vlse8_v_i8mf2(weights + i, channels, lanes), lanes);
    s0 = __riscv_vwmacc_vx_i32m2(s0, pixel[0][i], w, lanes);
    s1 = __riscv_vwmacc_vx_i32m2(s1, pixel[1][i], w, lanes);
    s2 = __riscv_vwmacc_vx_i32m2(s2, pixel[2][i], w, lanes);
    s3 = __riscv_vwmacc_vx_i32m2(s3, pixel[3][i], w, lanes);
    s4 = __riscv_vwmacc_vx_i32m2(s4, pixel[4][i], w, lanes);
    s5 = __riscv_vwmacc_vx_i32m2(s5, pixel[5][i], w, lanes);
    s6 = __riscv_vwmacc_vx_i32m2(s6, pixel[6][i], w, lanes);
    s7 = __riscv_vwmacc_vx_i32m2(s7, pixel[7][i], w, lanes);
  }
#define PUT(k, sums) \
  if (k < pixels) {  \
    requantise_2(sums, scale, layer->maximum, out + k * layer->out_channels + first, lanes); \
  }
  PUT(0, s0)
  PUT(1, s1)
  PUT(2, s2)
  PUT(3, s3)
  PUT(4, s4)
  PUT(5, s5)
  PUT(6, s6)
  PUT(7, s7)
#undef PUT
}

/* The product of pixels with weights[out_channels][channels]. */
static void multiply(const lucid_layer *layer, const uint8_t *in, int channels, int pixels,
                     uint8_t *out) {
  const int width = layer->out_channels;
  int o, k;
  size_t lanes;
  for (o = 0; o < width; o += (int)lanes) {
    lanes = __riscv_vsetvl_e32m2((size_t)(width - o));
    for (k = 0; k < pixels; k += 8) {
      const int count = pixels - k < 8 ? pixels - k : 8;
      eight_pixels(layer, o, lanes, in + k * channels, channels, count, out + k * width);
    }
  }
}

void lucid_pointwise(const lucid_layer *layer, const void *between, int pixels, void *work,
                     uint8_t *out) {
  (void)work;
  multiply(layer, between, layer->in_channels, pixels, out);
}

/* The first layer: its windows become the pixels of a pointwise layer. */
void lucid_stem_row(const lucid_layer *layer, const uint8_t *const rows[3], const uint8_t *outside,
                    void *work, uint8_t *out) {
  const int channels = layer->in_channels, width = layer->out_width;
  const size_t bytes = (size_t)channels;
  int begin, x, tap;
  for (begin = 0; begin < width; begin += CHUNK) {
    const int pixels = width - begin < CHUNK ? width - begin : CHUNK;
    uint8_t *window = work;
    for (x = begin; x < begin + pixels; ++x) {
      for (tap = 0; tap < TAPS; ++tap, window += bytes) {
        const uint8_t *row = rows[tap / WINDOW];
        const int column = x * layer->stride - layer->left + tap % WINDOW;
        const int inside = row != NULL && column >= 0 && column < layer->in_width;
        memcpy(window, inside ? row + column * channels : outside, bytes);
      }
    }
    multiply(layer, work, TAPS * channels, pixels, out + begin * layer->out_channels);
  }
}

/* A row of some channels. */
static void depthwise_row(const lucid_layer *layer, const uint8_t *const *rows, int first,
                          size_t lanes, uint8_t *out) {
  const int channels = layer->in_channels;
  const int8_t *weights = layer->weights + TAPS * first;
  const vint32m4_t bias = __riscv_vle32_v_i32m4(layer->bias + first, lanes);
  /* The compiler keeps what an array of vectors, which C does not have, would hold. */
  const vint8m1_t w0 = __riscv_vlse8_v_i8m1(weights, TAPS, lanes);
  const vint8m1_t w1 = __riscv_vlse8_v_i8m1(weights + 1, TAPS, lanes);
  const vint8m1_t w2 = __riscv_vlse8_v_i8m1(weights + 2, TAPS, lanes);
  const vint8m1_t w3 = __riscv_vlse8_v_i8m1(weights + 3, TAPS, lanes);
  const vint8m1_t w4 = __riscv_vlse8_v_i8m1(weights + 4, TAPS, lanes);
  const vint8m1_t w5 = __riscv_vlse8_v_i8m1(weights + 5, TAPS, lanes);
  const vint8m1_t w6 = __riscv_vlse8_v_i8m1(weights + 6, TAPS, lanes);
  const vint8m1_t w7 = __riscv_vlse8_v_i8m1(weights + 7, TAPS, lanes);
  const vint8m1_t w8 = __riscv_vlse8_v_i8m1(weights + 8, TAPS, lanes);
  int x;
  for (x = 0; x < layer->out_width; ++x, out += channels) {
    const int left = x * layer->stride - layer->left;
    vint32m4_t sums = bias;
#define TAP(row, column, weight)                                                            \
  if (rows[row] != NULL && left + column >= 0 && left + column < layer->in_width) {         \
    const vuint8m1_t seen =                                                                 \
        __riscv_vle8_v_u8m1(rows[row] + (left + column) * channels + first, lanes);         \
    sums = __riscv_vwadd_wv_i32m4(sums, __riscv_vwmulsu_vv_i16m2(weight, seen, lanes), lanes); \
  }
    TAP(0, 0, w0)
    TAP(0, 1, w1)
    TAP(0, 2, w2)
    TAP(1, 0, w3)
    TAP(1, 1, w4)
    TAP(1, 2, w5)
    TAP(2, 0, w6)
    TAP(2, 1, w7)
    TAP(2, 2, w8)
#undef TAP
    requantise_4(sums, layer->multiplier + first, layer->maximum, out + first, lanes);
  }
}

void lucid_depthwise(const lucid_layer *layer, const uint8_t *const *rows, int count, void *work,
                     void *between) {
  const int channels = layer->in_channels;
  int c, y;
  size_t lanes;
  (void)work;
  for (c = 0; c < channels; c += (int)lanes) {
    lanes = __riscv_vsetvl_e32m4((size_t)(channels - c));
    for (y = 0; y < count; ++y) {
      depthwise_row(layer, rows + y * layer->stride, c, lanes,
                    (uint8_t *)between + y * layer->out_width * channels);
    }
  }
}

#endif
