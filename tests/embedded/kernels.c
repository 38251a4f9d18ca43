/* Layers of random sizes: the kernels of this CPU against the portable ones, byte for byte.
 *
 * kernels_portable.c is compiled into this file under other names; the linker brings the others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#ifndef INSTRUCTION_SET
#error "compile with -DINSTRUCTION_SET=LUCID_DSP or the like"
#endif
#if !INSTRUCTION_SET
#error "the compiler's flags do not choose the kernels that are to be tested"
#endif

void portable_stem_row(const lucid_layer *, const uint8_t *const[3], const uint8_t *, void *,
                       uint8_t *);
void portable_depthwise(const lucid_layer *, const uint8_t *const *, int, void *, void *);
void portable_pointwise(const lucid_layer *, const void *, int, void *, uint8_t *);
void portable_pool(const lucid_layer *, const uint8_t *, uint8_t *);
void portable_dense(const lucid_layer *, const uint8_t *, float *);

#define LARGEST (128 * 1024)
#define CHANNELS 300
#define GUARD 64
#define FILL 0xA5

static uint8_t spare[LARGEST]; /* for the portable kernels */
static uint8_t input[LARGEST], seen[3][LARGEST + 2 * GUARD], expected[2][LARGEST];
static int8_t weights[LARGEST];
static int32_t bias[2][CHANNELS]; /* of these kernels and of the portable ones */
static float multiplier[CHANNELS];
static uint8_t outside[CHANNELS];
static float logits[2][CHANNELS];
static int failures;

static uint32_t random_bits(void) {
  static uint32_t state = 2463534242u; /* xorshift, Marsaglia 2003 */
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

static int random_to(int most) { return (int)(random_bits() % (uint32_t)(most + 1)); }

/* Values of all sizes, or only the extremes. */
static void fill_input(int count, int extremes) {
  int k;
  for (k = 0; k < count; ++k) {
    input[k] = (uint8_t)(extremes ? 255 * (random_to(7) > 0) : random_to(255));
  }
}

/* Weights and the rest of a layer; results are partly below 0 and above its maximum. */
static void fill_layer(lucid_layer *layer, int products, int offset, int extremes) {
  int o, k;
  layer->weights = weights;
  layer->multiplier = multiplier;
  layer->maximum = (uint8_t)(random_to(1) ? 255 : random_to(255));
  for (o = 0; o < layer->out_channels; ++o) {
    int32_t sum = 0;
    int32_t own = random_to(100 * products) - 50 * products;
    if (random_to(9) == 0) own += (random_to(1) ? 1 : -1) * (1 << 30);
    for (k = 0; k < products; ++k) {
      const int8_t weight = (int8_t)(extremes ? (random_to(7) ? 127 : -127) : random_to(254) - 127);
      weights[o * products + k] = weight;
      sum += weight;
    }
    bias[0][o] = (int32_t)((uint32_t)own + (uint32_t)sum * (uint32_t)offset);
    bias[1][o] = own;
    /* Halves, too, which have to be rounded to even. */
    multiplier[o] = random_to(3) ? (float)(1 + random_to(999)) / (200.0f * (float)(products + 40))
                                 : 1.0f / (float)(1 << (1 + random_to(8)));
  }
}

static void reset(uint8_t *memory, int bytes) { memset(memory, FILL, (size_t)bytes + 2 * GUARD); }

/* Whether nothing around `bytes` bytes was written. */
static int is_whole(const uint8_t *memory, int bytes) {
  int k;
  for (k = 0; k < GUARD; ++k) {
    if (memory[k] != FILL || memory[GUARD + bytes + k] != FILL) return 0;
  }
  return 1;
}

/* Whether the bytes are equal; says where they are not. */
static int are_equal(const uint8_t *found, const uint8_t *right, int bytes) {
  int k;
  for (k = 0; k < bytes; ++k) {
    if (found[k] == right[k]) continue;
    printf("byte %d is %d, not %d: ", k, found[k], right[k]);
    return 0;
  }
  return 1;
}

static void report(const char *kernel, int same, const lucid_layer *layer, int count, int bytes) {
  if (same) return;
  ++failures;
  printf("%s differs: %d -> %d channels, %dx%d -> %dx%d, stride %d, top %d, left %d, maximum %d, "
         "count %d, bytes %d\n", kernel, layer->in_channels, layer->out_channels, layer->in_height,
         layer->in_width, layer->out_height, layer->out_width, layer->stride, layer->top,
         layer->left, layer->maximum, count, bytes);
}

static void random_size(lucid_layer *layer, int channels, int largest) {
  layer->in_channels = (uint16_t)channels;
  layer->in_height = (uint16_t)(1 + random_to(largest - 1));
  layer->in_width = (uint16_t)(1 + random_to(largest - 1));
  layer->stride = (uint8_t)(1 + random_to(1));
  layer->top = (uint8_t)(layer->stride == 1 ? 1 : random_to(1));
  layer->left = (uint8_t)(layer->stride == 1 ? 1 : random_to(1));
  layer->out_height = (uint16_t)((layer->in_height - 1) / layer->stride + 1);
  layer->out_width = (uint16_t)((layer->in_width - 1) / layer->stride + 1);
}

static const uint8_t *row_of(const lucid_layer *layer, int row) {
  if (row < 0 || row >= layer->in_height) return NULL;
  return input + row * layer->in_width * layer->in_channels;
}

static void test_stem(void) {
  const int extremes = random_to(3) == 0;
  lucid_layer layer;
  const uint8_t *rows[3];
  int k, y, bytes, work;
  random_size(&layer, random_to(1) ? 3 : 1 + random_to(4), 100);
  layer.out_channels = (uint16_t)(1 + random_to(40));
  layer.in_height = 3;
  y = random_to((layer.in_height - 1) / layer.stride);
  fill_input(layer.in_height * layer.in_width * layer.in_channels, extremes);
  fill_layer(&layer, 9 * layer.in_channels, LUCID_STEM_OFFSET, extremes);
  for (k = 0; k < 3; ++k) {
    rows[k] = row_of(&layer, y * layer.stride - layer.top + k);
    outside[k] = (uint8_t)random_to(255);
  }
  outside[3] = outside[4] = 77;
  bytes = layer.out_width * layer.out_channels;
  work = LUCID_STEM_WORK_BYTES(layer.out_width, layer.in_channels);
  reset(seen[0], bytes);
  reset(seen[1], work);
  layer.bias = bias[0];
  lucid_stem_row(&layer, rows, outside, seen[1] + GUARD, seen[0] + GUARD);
  layer.bias = bias[1];
  portable_stem_row(&layer, rows, outside, spare, expected[0]);
  report("stem", are_equal(seen[0] + GUARD, expected[0], bytes), &layer, 1, bytes);
  report("stem, memory", is_whole(seen[0], bytes) && is_whole(seen[1], work), &layer, 1, bytes);
}

/* Both layers of a pair; what stands between them is the kernels' own affair. */
static void test_pair(void) {
  const int extremes = random_to(3) == 0, channels = 1 + random_to(random_to(1) ? 15 : 140);
  lucid_layer depthwise, pointwise;
  const uint8_t *rows[2 * LUCID_MAX_ROWS + 1];
  int count, k, y, pixels, bytes, between, work;
  random_size(&depthwise, channels, random_to(3) ? 9 : 30);
  depthwise.out_channels = depthwise.in_channels;
  count = 1 + random_to(depthwise.out_height - 1);
  if (count > LUCID_MAX_ROWS) count = LUCID_MAX_ROWS;
  y = random_to(depthwise.out_height - count);
  pixels = count * depthwise.out_width;
  fill_input(depthwise.in_height * depthwise.in_width * channels, extremes);
  fill_layer(&depthwise, 9, LUCID_DEPTHWISE_OFFSET, extremes);
  for (k = 0; k < (count - 1) * depthwise.stride + 3; ++k) {
    rows[k] = row_of(&depthwise, y * depthwise.stride - depthwise.top + k);
  }
  between = LUCID_BETWEEN_BYTES(pixels, channels);
  work = LUCID_DEPTHWISE_WORK_BYTES(depthwise.in_width);
  reset(seen[0], between);
  reset(seen[1], work);
  depthwise.bias = bias[0];
  lucid_depthwise(&depthwise, rows, count, seen[1] + GUARD, seen[0] + GUARD);
  depthwise.bias = bias[1];
  portable_depthwise(&depthwise, rows, count, spare, expected[0]);
  report("depthwise, memory", is_whole(seen[0], between) && is_whole(seen[1], work), &depthwise,
         count, work);

  pointwise = depthwise;
  pointwise.out_channels = (uint16_t)(1 + random_to(random_to(1) ? 10 : 140));
  fill_layer(&pointwise, channels, LUCID_POINTWISE_OFFSET, extremes);
  bytes = pixels * pointwise.out_channels;
  work = LUCID_POINTWISE_WORK_BYTES(channels);
  reset(seen[1], work);
  reset(seen[2], bytes);
  pointwise.bias = bias[0];
  lucid_pointwise(&pointwise, seen[0] + GUARD, pixels, seen[1] + GUARD, seen[2] + GUARD);
  pointwise.bias = bias[1];
  portable_pointwise(&pointwise, expected[0], pixels, spare, expected[1]);
  report("pair", are_equal(seen[2] + GUARD, expected[1], bytes), &pointwise, count,
         bytes);
  report("pointwise, memory", is_whole(seen[1], work) && is_whole(seen[2], bytes), &pointwise,
         count, work);
}

static void test_end(void) {
  const int extremes = random_to(3) == 0, channels = 1 + random_to(CHANNELS - 1);
  lucid_layer pool, dense;
  random_size(&pool, channels, 12);
  pool.out_channels = pool.in_channels;
  fill_input(pool.in_height * pool.in_width * channels, extremes);
  fill_layer(&pool, 1, 0, extremes);
  multiplier[0] = 1.0f / (float)(pool.in_height * pool.in_width);
  reset(seen[0], channels);
  lucid_pool(&pool, input, seen[0] + GUARD);
  portable_pool(&pool, input, expected[0]);
  report("pool", are_equal(seen[0] + GUARD, expected[0], channels), &pool, 1, channels);
  report("pool, memory", is_whole(seen[0], channels), &pool, 1, channels);

  dense = pool;
  dense.out_channels = (uint16_t)(1 + random_to(30));
  fill_layer(&dense, channels, LUCID_DENSE_OFFSET, extremes);
  dense.bias = bias[0];
  lucid_dense(&dense, expected[0], logits[0]);
  dense.bias = bias[1];
  portable_dense(&dense, expected[0], logits[1]);
  report("dense", memcmp(logits[0], logits[1], dense.out_channels * sizeof(float)) == 0, &dense, 1,
         channels);
}

int main(int argc, char *argv[]) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 100;
  int k;
  for (k = 0; k < rounds; ++k) {
    test_stem();
    test_pair();
    test_end();
  }
  printf("%d rounds, %d failures\n", rounds, failures);
  return failures > 0;
}
