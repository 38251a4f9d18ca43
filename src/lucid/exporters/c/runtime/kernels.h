/* The kernels of a MobileNet in int8, a few rows of an image at a time, in C99.
 *
 * Layout of all activations: pixels from left to right, the channels of a pixel side by side. An
 * accumulator is bias + sum of weight * value in int32, which can't overflow in any order (proven
 * when the network is built). It becomes a byte like so, each step rounded as IEEE 754 says:
 * convert to float, times the channel's multiplier, round half to even, clamp to 0 .. maximum.
 *
 * The compiler's own macros choose among the files kernels_*.c; all give the same bytes. Those for
 * Cortex-M are in the assembly of GCC and clang, for little-endian cores; all others take the
 * portable ones. Define LUCID_PORTABLE to have these everywhere.
 */
#ifndef LUCID_KERNELS_H
#define LUCID_KERNELS_H

#include <float.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__)
#error "lucid: -ffast-math, also in part, changes the results; compile this file without it"
#endif
/* 16 says that half precision is computed as such (ISO/IEC TS 18661-3), and float as float. */
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "lucid: float must be computed as float; on 32-bit x86 compile with -msse2 -mfpmath=sse"
#endif

#if defined(LUCID_PORTABLE) || defined(__ARM_BIG_ENDIAN)
#elif defined(__GNUC__) && defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define LUCID_MVE 1
#elif defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__ARM_FP) && \
    defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define LUCID_DSP 1
#elif defined(__riscv_v_intrinsic) && __riscv_v_intrinsic >= 12000
#define LUCID_RVV 1
#endif

/* Word-aligned arrays, where compilers know how. */
#if defined(__GNUC__)
#define LUCID_ALIGNED __attribute__((aligned(4)))
#else
#define LUCID_ALIGNED
#endif

/* Which kernels an instruction set has of its own; kernels_portable.c has the others. */
#define LUCID_ROUND_UP(value, multiple) (((value) + (multiple)-1) / (multiple) * (multiple))
#define LUCID_AT_MOST(value, most) ((value) < (most) ? (value) : (most))
#define LUCID_AT_LEAST(value, least) ((value) > (least) ? (value) : (least))
#if defined(LUCID_MVE)
#define LUCID_HAS_STEM
#define LUCID_HAS_DEPTHWISE
#define LUCID_HAS_POINTWISE
#define LUCID_STEM_OFFSET 128
#define LUCID_DEPTHWISE_OFFSET 128
#define LUCID_POINTWISE_OFFSET 128
#define LUCID_DENSE_OFFSET 128
#define LUCID_BETWEEN_BYTES(pixels, channels) ((pixels) * (channels) + 16)
#define LUCID_STEM_WORK_BYTES(out_width, in_channels) \
  (LUCID_AT_MOST(out_width, 36) * 9 * (in_channels) + 16)
#elif defined(LUCID_DSP)
#define LUCID_HAS_STEM
#define LUCID_HAS_DEPTHWISE
#define LUCID_HAS_POINTWISE
#define LUCID_BETWEEN_BYTES(pixels, channels) \
  (2 * LUCID_ROUND_UP(pixels, 3) * LUCID_ROUND_UP(channels, 4))
#define LUCID_STEM_WORK_BYTES(out_width, in_channels) \
  ((2 * LUCID_AT_MOST(LUCID_ROUND_UP(out_width, 3), 36) + 4) * LUCID_ROUND_UP(9 * (in_channels), 4))
#define LUCID_POINTWISE_WORK_BYTES(in_channels) (4 * LUCID_ROUND_UP(in_channels, 4))
#endif
#ifdef LUCID_RVV
#define LUCID_HAS_STEM
#define LUCID_HAS_DEPTHWISE
#define LUCID_HAS_POINTWISE
#define LUCID_STEM_WORK_BYTES(out_width, in_channels) \
  (LUCID_AT_MOST(out_width, 36) * 9 * (in_channels))
#endif
#if defined(LUCID_MVE) || defined(LUCID_DSP)
#define LUCID_HAS_POOL
#define LUCID_HAS_DENSE
#define LUCID_DEPTHWISE_WORK_BYTES(in_width) \
  LUCID_AT_LEAST(32 * ((in_width) + 8), LUCID_AT_MOST(64 * ((in_width) + 10), 1024))
#endif

/* A set of kernels may multiply weights by (value - offset); the biases make up for it. */
#ifndef LUCID_STEM_OFFSET
#define LUCID_STEM_OFFSET 0
#endif
#ifndef LUCID_DEPTHWISE_OFFSET
#define LUCID_DEPTHWISE_OFFSET 0
#endif
#ifndef LUCID_POINTWISE_OFFSET
#define LUCID_POINTWISE_OFFSET 0
#endif
#ifndef LUCID_DENSE_OFFSET
#define LUCID_DENSE_OFFSET 0
#endif

/* Bytes of what a depthwise layer gives to the pointwise one behind it, in the kernels' own form. */
#ifndef LUCID_BETWEEN_BYTES
#define LUCID_BETWEEN_BYTES(pixels, channels) ((pixels) * (channels))
#endif

/* Bytes that a kernel needs to work with, 4-byte aligned; none of it lasts beyond a call. */
#ifndef LUCID_STEM_WORK_BYTES
#define LUCID_STEM_WORK_BYTES(out_width, in_channels) (18 * (in_channels))
#endif
#ifndef LUCID_DEPTHWISE_WORK_BYTES
#define LUCID_DEPTHWISE_WORK_BYTES(in_width) 0
#endif
#ifndef LUCID_POINTWISE_WORK_BYTES
#define LUCID_POINTWISE_WORK_BYTES(in_channels) 0
#endif

/* Rows that a depthwise layer computes in one call, at most. */
#define LUCID_MAX_ROWS 12

#ifdef __cplusplus
extern "C" {
#endif

/* One layer, in flash. */
typedef struct {
  const int8_t *weights;   /* in the order that each kernel names */
  const int32_t *bias;     /* one a channel out, with LUCID_*_OFFSET * sum of its weights added */
  const float *multiplier; /* one a channel out; the pool has one in all */
  uint16_t in_channels;
  uint16_t out_channels;
  uint16_t in_height; /* pixels */
  uint16_t in_width;
  uint16_t out_height;
  uint16_t out_width;
  uint8_t stride;  /* of the window, 1 or 2 */
  uint8_t top;     /* rows above the image that the first window sees, 0 or 1 */
  uint8_t left;    /* likewise columns */
  uint8_t maximum; /* of an output byte */
} lucid_layer;

/* A row of the 3x3 convolution of the image. weights[out_channels][3][3][in_channels].
 *
 * rows: the image's rows under the window, in_width * in_channels bytes each; NULL is outside.
 * outside: in_channels bytes that stand outside the image.
 * work: LUCID_STEM_WORK_BYTES.
 * out: out_width * out_channels bytes.
 */
void lucid_stem_row(const lucid_layer *layer, const uint8_t *const rows[3], const uint8_t *outside,
                    void *work, uint8_t *out);

/* Rows of the 3x3 convolution of each channel by itself. weights[channels][3][3].
 *
 * rows: the (count - 1) * stride + 3 rows under the windows of `count` rows of the output, of
 *     in_width * channels bytes; NULL is outside, where there are zeros.
 * count: 1 to LUCID_MAX_ROWS.
 * work: LUCID_DEPTHWISE_WORK_BYTES.
 * between: count * out_width pixels, LUCID_BETWEEN_BYTES.
 */
void lucid_depthwise(const lucid_layer *layer, const uint8_t *const *rows, int count, void *work,
                     void *between);

/* The 1x1 convolution of some pixels. weights[out_channels][in_channels].
 *
 * between: what lucid_depthwise gave, `pixels` of them.
 * work: LUCID_POINTWISE_WORK_BYTES.
 * out: pixels * out_channels bytes.
 */
void lucid_pointwise(const lucid_layer *layer, const void *between, int pixels, void *work,
                     uint8_t *out);

/* The mean over all pixels: in_height * in_width * in_channels bytes -> in_channels bytes. */
void lucid_pool(const lucid_layer *layer, const uint8_t *in, uint8_t *out);

/* The classifier: in_channels bytes -> out_channels logits, not rounded. weights[out][in]. */
void lucid_dense(const lucid_layer *layer, const uint8_t *in, float *logits);

#ifdef __cplusplus
}
#endif

#endif
