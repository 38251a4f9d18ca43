/* Kernels for Cortex-M4, M7 and M33 with the DSP extension and an FPU: SMLAD multiplies two pairs
 * of 16-bit values and adds the products in one instruction.
 *
 * Between a depthwise layer and its pointwise one values are 16 bits wide, so that nobody unpacks
 * them again for each output. They lie in tiles of three pixels; a tile has six values for each
 * pair of channels, those of each pixel side by side. Channels pair up as UXTB16 and SXTB16 unpack
 * them from four bytes: 0 with 2, 1 with 3. Channels are rounded up to a multiple of four; what
 * stands there is multiplied by zero.
 *
 * The innermost loops need every register that there is, which no compiler gives away; they are in
 * assembly.
 */
#include "kernels.h"

#ifdef LUCID_DSP

#include <stddef.h>
#include <string.h>

#define TILE 3
#define WINDOW 3
#define CHUNK 36 /* pixels of a row of the first layer that are computed at once */

/* A function that is nothing but the assembly in it; its arguments are where calls put them. */
#ifdef __clang__
#define ASSEMBLY __attribute__((naked, noinline)) static void
#else /* GCC would conclude that it leaves all registers as they are */
#define ASSEMBLY __attribute__((naked, noipa)) static void
#endif
#define ARGUMENT __attribute__((unused))

static inline int at_least_fours(int channels) { return (channels + 3) & ~3; }

/* The low halves of a and b, side by side. */
static inline uint32_t low_halves(uint32_t a, uint32_t b) {
  uint32_t pair;
  __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}

static inline uint32_t high_halves(uint32_t a, uint32_t b) {
  uint32_t pair;
  __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(pair) : "r"(b), "r"(a));
  return pair;
}

/* Bytes 0 and 2, or 1 and 3, as 16-bit values. */
#define UNPACK(NAME, INSTRUCTION)                            \
  static inline uint32_t NAME(uint32_t bytes) {              \
    uint32_t pair;                                           \
    __asm__(INSTRUCTION : "=r"(pair) : "r"(bytes));          \
    return pair;                                             \
  }
UNPACK(unsigned_even, "uxtb16 %0, %1")
UNPACK(unsigned_odd, "uxtb16 %0, %1, ror #8")
UNPACK(signed_even, "sxtb16 %0, %1")
UNPACK(signed_odd, "sxtb16 %0, %1, ror #8")

/* 1 to 4 bytes, and zeros above them. */
static inline uint32_t load(const void *bytes, int count) {
  uint32_t word = 0;
  if (count == 4) {
    memcpy(&word, bytes, 4);
  } else {
    const uint8_t *byte = bytes;
    int k;
    for (k = 0; k < count; ++k) word |= (uint32_t)byte[k] << 8 * k;
  }
  return word;
}

static inline uint32_t load_two(const uint8_t *bytes) {
  uint16_t half;
  memcpy(&half, bytes, 2);
  return half;
}

/* The assembly clamps to 255; here is what a lower maximum needs. */
static void limit_bytes(uint8_t *values, int count, uint8_t maximum) {
  for (; count > 0; --count, ++values) {
    if (*values > maximum) *values = maximum;
  }
}

static void limit_pairs(uint32_t *pairs, int count, uint8_t maximum) {
  const uint32_t most = (uint32_t)maximum << 16 | maximum;
  for (; count > 0; --count, ++pairs) {
    uint32_t least;
    __asm__("usub16 %0, %1, %2\n sel %0, %2, %1" : "=&r"(least) : "r"(*pairs), "r"(most) : "cc");
    *pairs = least;
  }
}

/* ---- Pointwise ---- */

/* What tiles of pixels and two channels out share. The assembly below knows the offsets. */
typedef struct {
  const uint32_t *weights; /*  0: for each pair of channels in, a pair of either channel out */
  uint32_t tile_bytes;     /*  4 */
  uint32_t skipped;        /*  8: rounds of the first of 16 at a time that are left out */
  uint32_t pixel_bytes;    /* 12: from a pixel out to the next */
  int32_t bias[2];         /* 16 */
  float multiplier[2];     /* 24 */
} pair_task;

/* Two channels of whole tiles, from out to end, where the tile behind them would stand. */
ASSEMBLY two_channels(ARGUMENT const void *tiles, ARGUMENT uint8_t *out,
                      ARGUMENT const uint8_t *end, ARGUMENT const pair_task *task) {
#define ROUND                         \
  "ldmia.w r3!, {r0, r1, r2}      \n" \
  "ldrd    r10, r11, [r12], #8    \n" \
  "smlad   r4, r0, r10, r4        \n" \
  "smlad   r5, r0, r11, r5        \n" \
  "smlad   r6, r1, r10, r6        \n" \
  "smlad   r7, r1, r11, r7        \n" \
  "smlad   r8, r2, r10, r8        \n" \
  "smlad   r9, r2, r11, r9        \n"
  __asm__ volatile(
      ".syntax unified                \n"
      "push    {r4-r11, lr}           \n"
      "vldr    s8, [r3, #16]          \n"
      "vldr    s9, [r3, #20]          \n"
      "vldr    s10, [r3, #24]         \n"
      "vldr    s11, [r3, #28]         \n"
      "ldmia   r3, {r7, r8, r9, r10}  \n"
      "adr.w   r6, 2f                 \n"
      "add     r9, r6, r9, lsl #5     \n" /* a round is 32 bytes of code */
      "orr     r9, r9, #1             \n"
      "mov     r4, r1                 \n"
      "mov     r5, r10                \n"
      "mov     r6, r2                 \n"
      "push    {r4-r9}                \n" /* out, pixel_bytes, end, weights, tile_bytes, entry */
      "mov     r3, r0                 \n"
      "1:                             \n"
      "vmov    r4, r5, s8, s9         \n"
      "vmov    r6, r7, s8, s9         \n"
      "vmov    r8, r9, s8, s9         \n"
      "ldrd    r12, lr, [sp, #12]     \n"
      "add     lr, lr, r3             \n"
      "ldr     pc, [sp, #20]          \n"
      ".balign 4                      \n"
      "2:                             \n"
      ".rept   16                     \n"
      ROUND
      ".endr                          \n"
      "cmp     r3, lr                 \n"
      "bne     2b                     \n"
      "vmov    s0, s1, r4, r5         \n"
      "vmov    s2, s3, r6, r7         \n"
      "vmov    s4, s5, r8, r9         \n"
      "vcvt.f32.s32 s0, s0            \n"
      "vcvt.f32.s32 s1, s1            \n"
      "vcvt.f32.s32 s2, s2            \n"
      "vcvt.f32.s32 s3, s3            \n"
      "vcvt.f32.s32 s4, s4            \n"
      "vcvt.f32.s32 s5, s5            \n"
      "vmul.f32 s0, s0, s10           \n"
      "vmul.f32 s1, s1, s11           \n"
      "vmul.f32 s2, s2, s10           \n"
      "vmul.f32 s3, s3, s11           \n"
      "vmul.f32 s4, s4, s10           \n"
      "vmul.f32 s5, s5, s11           \n"
      "vcvtr.s32.f32 s0, s0           \n"
      "vcvtr.s32.f32 s1, s1           \n"
      "vcvtr.s32.f32 s2, s2           \n"
      "vcvtr.s32.f32 s3, s3           \n"
      "vcvtr.s32.f32 s4, s4           \n"
      "vcvtr.s32.f32 s5, s5           \n"
      "vmov    r4, r5, s0, s1         \n"
      "vmov    r6, r7, s2, s3         \n"
      "vmov    r8, r9, s4, s5         \n"
      "usat    r4, #8, r4             \n"
      "usat    r5, #8, r5             \n"
      "usat    r6, #8, r6             \n"
      "usat    r7, #8, r7             \n"
      "usat    r8, #8, r8             \n"
      "usat    r9, #8, r9             \n"
      "orr     r4, r4, r5, lsl #8     \n"
      "orr     r6, r6, r7, lsl #8     \n"
      "orr     r8, r8, r9, lsl #8     \n"
      "ldmia   sp, {r0, r1, r2}       \n"
      "strh    r4, [r0]               \n"
      "strh    r6, [r0, r1]           \n"
      "strh    r8, [r0, r1, lsl #1]   \n"
      "add     r1, r1, r1, lsl #1     \n"
      "add     r0, r0, r1             \n"
      "str     r0, [sp]               \n"
      "cmp     r0, r2                 \n"
      "bne     1b                     \n"
      "add     sp, sp, #24            \n"
      "pop     {r4-r11, pc}           \n");
#undef ROUND
}

/* Weights of two channels out for `channels` channels in, rounded up to fours with zeros. */
static void unpack_weights(const int8_t *first, const int8_t *second, int channels,
                           uint32_t *unpacked) {
  int c;
  for (c = 0; c + 4 <= channels; c += 4) {
    const uint32_t a = load(first + c, 4), b = load(second + c, 4);
    unpacked[0] = signed_even(a);
    unpacked[1] = signed_even(b);
    unpacked[2] = signed_odd(a);
    unpacked[3] = signed_odd(b);
    unpacked += 4;
  }
  if (c < channels) {
    const uint32_t a = load(first + c, channels - c), b = load(second + c, channels - c);
    unpacked[0] = signed_even(a);
    unpacked[1] = signed_even(b);
    unpacked[2] = signed_odd(a);
    unpacked[3] = signed_odd(b);
  }
}

/* The product of tiles with weights[out_channels][channels]. out: pixels * out_channels bytes. */
static void multiply(const lucid_layer *layer, const void *tiles, int channels, int pixels,
                     uint32_t *work, uint8_t *out) {
  const int width = layer->out_channels, rounds = at_least_fours(channels) / 2;
  const int whole = pixels / TILE;
  uint8_t last[2 * TILE];
  pair_task task;
  int o, k;
  task.weights = work;
  task.tile_bytes = (uint32_t)rounds * TILE * 4;
  task.skipped = (uint32_t)-rounds & 15u;
  /* Two channels at a time; if they are odd, the last but one is computed twice. */
  for (o = 0; o < width; o += 2) {
    const int first = width == 1 ? 0 : o < width - 1 ? o : width - 2;
    const int second = width == 1 ? 0 : first + 1;
    uint8_t *place = out + first;
    unpack_weights(layer->weights + first * channels, layer->weights + second * channels, channels,
                   work);
    task.bias[0] = layer->bias[first];
    task.bias[1] = layer->bias[second];
    task.multiplier[0] = layer->multiplier[first];
    task.multiplier[1] = layer->multiplier[second];
    if (whole > 0 && width > 1) {
      task.pixel_bytes = (uint32_t)width;
      two_channels(tiles, place, place + whole * TILE * width, &task);
    }
    for (k = width > 1 ? whole : 0; k * TILE < pixels; ++k) {
      int pixel;
      task.pixel_bytes = 2;
      two_channels((const uint8_t *)tiles + (uint32_t)k * task.tile_bytes, last,
                   last + 2 * TILE, &task);
      for (pixel = 0; pixel < TILE && k * TILE + pixel < pixels; ++pixel) {
        uint8_t *to = place + (k * TILE + pixel) * width;
        to[0] = last[2 * pixel];
        to[second - first] = last[2 * pixel + second - first];
      }
    }
  }
  if (layer->maximum < 255) limit_bytes(out, pixels * width, layer->maximum);
}

void lucid_pointwise(const lucid_layer *layer, const void *between, int pixels, void *work,
                     uint8_t *out) {
  multiply(layer, between, layer->in_channels, pixels, work, out);
}

/* ---- The first layer: its windows become the pixels of a pointwise layer ---- */

/* A pixel's next four values to their places in a tile. */
static inline uint32_t *put_four(uint32_t *pairs, uint32_t bytes) {
  pairs[0] = unsigned_even(bytes);
  pairs[TILE] = unsigned_odd(bytes);
  return pairs + 2 * TILE;
}

/* A window of three channels, which begins at rows[k] + at, to the place of a pixel in a tile. */
static inline void unpack_window(const uint8_t *const rows[3], int at, uint32_t *pairs) {
  const uint8_t *const a = rows[0] + at, *const b = rows[1] + at, *const c = rows[2] + at;
  pairs = put_four(pairs, load(a, 4));
  pairs = put_four(pairs, load(a + 4, 4));
  pairs = put_four(pairs, a[8] | load(b, 4) << 8);
  pairs = put_four(pairs, load(b + 3, 4));
  pairs = put_four(pairs, load_two(b + 7) | load_two(c) << 16);
  pairs = put_four(pairs, load(c + 2, 4));
  put_four(pairs, load_two(c + 6) | (uint32_t)c[8] << 16);
}

/* A window of any channels, which begins at any column, likewise. */
static void copy_window(const lucid_layer *layer, const uint8_t *const rows[3],
                        const uint8_t *outside, int column, uint32_t *pairs) {
  const int channels = layer->in_channels, count = at_least_fours(9 * channels);
  uint32_t four = 0;
  int k, x = column, y = 0, i = 0;
  for (k = 0; k < count; ++k) {
    if (y < WINDOW) {
      const int inside = rows[y] != NULL && x >= 0 && x < layer->in_width;
      four |= (uint32_t)(inside ? rows[y][x * channels + i] : outside[i]) << k % 4 * 8;
      if (++i == channels) {
        i = 0;
        if (++x == column + WINDOW) {
          x = column;
          ++y;
        }
      }
    }
    if (k % 4 == 3) {
      pairs = put_four(pairs, four);
      four = 0;
    }
  }
}

void lucid_stem_row(const lucid_layer *layer, const uint8_t *const rows[3], const uint8_t *outside,
                    void *work, uint8_t *out) {
  const int channels = 9 * layer->in_channels, width = layer->out_width;
  const int tile_pairs = at_least_fours(channels) / 2 * TILE;
  const int most = width < CHUNK ? (width + TILE - 1) / TILE : CHUNK / TILE; /* tiles at once */
  const int whole =
      layer->in_channels == 3 && rows[0] != NULL && rows[1] != NULL && rows[2] != NULL;
  uint32_t *const tiles = work;
  int begin, x;
  for (begin = 0; begin < width; begin += CHUNK) {
    const int pixels = width - begin < CHUNK ? width - begin : CHUNK;
    uint32_t *pixel = tiles;
    int place = 0; /* in a tile */
    for (x = begin; x < begin + pixels; ++x) {
      const int column = x * layer->stride - layer->left;
      if (whole && column >= 0 && column + WINDOW <= layer->in_width) {
        unpack_window(rows, 3 * column, pixel);
      } else {
        copy_window(layer, rows, outside, column, pixel);
      }
      ++pixel;
      if (++place == TILE) {
        place = 0;
        pixel += tile_pairs - TILE;
      }
    }
    multiply(layer, tiles, channels, pixels, tiles + most * tile_pairs,
             out + begin * layer->out_channels);
  }
}

/* ---- Depthwise: four channels at a time, each laid out by itself as pairs of columns ---- */

#define GROUP 4

/* Six pairs of weights of a channel, of either row (0, 1) and (1, 2), and the rest. The assembly
 * below knows the offsets.
 */
typedef struct {
  uint32_t weights[2 * WINDOW]; /*  0 */
  int32_t bias;                 /* 24 */
  float multiplier;             /* 28 */
  uint32_t place;               /* 32: of its first output, in bytes behind that of channel 0 */
} channel_task;

/* Computes a row of each of some channels, outputs two by two, left and right.
 *
 * rows: three rows of pairs of columns of the first channel, where the first window begins; those
 *     of the next one are right behind what is read.
 * places: where each output of channel 0 goes, in bytes behind `out`; if they are odd, the last
 *     one twice.
 */
#define DEPTHWISE(NAME, FIRST, SECOND, THIRD)                                                   \
  ASSEMBLY NAME(ARGUMENT const uint32_t *row0, ARGUMENT const uint32_t *row1,                   \
                ARGUMENT const uint32_t *row2, ARGUMENT const channel_task *tasks,              \
                ARGUMENT const uint32_t *places, ARGUMENT const uint32_t *end,                  \
                ARGUMENT void *out, ARGUMENT int count) {                                       \
    __asm__ volatile(                                                                           \
        ".syntax unified                \n"                                                     \
        "push    {r4-r11, lr}           \n"                                                     \
        "sub     sp, sp, #8             \n" /* of the channel: 0 the next task, 4 out */        \
        "2:                             \n"                                                     \
        "vldr    s8, [r3, #24]          \n"                                                     \
        "vldr    s9, [r3, #24]          \n"                                                     \
        "vldr    s10, [r3, #28]         \n"                                                     \
        "ldr     r10, [r3, #32]         \n"                                                     \
        "ldr     r11, [sp, #52]         \n"                                                     \
        "add     r11, r11, r10          \n"                                                     \
        "add     r10, r3, #36           \n"                                                     \
        "ldmia   r3, {r4-r9}            \n"                                                     \
        "strd    r10, r11, [sp]         \n"                                                     \
        "ldr     r3, [sp, #44]          \n"                                                     \
        "1:                             \n"                                                     \
        "vmov    r12, lr, s8, s9        \n" /* left and right */                                \
        FIRST SECOND THIRD                                                                      \
        "vmov    s0, s1, r12, lr        \n"                                                     \
        "vcvt.f32.s32 s0, s0            \n"                                                     \
        "vcvt.f32.s32 s1, s1            \n"                                                     \
        "vmul.f32 s0, s0, s10           \n"                                                     \
        "vmul.f32 s1, s1, s10           \n"                                                     \
        "vcvtr.s32.f32 s0, s0           \n"                                                     \
        "vcvtr.s32.f32 s1, s1           \n"                                                     \
        "vmov    r12, lr, s0, s1        \n"                                                     \
        "usat    r12, #8, r12           \n"                                                     \
        "usat    lr, #8, lr             \n"                                                     \
        "ldr     r10, [sp, #4]          \n"                                                     \
        "ldr     r11, [r3, #4]          \n"                                                     \
        "strh    lr, [r10, r11]         \n"                                                     \
        "ldr     r11, [r3], #8          \n"                                                     \
        "strh    r12, [r10, r11]        \n"                                                     \
        "ldr     r10, [sp, #48]         \n"                                                     \
        "cmp     r3, r10                \n"                                                     \
        "bne     1b                     \n"                                                     \
        "add     r0, r0, #4             \n"                                                     \
        "add     r1, r1, #4             \n"                                                     \
        "add     r2, r2, #4             \n"                                                     \
        "ldr     r10, [sp, #56]         \n"                                                     \
        "ldr     r3, [sp]               \n"                                                     \
        "subs    r10, r10, #1           \n"                                                     \
        "str     r10, [sp, #56]         \n"                                                     \
        "bne     2b                     \n"                                                     \
        "add     sp, sp, #8             \n"                                                     \
        "pop     {r4-r11, pc}           \n");                                                   \
  }

/* One row of three weights, in registers w01 and w12, for both outputs. */
#define STRIDE_1(row, w01, w12)           \
  "ldrd    r10, r11, [" row "], #4    \n" \
  "smlad   r12, r10, " w01 ", r12     \n" \
  "smlatb  lr, r10, " w01 ", lr       \n" \
  "smlabt  r12, r11, " w12 ", r12     \n" \
  "smlad   lr, r11, " w12 ", lr       \n"
#define STRIDE_2(row, w01, w12)           \
  "ldrd    r10, r11, [" row "], #8    \n" \
  "smlad   r12, r10, " w01 ", r12     \n" \
  "smlabt  r12, r11, " w12 ", r12     \n" \
  "smlad   lr, r11, " w01 ", lr       \n" \
  "ldr     r10, [" row "]             \n" \
  "smlabt  lr, r10, " w12 ", lr       \n"

DEPTHWISE(depthwise_1, STRIDE_1("r0", "r4", "r5"), STRIDE_1("r1", "r6", "r7"),
          STRIDE_1("r2", "r8", "r9"))
DEPTHWISE(depthwise_2, STRIDE_2("r0", "r4", "r5"), STRIDE_2("r1", "r6", "r7"),
          STRIDE_2("r2", "r8", "r9"))

/* What the pairs of columns of a row are made of, in this order. The assembly below knows the
 * offsets.
 */
typedef struct {
  int begins_outside; /*  0: whether there is a pair of nothing and a column */
  int whole;          /*  4: pairs of two columns */
  int ends_outside;   /*  8: whether there is a pair of a column and nothing */
  int empty;          /* 12: pairs that are zeros */
} row_pairs;

static row_pairs pairs_of_row(const lucid_layer *layer, int pairs) {
  row_pairs made;
  const int columns = layer->in_width - layer->left; /* behind a first pair that begins outside */
  made.begins_outside = layer->left;
  pairs -= layer->left;
  made.whole = columns / 2 < pairs ? columns / 2 : pairs;
  pairs -= made.whole;
  made.ends_outside = columns % 2 == 1 && pairs > 0;
  made.empty = pairs - made.ends_outside;
  return made;
}

/* Four channels of a row. step: from a column to the next; plane: from a pair of a channel to that
 * of the next channel; both in bytes.
 */
ASSEMBLY spread_row(ARGUMENT const uint8_t *row, ARGUMENT int step, ARGUMENT uint32_t *place,
                    ARGUMENT int plane, ARGUMENT const row_pairs *pairs) {
#define PUT                           \
  "pkhbt   r12, r8, r9, lsl #16   \n" \
  "pkhtb   r9, r9, r8, asr #16    \n" \
  "uxtb16  r8, r12                \n" \
  "str     r8, [r2], #4           \n" \
  "uxtb16  r12, r12, ror #8       \n" \
  "str     r12, [r5], #4          \n" \
  "uxtb16  r8, r9                 \n" \
  "str     r8, [r6], #4           \n" \
  "uxtb16  r9, r9, ror #8         \n" \
  "str     r9, [r7], #4           \n"
  __asm__ volatile(
      ".syntax unified                \n"
      "push    {r4-r11, lr}           \n"
      "ldr     r8, [sp, #36]          \n"
      "ldmia   r8, {r4, r10, r11, lr} \n"
      "add     r5, r2, r3             \n"
      "add     r6, r5, r3             \n"
      "add     r7, r6, r3             \n"
      "cbz     r4, 1f                 \n"
      "mov     r8, #0                 \n"
      "ldr     r9, [r0]               \n"
      "add     r0, r0, r1             \n"
      PUT
      "1:                             \n"
      "cmp     r10, #0                \n"
      "beq     3f                     \n"
      "2:                             \n"
      "ldr     r8, [r0]               \n"
      "ldr     r9, [r0, r1]           \n"
      "add     r0, r0, r1, lsl #1     \n"
      PUT
      "subs    r10, r10, #1           \n"
      "bne     2b                     \n"
      "3:                             \n"
      "cmp     r11, #0                \n"
      "beq     4f                     \n"
      "ldr     r8, [r0]               \n"
      "mov     r9, #0                 \n"
      PUT
      "4:                             \n"
      "cmp     lr, #0                 \n"
      "beq     6f                     \n"
      "mov     r8, #0                 \n"
      "5:                             \n"
      "str     r8, [r2], #4           \n"
      "str     r8, [r5], #4           \n"
      "str     r8, [r6], #4           \n"
      "str     r8, [r7], #4           \n"
      "subs    lr, lr, #1             \n"
      "bne     5b                     \n"
      "6:                             \n"
      "pop     {r4-r11, pc}           \n");
#undef PUT
}

/* The same of fewer channels. */
static void spread_few(const lucid_layer *layer, const uint8_t *row, int pairs, uint32_t *place) {
  const int channels = layer->in_channels;
  int k;
  for (k = 0; k < pairs; ++k) {
    const int left = 2 * k - layer->left, right = left + 1;
    const int inside = left >= 0 && left < layer->in_width;
    const uint32_t first = inside ? load(row + left * channels, channels) : 0;
    const uint32_t second = right < layer->in_width ? load(row + right * channels, channels) : 0;
    const uint32_t low = low_halves(first, second);
    place[k] = unsigned_even(low);
    place[k + pairs] = unsigned_odd(low);
    place[k + 2 * pairs] = unsigned_even(high_halves(first, second));
  }
}

static void read_channel(const lucid_layer *layer, int c, channel_task *task) {
  const int8_t *const weights = layer->weights + 9 * c;
  /* The rows of the window; no byte is read that is not a weight of the channel. */
  const uint32_t rows[WINDOW] = {load(weights, 4), load(weights + 3, 4), load(weights + 5, 4) >> 8};
  int k;
  for (k = 0; k < WINDOW; ++k) {
    const uint32_t even = signed_even(rows[k]), odd = signed_odd(rows[k]);
    task->weights[2 * k] = low_halves(even, odd);
    task->weights[2 * k + 1] = (odd & 0xffffu) | (even & 0xffff0000u);
  }
  task->bias = layer->bias[c];
  task->multiplier = layer->multiplier[c];
  task->place = (uint32_t)(c / 4 * 8 * TILE + c % 2 * 4 * TILE + c / 2 % 2 * 2);
}

/* Where the pixels of a row go, in bytes behind the tile of the first one; returns the end.
 * first: pixels before it in its tile.
 */
static uint32_t *find_places(int first, int width, uint32_t tile_bytes, uint32_t *places) {
  uint32_t tile = 0;
  int x;
  for (x = 0; x < width; ++x) {
    *places++ = tile + (uint32_t)first * 4;
    if (++first == TILE) {
      first = 0;
      tile += tile_bytes;
    }
  }
  if (width % 2 == 1) {
    *places = places[-1];
    ++places;
  }
  return places;
}

void lucid_depthwise(const lucid_layer *layer, const uint8_t *const *rows, int count, void *work,
                     void *between) {
  const int channels = layer->in_channels, width = layer->out_width, stride = layer->stride;
  const int pairs = (width + 1) / 2 * stride + 1, row_words = GROUP * pairs;
  const row_pairs made = pairs_of_row(layer, pairs), empty = {0, 0, 0, pairs};
  const int group = channels < GROUP ? channels : GROUP;
  const uint32_t tile_bytes = (uint32_t)at_least_fours(channels) / 2 * TILE * 4;
  channel_task *const tasks = work; /* GROUP */
  uint32_t *const spreads = (uint32_t *)(tasks + GROUP); /* WINDOW rows */
  uint32_t *const places = spreads + WINDOW * row_words;
  const uint32_t *end = NULL;
  int c, y, k;
  for (c = 0; c < channels; c += GROUP) {
    const int first = c + GROUP <= channels ? c : channels - group; /* some may be computed again */
    uint32_t *seen[WINDOW + 1] = {spreads, spreads + row_words, spreads + 2 * row_words, NULL};
    int ready = 0; /* rows that are laid out */
    for (k = 0; k < group; ++k) read_channel(layer, first + k, tasks + k);
    for (y = 0; y < count; ++y) {
      const int pixel = y * width;
      /* In all rows the same, if tiles do not go over their ends. */
      if (end == NULL || width % TILE != 0) {
        end = find_places(pixel % TILE, width, tile_bytes, places);
      }
      for (; ready < y * stride + WINDOW; ++ready) {
        const uint8_t *const row = rows[ready];
        seen[WINDOW] = seen[0];
        for (k = 0; k < WINDOW; ++k) seen[k] = seen[k + 1];
        if (row == NULL) {
          spread_row(row, 0, seen[WINDOW - 1], pairs * 4, &empty);
        } else if (group == GROUP) {
          spread_row(row + first, channels, seen[WINDOW - 1], pairs * 4, &made);
        } else {
          spread_few(layer, row, pairs, seen[WINDOW - 1]);
        }
      }
      (stride == 1 ? depthwise_1 : depthwise_2)(
          seen[0], seen[1], seen[2], tasks, places, end,
          (uint8_t *)between + (uint32_t)(pixel / TILE) * tile_bytes, group);
    }
  }
  if (layer->maximum < 255) {
    const int tiles = (count * width + TILE - 1) / TILE;
    limit_pairs(between, tiles * at_least_fours(channels) / 2 * TILE, layer->maximum);
  }
}

/* ---- The end ---- */

/* sum + a.low * b.low + a.high * b.high */
static inline int32_t add_products(uint32_t a, uint32_t b, int32_t sum) {
  __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
  return sum;
}

static inline uint8_t requantise(uint32_t sum, float multiplier) {
  float value = (float)(int32_t)sum;
  uint32_t byte;
  __asm__("vmul.f32 %0, %0, %1\n vcvtr.s32.f32 %0, %0" : "+t"(value) : "t"(multiplier));
  memcpy(&byte, &value, sizeof byte);
  __asm__("usat %0, #8, %0" : "+r"(byte));
  return (uint8_t)byte;
}

void lucid_pool(const lucid_layer *layer, const uint8_t *in, uint8_t *out) {
  const int channels = layer->in_channels, pixels = layer->in_height * layer->in_width;
  int c, k, i;
  for (c = 0; c < channels; c += GROUP) {
    const int group = channels < GROUP ? channels : GROUP;
    const int first = c + GROUP <= channels ? c : channels - group;
    const uint8_t *pixel = in + first;
    uint32_t sums[GROUP] = {0, 0, 0, 0};
    for (k = 0; k < pixels; k += 256) { /* as many as 16 bits hold the sums of */
      const uint8_t *const end = pixel + (pixels - k < 256 ? pixels - k : 256) * channels;
      uint32_t even = 0, odd = 0;
      for (; pixel < end; pixel += channels) {
        const uint32_t four = load(pixel, group);
        even += unsigned_even(four);
        odd += unsigned_odd(four);
      }
      sums[0] += even & 0xffffu;
      sums[1] += odd & 0xffffu;
      sums[2] += even >> 16;
      sums[3] += odd >> 16;
    }
    for (i = 0; i < group; ++i) out[first + i] = requantise(sums[i], layer->multiplier[0]);
  }
}

void lucid_dense(const lucid_layer *layer, const uint8_t *in, float *logits) {
  const int8_t *weights = layer->weights;
  const int channels = layer->in_channels;
  int o, i;
  for (o = 0; o < layer->out_channels; ++o, weights += channels) {
    int32_t sum = layer->bias[o];
    for (i = 0; i + 4 <= channels; i += 4) {
      const uint32_t weight = load(weights + i, 4), value = load(in + i, 4);
      sum = add_products(signed_even(weight), unsigned_even(value), sum);
      sum = add_products(signed_odd(weight), unsigned_odd(value), sum);
    }
    for (; i < channels; ++i) sum += weights[i] * in[i];
    logits[o] = (float)sum * layer->multiplier[o];
  }
}

#endif
