/* Kernels for Cortex-M55 and M85 with Helium (MVE): VMLADAV multiplies sixteen pairs of signed
 * bytes and adds the products in one instruction.
 *
 * Activations count as signed, value - 128, and the biases make up for it (LUCID_*_OFFSET). Maps
 * hold plain bytes; what stands between a depthwise layer and its pointwise one is signed, pixels
 * with their channels side by side, and sixteen bytes behind them may be read.
 *
 * The loops are in assembly: sums have to be in registers of even numbers, and loops without
 * overhead (LE, LETP) need LR, which compilers do not arrange.
 */
#include "kernels.h"

#ifdef LUCID_MVE

#include <arm_mve.h>
#include <stddef.h>

#define TILE 3
#define QUAD 4
#define WINDOW 3
#define CHUNK 36 /* pixels of a row of the first layer that are computed at once */

/* A function that is nothing but the assembly in it; its arguments are in r0 and r1. */
#ifdef __clang__
#define ASSEMBLY __attribute__((naked, noinline)) static void
#else /* GCC would conclude that it leaves all registers as they are */
#define ASSEMBLY __attribute__((naked, noipa)) static void
#endif
#define ARGUMENT __attribute__((unused))

/* Kept out of its callers, so that the stack is less deep. */
#define OUTLINED __attribute__((noinline))

static inline int smaller(int a, int b) { return a < b ? a : b; }

/* ---- Pointwise: four channels out at a time ---- */

/* The assembly below knows the offsets. */
typedef struct {
  const int8_t *in;        /*  0 */
  uint8_t *out;            /*  4 */
  uint32_t in_step;        /*  8: from a pixel to the next */
  uint32_t out_step;       /* 12 */
  uint32_t count;          /* 16: pixels, or tiles of three */
  uint32_t channels;       /* 20: in */
  const int8_t *weights;   /* 24: of the first channel */
  const float *multiplier; /* 28 */
  const int32_t *bias;     /* 32 */
  uint32_t maximum;        /* 36 */
  uint32_t weight_step;    /* 40: from a channel to the next */
} quad_task;

/* q4 is four sums without bias (q5), which become bytes at `out`; q6 is multipliers, q7 maxima. */
#define FINISH(sums, out)               \
  "vcvt.f32.s32 " sums ", " sums "  \n" \
  "vmul.f32 " sums ", " sums ", q6  \n" \
  "vcvtn.u32.f32 " sums ", " sums " \n" /* what is below 0 becomes 0 */ \
  "vmin.u32 " sums ", " sums ", q7  \n" \
  "vstrb.32 " sums ", [" out "]     \n"

/* Up to 16 channels in: the weights stay in registers. */
ASSEMBLY few_channels(ARGUMENT const quad_task *task) {
  __asm__ volatile(
      ".syntax unified                \n"
      "push    {r4-r8, lr}            \n"
      "vpush   {d8-d15}               \n"
      "ldrd    r2, r4, [r0, #20]      \n"
      "vctp.8  r2                     \n"
      "ldr     r2, [r0, #40]          \n"
      "vpst                           \n"
      "vldrbt.8 q0, [r4]              \n"
      "add     r4, r4, r2             \n"
      "vpst                           \n"
      "vldrbt.8 q1, [r4]              \n"
      "add     r4, r4, r2             \n"
      "vpst                           \n"
      "vldrbt.8 q2, [r4]              \n"
      "add     r4, r4, r2             \n"
      "vpst                           \n"
      "vldrbt.8 q3, [r4]              \n"
      "ldrd    r2, r4, [r0, #28]      \n"
      "vldrw.32 q6, [r2]              \n"
      "vldrw.32 q5, [r4]              \n"
      "ldr     r2, [r0, #36]          \n"
      "vdup.32 q7, r2                 \n"
      "ldrd    r1, r3, [r0]           \n"
      "ldrd    r5, r7, [r0, #8]       \n"
      "ldr     lr, [r0, #16]          \n"
      "dls     lr, lr                 \n"
      "1:                             \n"
      "vldrb.8 q4, [r1]               \n"
      "add     r1, r1, r5             \n"
      "vmladav.s8 r0, q0, q4          \n"
      "vmladav.s8 r2, q1, q4          \n"
      "vmladav.s8 r4, q2, q4          \n"
      "vmladav.s8 r6, q3, q4          \n"
      "vmov    q4[2], q4[0], r0, r4   \n"
      "vmov    q4[3], q4[1], r2, r6   \n"
      "vadd.i32 q4, q4, q5            \n"
      FINISH("q4", "r3")
      "add     r3, r3, r7             \n"
      "le      lr, 1b                 \n"
      "vpop    {d8-d15}               \n"
      "pop     {r4-r8, pc}            \n");
}

/* The sums of two channels for three pixels, in lanes of q3, q4, q5. */
#define TWO_CHANNELS(bias, weights, high, low)    \
  "ldrd    r0, r2, [sp, #" bias "]            \n" \
  "ldrd    r4, r6, [sp, #" bias "]            \n" \
  "ldrd    r8, r10, [sp, #" bias "]           \n" \
  "ldrd    r1, r3, [sp, #" weights "]         \n" \
  "mov     r5, r11                            \n" \
  "add     r7, r5, r12                        \n" \
  "add     r9, r7, r12                        \n" \
  "ldr     lr, [sp, #32]                      \n" \
  "dlstp.8 lr, lr                             \n" \
  "2:                                         \n" \
  "vldrb.8 q0, [r1], #16                      \n" \
  "vldrb.8 q1, [r3], #16                      \n" \
  "vldrb.8 q2, [r5], #16                      \n" \
  "vmladava.s8 r0, q0, q2                     \n" \
  "vmladava.s8 r2, q1, q2                     \n" \
  "vldrb.8 q2, [r7], #16                      \n" \
  "vmladava.s8 r4, q0, q2                     \n" \
  "vmladava.s8 r6, q1, q2                     \n" \
  "vldrb.8 q2, [r9], #16                      \n" \
  "vmladava.s8 r8, q0, q2                     \n" \
  "vmladava.s8 r10, q1, q2                    \n" \
  "letp    lr, 2b                             \n" \
  "vmov    q3[" high "], q3[" low "], r0, r2  \n" \
  "vmov    q4[" high "], q4[" low "], r4, r6  \n" \
  "vmov    q5[" high "], q5[" low "], r8, r10 \n"

/* Any number of channels in, tiles of three pixels. */
ASSEMBLY many_channels(ARGUMENT const quad_task *task) {
  __asm__ volatile(
      ".syntax unified                \n"
      "push    {r4-r11, lr}           \n"
      "vpush   {d8-d15}               \n"
      "sub     sp, sp, #52            \n"
      /* 0: bias of channels 0 and 2; 8: of 1 and 3; 16: weights of 0 and 2; 24: of 1 and 3;
       * 32: channels; 36: out; 40: out_step; 44: tiles */
      "ldr     r1, [r0, #32]          \n"
      "ldrd    r2, r3, [r1]           \n"
      "ldrd    r4, r5, [r1, #8]       \n"
      "strd    r2, r4, [sp]           \n"
      "strd    r3, r5, [sp, #8]       \n"
      "ldrd    r6, r1, [r0, #20]      \n"
      "ldr     r5, [r0, #40]          \n"
      "add     r2, r1, r5             \n"
      "add     r3, r2, r5             \n"
      "add     r4, r3, r5             \n"
      "strd    r1, r3, [sp, #16]      \n"
      "strd    r2, r4, [sp, #24]      \n"
      "ldrd    r11, r1, [r0]          \n"
      "strd    r6, r1, [sp, #32]      \n"
      "ldrd    r12, r2, [r0, #8]      \n"
      "ldr     r3, [r0, #16]          \n"
      "strd    r2, r3, [sp, #40]      \n"
      "ldr     r1, [r0, #28]          \n"
      "vldrw.32 q6, [r1]              \n"
      "ldr     r1, [r0, #36]          \n"
      "vdup.32 q7, r1                 \n"
      "1:                             \n"
      TWO_CHANNELS("0", "16", "2", "0")
      TWO_CHANNELS("8", "24", "3", "1")
      "ldrd    r0, r1, [sp, #36]      \n"
      "add     r2, r0, r1             \n"
      "add     r3, r2, r1             \n"
      FINISH("q3", "r0")
      FINISH("q4", "r2")
      FINISH("q5", "r3")
      "add     r0, r3, r1             \n"
      "str     r0, [sp, #36]          \n"
      "add     r11, r11, r12          \n"
      "add     r11, r11, r12, lsl #1  \n"
      "ldr     r1, [sp, #44]          \n"
      "subs    r1, r1, #1             \n"
      "str     r1, [sp, #44]          \n"
      "bne     1b                     \n"
      "add     sp, sp, #52            \n"
      "vpop    {d8-d15}               \n"
      "pop     {r4-r11, pc}           \n");
}

/* Four channels of any number of pixels; leaves task->in and out anywhere. */
static void four_channels(quad_task *task, int pixels) {
  const uint32_t in_step = task->in_step, out_step = task->out_step;
  int rest = pixels % TILE;
  if (task->channels <= 16) {
    task->count = (uint32_t)pixels;
    few_channels(task);
    return;
  }
  task->count = (uint32_t)(pixels / TILE);
  if (task->count > 0) many_channels(task);
  if (rest == 0) return;
  if (task->count > 0) { /* the last three, some of them again */
    task->count = 1;
    task->in += (uint32_t)(pixels - TILE) * in_step;
    task->out += (uint32_t)(pixels - TILE) * out_step;
    many_channels(task);
    return;
  }
  for (task->count = 1; rest > 0; --rest) { /* three times the same */
    task->in_step = task->out_step = 0;
    many_channels(task);
    task->in += task->in_step = in_step;
    task->out += task->out_step = out_step;
  }
}

/* A channel of which there are not four: all lanes compute the same. */
OUTLINED static void one_channel(const quad_task *task, int pixels) {
  const int32_t bias[QUAD] = {*task->bias, *task->bias, *task->bias, *task->bias};
  const float scale = *task->multiplier, multiplier[QUAD] = {scale, scale, scale, scale};
  uint8_t equal[QUAD];
  quad_task one = *task;
  int k;
  one.bias = bias;
  one.multiplier = multiplier;
  for (k = 0; k < pixels; ++k) {
    one.in = task->in + (uint32_t)k * task->in_step;
    one.out = equal;
    four_channels(&one, 1);
    task->out[(uint32_t)k * task->out_step] = equal[0];
  }
}

/* The product of pixels, of `channels` values each, with weights[out_channels][channels]. */
static void multiply(const lucid_layer *layer, const void *in, int channels, int pixels,
                     uint8_t *out) {
  const int width = layer->out_channels;
  int o;
  quad_task task;
  task.in_step = task.channels = (uint32_t)channels;
  task.weight_step = width < QUAD ? 0 : (uint32_t)channels;
  task.out_step = (uint32_t)width;
  task.maximum = layer->maximum;
  for (o = 0; o < width; o += width < QUAD ? 1 : QUAD) {
    /* The last four may be computed in part again. */
    const int first = width < QUAD ? o : smaller(o, width - QUAD);
    task.in = in;
    task.out = out + first;
    task.weights = layer->weights + first * channels;
    task.bias = layer->bias + first;
    task.multiplier = layer->multiplier + first;
    if (width < QUAD) {
      one_channel(&task, pixels);
    } else {
      four_channels(&task, pixels);
    }
  }
}

void lucid_pointwise(const lucid_layer *layer, const void *between, int pixels, void *work,
                     uint8_t *out) {
  (void)work;
  multiply(layer, between, layer->in_channels, pixels, out);
}

/* ---- The first layer: its windows become the pixels of a pointwise layer ---- */

/* The assembly below knows the offsets. */
typedef struct {
  const uint8_t *rows[WINDOW]; /*  0: where the first window begins */
  uint32_t step;               /* 12: from a window to the next */
  uint32_t bytes;              /* 16: of a row of a window, at most 16 */
  uint32_t count;              /* 20: windows, at least one */
  uint8_t *to;                 /* 24: 13 bytes more than the windows' */
} window_task;

ASSEMBLY copy_windows(ARGUMENT const window_task *task) {
  __asm__ volatile(
      ".syntax unified                \n"
      "push    {r4-r8, lr}            \n"
      "ldmia   r0, {r1-r7}            \n"
      "mov     r8, #128               \n"
      "mov     lr, r6                 \n"
      "vctp.8  r5                     \n"
      "dls     lr, lr                 \n"
      "1:                             \n"
      "vpsttt                         \n"
      "vldrbt.8 q0, [r1]              \n"
      "vldrbt.8 q1, [r2]              \n"
      "vldrbt.8 q2, [r3]              \n"
      "vadd.i8 q0, q0, r8             \n"
      "vadd.i8 q1, q1, r8             \n"
      "vadd.i8 q2, q2, r8             \n"
      "add     r1, r1, r4             \n"
      "add     r2, r2, r4             \n"
      "add     r3, r3, r4             \n"
      /* What the first two write too much, the next one writes over. */
      "vstrb.8 q0, [r7]               \n"
      "add     r7, r7, r5             \n"
      "vstrb.8 q1, [r7]               \n"
      "add     r7, r7, r5             \n"
      "vstrb.8 q2, [r7]               \n"
      "add     r7, r7, r5             \n"
      "le      lr, 1b                 \n"
      "pop     {r4-r8, pc}            \n");
}

/* Copies a window, which begins at any column, to 9 * channels signed bytes. */
static void copy_window(const lucid_layer *layer, const uint8_t *const rows[3],
                        const uint8_t *outside, int column, uint8_t *window) {
  const int channels = layer->in_channels;
  int k, x, i;
  for (k = 0; k < WINDOW; ++k) {
    for (x = column; x < column + WINDOW; ++x) {
      const int inside = rows[k] != NULL && x >= 0 && x < layer->in_width;
      const uint8_t *pixel = inside ? rows[k] + x * channels : outside;
      for (i = 0; i < channels; ++i) *window++ = pixel[i] ^ 128;
    }
  }
}

/* Windows of the outputs `begin` to `end`, side by side. */
OUTLINED static void lay_out(const lucid_layer *layer, const uint8_t *const rows[3],
                             const uint8_t *outside, int begin, int end, uint8_t *window) {
  const int channels = layer->in_channels, stride = layer->stride;
  const int whole =
      rows[0] != NULL && rows[1] != NULL && rows[2] != NULL && WINDOW * channels <= 16;
  /* Outputs whose windows are in the image: as of the first, before the last. */
  const int last = layer->in_width - WINDOW + layer->left;
  const int until = last < 0 ? 0 : smaller(end, last / stride + 1);
  int x;
  for (x = begin; x < end; ++x, window += 9 * channels) {
    const int column = x * stride - layer->left;
    if (whole && column >= 0 && x < until) {
      window_task task;
      int k;
      for (k = 0; k < WINDOW; ++k) task.rows[k] = rows[k] + column * channels;
      task.step = (uint32_t)(stride * channels);
      task.bytes = (uint32_t)(WINDOW * channels);
      task.count = (uint32_t)(until - x);
      task.to = window;
      copy_windows(&task);
      window += (until - 1 - x) * 9 * channels;
      x = until - 1;
    } else {
      copy_window(layer, rows, outside, column, window);
    }
  }
}

void lucid_stem_row(const lucid_layer *layer, const uint8_t *const rows[3], const uint8_t *outside,
                    void *work, uint8_t *out) {
  const int channels = 9 * layer->in_channels, width = layer->out_width;
  int begin;
  for (begin = 0; begin < width; begin += CHUNK) {
    const int end = smaller(begin + CHUNK, width);
    lay_out(layer, rows, outside, begin, end, work);
    multiply(layer, work, channels, end - begin, out + begin * layer->out_channels);
  }
}

/* ---- Depthwise ----
 *
 * Four rows of up to sixteen channels are interleaved, so that a column of a channel is a word; a
 * load of four words that are far apart then sees 4x4 pixels, byte 4 * column + row.
 */
#define GROUP 16
#define ROWS 4
#define ZERO 0x80 /* as a signed value, less 128 */

/* The assembly below knows the offsets. */
typedef struct {
  const uint8_t *from[ROWS];  /*  0: rows */
  uint32_t step[ROWS];        /* 16: from a chunk to the next, in each row */
  uint8_t *to;                /* 32: 64 bytes a chunk */
  uint32_t bytes;             /* 36: of all that is read */
  uint32_t used;              /* 40: of them by a chunk */
  uint32_t chunks;            /* 44 */
} interleave_task;

ASSEMBLY interleave(ARGUMENT const interleave_task *task) {
  __asm__ volatile(
      ".syntax unified                \n"
      "push    {r4-r12, lr}           \n"
      "ldmia   r0, {r1-r12}           \n"
      "movs    r0, #128               \n"
      "dls     lr, r12                \n"
      "1:                             \n"
      "vctp.8  r10                    \n"
      "vpstttt                        \n"
      "vldrbt.8 q0, [r1]              \n"
      "vldrbt.8 q1, [r2]              \n"
      "vldrbt.8 q2, [r3]              \n"
      "vldrbt.8 q3, [r4]              \n"
      "vadd.i8 q0, q0, r0             \n"
      "vadd.i8 q1, q1, r0             \n"
      "vadd.i8 q2, q2, r0             \n"
      "vadd.i8 q3, q3, r0             \n"
      "vst40.8 {q0, q1, q2, q3}, [r9] \n"
      "vst41.8 {q0, q1, q2, q3}, [r9] \n"
      "vst42.8 {q0, q1, q2, q3}, [r9] \n"
      "vst43.8 {q0, q1, q2, q3}, [r9]!\n"
      "add     r1, r1, r5             \n"
      "add     r2, r2, r6             \n"
      "add     r3, r3, r7             \n"
      "add     r4, r4, r8             \n"
      "sub     r10, r10, r11          \n"
      "le      lr, 1b                 \n"
      "pop     {r4-r12, pc}           \n");
}

/* Outputs of channels, four at a time. The assembly below knows the offsets. */
typedef struct {
  const uint8_t *seen;     /*  0: the first column of the first channel, a word a channel */
  const int8_t *weights;   /*  4: nine a channel */
  int8_t *out;             /*  8: the first output */
  const int32_t *bias;     /* 12 */
  const float *multiplier; /* 16 */
  int32_t channels;        /* 20 */
  uint32_t above_maximum;  /* 24: 2^32 - 1 - maximum */
  uint32_t to_signed;      /* 28: maximum + 1 - 128 */
  uint32_t seen_step;      /* 32: of four outputs */
  uint32_t out_step;       /* 36: likewise */
  uint32_t rest;           /* 40: outputs behind the last four, 0 to 3 */
  uint32_t fours;          /* 44 */
  uint32_t columns[4];     /* 48: offsets of what a load sees, from the channel behind */
  uint32_t places[4];      /* 64: likewise of four outputs */
} depthwise_task;

/* Where the weight stands that belongs to byte 4 * column + row; the others are 0. */
static const uint8_t kOrder[16] = {0, 3, 6, 0, 1, 4, 7, 0, 2, 5, 8, 0, 0, 0, 0, 0};
#define TAPS "0x777"

#define DEPTHWISE(NAME, SUMS)                                                                \
  ASSEMBLY NAME(ARGUMENT depthwise_task *task, ARGUMENT const uint8_t *order) {              \
    __asm__ volatile(                                                                        \
        ".syntax unified                \n"                                                  \
        "push    {r0, r4-r11, lr}       \n"                                                  \
        "vpush   {d8-d15}               \n"                                                  \
        "vldrb.8 q0, [r1]               \n"                                                  \
        "vmov.i32 q1, #0                \n"                                                  \
        "sub     sp, sp, #48            \n" /* 0 order; 16 zeros; 32 weights; 112 task */    \
        "vstrb.8 q0, [sp]               \n"                                                  \
        "vstrb.8 q1, [sp, #16]          \n"                                                  \
        "vldrw.32 q6, [r0, #48]         \n"                                                  \
        "vldrw.32 q7, [r0, #64]         \n"                                                  \
        "add     r1, r0, #24            \n"                                                  \
        "ldmia   r1, {r8, r9, r10, r11} \n"                                                  \
        "5:                             \n" /* a channel */                                  \
        "ldmia   r0, {r1-r6}            \n"                                                  \
        "movw    r7, #" TAPS "          \n"                                                  \
        "vmsr    p0, r7                 \n"                                                  \
        "vldrb.8 q4, [sp]               \n"                                                  \
        "vpst                           \n"                                                  \
        "vldrbt.u8 q0, [r2, q4]         \n"                                                  \
        "vstrb.8 q0, [sp, #32]          \n"                                                  \
        "vldrb.8 q1, [sp, #31]          \n" /* a row further down */                         \
        "vldrb.8 q2, [sp, #28]          \n" /* a column further right */                     \
        "vldrb.8 q3, [sp, #27]          \n"                                                  \
        "ldr     r7, [r5], #4           \n"                                                  \
        "ldr     r12, [r4], #4          \n"                                                  \
        "adds    r1, r1, #4             \n" /* seen, weights, out: to the channel behind */  \
        "adds    r2, r2, #9             \n"                                                  \
        "adds    r3, r3, #1             \n"                                                  \
        "subs    r6, r6, #1             \n"                                                  \
        "stmia   r0, {r1-r6}            \n"                                                  \
        "mov     r5, r12                \n"                                                  \
        "mvn     r2, #0                 \n"                                                  \
        "vmsr    p0, r2                 \n"                                                  \
        "ldrd    r12, lr, [r0, #40]     \n"                                                  \
        "cmp     lr, #0                 \n"                                                  \
        "beq     3f                     \n"                                                  \
        "2:                             \n"                                                  \
        "dls     lr, lr                 \n"                                                  \
        "1:                             \n"                                                  \
        SUMS                                                                                 \
        "vmov    q5[2], q5[0], r0, r4   \n"                                                  \
        "vmov    q5[3], q5[1], r2, r6   \n"                                                  \
        "vadd.i32 q5, q5, r5            \n"                                                  \
        "vcvt.f32.s32 q5, q5            \n"                                                  \
        "vmul.f32 q5, q5, r7            \n"                                                  \
        "vcvtn.u32.f32 q5, q5           \n" /* what is below 0 becomes 0 */                  \
        "vqadd.u32 q5, q5, r8           \n" /* what is above the maximum becomes 2^32 - 1 */ \
        "vadd.i32 q5, q5, r9            \n"                                                  \
        "vpst                           \n"                                                  \
        "vstrbt.32 q5, [r3, q7]         \n"                                                  \
        "add     r3, r3, r11            \n"                                                  \
        "add     r1, r1, r10            \n"                                                  \
        "le      lr, 1b                 \n"                                                  \
        "3:                             \n"                                                  \
        "cmp     r12, #0                \n"                                                  \
        "beq     4f                     \n"                                                  \
        "vctp.32 r12                    \n"                                                  \
        "mov     r12, #0                \n"                                                  \
        "mov     lr, #1                 \n"                                                  \
        "b       2b                     \n"                                                  \
        "4:                             \n"                                                  \
        "ldr     r0, [sp, #112]         \n"                                                  \
        "ldr     r1, [r0, #20]          \n"                                                  \
        "cmp     r1, #0                 \n"                                                  \
        "bne     5b                     \n"                                                  \
        "add     sp, sp, #48            \n"                                                  \
        "vpop    {d8-d15}               \n"                                                  \
        "pop     {r0, r4-r11, pc}       \n");                                                \
  }

/* Two rows of two columns. */
DEPTHWISE(two_rows,
          "vldrw.32 q4, [r1, q6]          \n"
          "vmladav.s8 r0, q0, q4          \n"
          "vmladav.s8 r2, q1, q4          \n"
          "vmladav.s8 r4, q2, q4          \n"
          "vmladav.s8 r6, q3, q4          \n")

/* One row of four columns; r0 is two columns further right. */
DEPTHWISE(one_row,
          "add     r0, r1, r10, lsr #1    \n"
          "vldrw.32 q4, [r1, q6]          \n"
          "vldrw.32 q5, [r0, q6]          \n"
          "vmladav.s8 r0, q0, q4          \n"
          "vmladav.s8 r2, q2, q4          \n"
          "vmladav.s8 r4, q0, q5          \n"
          "vmladav.s8 r6, q2, q5          \n")

/* The same with a stride of two: each output is two columns further right. */
DEPTHWISE(one_row_2,
          "add     r6, r1, r10, lsr #2    \n"
          "vldrw.32 q4, [r1, q6]          \n"
          "vmladav.s8 r0, q0, q4          \n"
          "vldrw.32 q4, [r6, q6]          \n"
          "add     r6, r6, r10, lsr #2    \n"
          "vmladav.s8 r2, q0, q4          \n"
          "vldrw.32 q4, [r6, q6]          \n"
          "add     r6, r6, r10, lsr #2    \n"
          "vmladav.s8 r4, q0, q4          \n"
          "vldrw.32 q4, [r6, q6]          \n"
          "vmladav.s8 r6, q0, q4          \n")

static inline void fill_zeros(uint8_t *to, int bytes) {
  for (; bytes > 0; bytes -= 16, to += 16) {
    vstrbq_p_u8(to, vdupq_n_u8(ZERO), vctp8q((uint32_t)bytes));
  }
}

/* Interleaves columns `begin` to `end` of four rows; those that are outside are zeros. */
OUTLINED static void interleave_columns(const lucid_layer *layer, const uint8_t *const rows[ROWS],
                                        int first, int group, int begin, int end, uint8_t *to) {
  static const uint8_t kZeros[GROUP] = {0};
  const int channels = layer->in_channels;
  const int from = begin < 0 ? 0 : begin, until = smaller(end, layer->in_width);
  const int column_bytes = group * ROWS;
  interleave_task task;
  int k;
  for (k = 0; k < ROWS; ++k) {
    task.from[k] = rows[k] == NULL ? kZeros : rows[k] + from * channels + first;
    task.step[k] = rows[k] == NULL ? 0 : (uint32_t)(channels <= GROUP ? GROUP : channels);
  }
  if (channels <= GROUP) { /* columns stand side by side */
    task.bytes = (uint32_t)((until - from) * channels);
    task.used = GROUP;
    task.chunks = (task.bytes + GROUP - 1) / GROUP;
  } else {
    task.bytes = GROUP;
    task.used = 0;
    task.chunks = (uint32_t)(until - from);
  }
  task.to = to + (from - begin) * column_bytes;
  interleave(&task);
  fill_zeros(to, (from - begin) * column_bytes);
  fill_zeros(to + (until - begin) * column_bytes, (end - until) * column_bytes);
}

void lucid_depthwise(const lucid_layer *layer, const uint8_t *const *rows, int count, void *work,
                     void *between) {
  const int channels = layer->in_channels, width = layer->out_width, stride = layer->stride;
  const int group = smaller(channels, GROUP);
  const int columns = (LUCID_DEPTHWISE_WORK_BYTES(layer->in_width) - 60) / (ROWS * group);
  const int block = (columns - 2) / stride & ~3; /* outputs for which columns have room */
  const uint32_t column_bytes = (uint32_t)group * ROWS;
  depthwise_task task;
  int c, k, y, x;
  task.above_maximum = ~(uint32_t)layer->maximum;
  task.to_signed = (uint32_t)layer->maximum + 1 - 128;
  for (k = 0; k < 4; ++k) task.columns[k] = (uint32_t)k * column_bytes - ROWS;
  for (c = 0; c < channels; c += GROUP) {
    const int first = smaller(c, channels - group); /* the last ones may be computed again */
    int height;                                     /* rows at once */
    for (y = 0; y < count; y += height) {
      const uint8_t *seen[ROWS];
      height = stride == 1 && y + 1 < count ? 2 : 1;
      for (k = 0; k < ROWS; ++k) seen[k] = rows[y * stride + smaller(k, height + 1)];
      for (k = 0; k < 4; ++k) {
        const int row = height == 2 ? k % 2 : 0, column = height == 2 ? k / 2 : k;
        task.places[k] = (uint32_t)((row * width + column) * channels - 1);
      }
      task.seen_step = (uint32_t)(stride * 4 / height) * column_bytes;
      task.out_step = (uint32_t)(4 / height * channels);
      for (x = 0; x < width; x += block) {
        const int outputs = smaller(width - x, block), begin = x * stride - layer->left;
        const int end = begin + (outputs - 1) * stride + WINDOW;
        interleave_columns(layer, seen, first, group, begin, end, work);
        task.seen = work;
        task.weights = layer->weights + 9 * first;
        task.out = (int8_t *)between + (y * width + x) * channels + first;
        task.bias = layer->bias + first;
        task.multiplier = layer->multiplier + first;
        task.channels = group;
        task.fours = (uint32_t)(outputs * height / 4);
        task.rest = (uint32_t)(outputs * height % 4);
        (stride == 2 ? one_row_2 : height == 2 ? two_rows : one_row)(&task, kOrder);
      }
    }
  }
}

/* ---- The end ---- */

void lucid_pool(const lucid_layer *layer, const uint8_t *in, uint8_t *out) {
  const int channels = layer->in_channels, pixels = layer->in_height * layer->in_width;
  int c, k;
  for (c = 0; c < channels; c += 4) {
    const mve_pred16_t left = vctp32q((uint32_t)(channels - c));
    const uint8_t *pixel = in + c;
    uint32x4_t sums = vdupq_n_u32(0);
    float32x4_t means;
    for (k = 0; k < pixels; ++k, pixel += channels) {
      sums = vaddq_u32(sums, vldrbq_z_u32(pixel, left));
    }
    means = vmulq_n_f32(vcvtq_f32_u32(sums), layer->multiplier[0]);
    vstrbq_p_u32(out + c, vminq_u32(vcvtnq_u32_f32(means), vdupq_n_u32(255)), left);
  }
}

void lucid_dense(const lucid_layer *layer, const uint8_t *in, float *logits) {
  const int8_t *weights = layer->weights;
  const int channels = layer->in_channels;
  int o, i;
  for (o = 0; o < layer->out_channels; ++o, weights += channels) {
    int32_t sum = layer->bias[o];
    for (i = 0; i < channels; i += 16) {
      const mve_pred16_t left = vctp8q((uint32_t)(channels - i));
      const uint8x16_t values = vaddq_n_u8(vldrbq_z_u8(in + i, left), 128);
      sum = vmladavaq_s8(sum, vreinterpretq_s8_u8(values), vldrbq_z_s8(weights + i, left));
    }
    logits[o] = (float)sum * layer->multiplier[o];
  }
}

#endif
