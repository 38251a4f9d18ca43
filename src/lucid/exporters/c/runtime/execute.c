#include "execute.h"

#include <stddef.h>

/* With LUCID_PROFILE, the program's own function is called with a layer's number before the layer
 * computes a row, and with -1 after it.
 */
#ifdef LUCID_PROFILE
void lucid_profile(int layer);
#else
#define lucid_profile(layer) ((void)0)
#endif

#define WINDOW 3

/* The number of the first layer of a stage, which has the window; of the pool. */
static int head_of(int stage) { return stage == 0 ? 0 : 2 * stage - 1; }

static size_t row_bytes(const lucid_layer *layer) {
  return (size_t)layer->in_width * layer->in_channels;
}

/* Row `row` of what a stage reads. */
static uint8_t *row_in(const lucid_plan *plan, const lucid_run *run, int stage, int row) {
  const lucid_stage *place = &plan->stages[stage];
  const lucid_layer *layer = &plan->layers[head_of(stage)];
  return run->memory + place->offset + (size_t)(row % place->kept) * row_bytes(layer);
}

/* Computes rows y to y + count - 1 of what a stage gives; there they lie one behind the other. */
static void compute_rows(const lucid_plan *plan, const lucid_run *run, int stage, int y,
                         int count) {
  const int index = head_of(stage);
  const lucid_layer *layer = &plan->layers[index];
  void *const work = run->memory + plan->stages[stage].work;
  void *const between = run->memory + plan->stages[stage].between;
  uint8_t *const out = row_in(plan, run, stage + 1, y);
  const int first = y * layer->stride - layer->top;
  const uint8_t *rows[2 * (LUCID_MAX_ROWS - 1) + WINDOW];
  int k;
  for (k = 0; k < (count - 1) * layer->stride + WINDOW; ++k) {
    const int row = first + k;
    if (row < 0 || row >= layer->in_height) {
      rows[k] = NULL;
    } else if (stage == 0 && run->image != NULL) {
      rows[k] = run->image + (size_t)row * row_bytes(layer);
    } else {
      rows[k] = row_in(plan, run, stage, row);
    }
  }
  lucid_profile(index);
  if (stage == 0) {
    lucid_stem_row(layer, rows, plan->outside, work, out);
  } else {
    lucid_depthwise(layer, rows, count, work, between);
    lucid_profile(-1);
    lucid_profile(index + 1);
    lucid_pointwise(layer + 1, between, count * layer->out_width, work, out);
  }
  lucid_profile(-1);
}

/* Whether the rows are there that the next row of a stage needs. */
static int is_ready(const lucid_plan *plan, const lucid_run *run, int stage) {
  const lucid_layer *layer = &plan->layers[head_of(stage)];
  const int y = run->rows[stage + 1];
  int last = y * layer->stride - layer->top + WINDOW - 1;
  if (last >= layer->in_height) last = layer->in_height - 1;
  return y < layer->out_height && last < run->rows[stage];
}

/* Each new row goes through the stages behind before the next one is computed, so that no stage
 * keeps more rows than its window is high.
 */
static void advance(const lucid_plan *plan, const lucid_run *run) {
  int stage = 0;
  ++run->rows[0];
  while (stage >= 0) {
    if (!is_ready(plan, run, stage)) {
      --stage;
      continue;
    }
    compute_rows(plan, run, stage, run->rows[stage + 1], 1);
    ++run->rows[stage + 1];
    if (stage + 1 < plan->streamed) ++stage;
  }
}

void lucid_run_begin(const lucid_plan *plan, const lucid_run *run) {
  int stage;
  for (stage = 0; stage <= plan->streamed; ++stage) run->rows[stage] = 0;
}

int lucid_run_row(const lucid_plan *plan, const lucid_run *run, const uint8_t *row) {
  const int height = plan->layers[0].in_height;
  if (run->rows[0] < height) {
    const size_t bytes = row_bytes(&plan->layers[0]);
    uint8_t *kept = row_in(plan, run, 0, run->rows[0]);
    size_t k;
    for (k = 0; k < bytes; ++k) kept[k] = row[k];
    advance(plan, run);
  }
  return height - run->rows[0];
}

void lucid_run_image(const lucid_plan *plan, const lucid_run *run) {
  const int height = plan->layers[0].in_height;
  while (run->rows[0] < height) advance(plan, run);
}

void lucid_run_finish(const lucid_plan *plan, const lucid_run *run, float *logits) {
  const int pool = head_of(plan->count);
  uint8_t *means = run->memory + plan->stages[plan->count].between;
  int stage, y;
  for (stage = plan->streamed; stage < plan->count; ++stage) {
    const int height = plan->layers[head_of(stage)].out_height;
    const int count = plan->stages[stage].count;
    for (y = 0; y < height; y += count) {
      compute_rows(plan, run, stage, y, height - y < count ? height - y : count);
    }
  }
  lucid_profile(pool);
  lucid_pool(&plan->layers[pool], row_in(plan, run, plan->count, 0), means);
  lucid_profile(-1);
  lucid_profile(pool + 1);
  lucid_dense(&plan->layers[pool + 1], means, logits);
  lucid_profile(-1);
}

/* 2^(-fraction / 2^16) * 2^31, from the binary digits of the fraction, 0 to 2^16 - 1. */
static uint32_t power_of_two(uint32_t fraction) {
  /* 2^(-1/2), 2^(-1/4), ... times 2^32 */
  static const uint32_t kRoots[16] = {
      0xb504f334u, 0xd744fccbu, 0xeac0c6e8u, 0xf5257d15u,
      0xfa83b2dbu, 0xfd3e0c0du, 0xfe9e115cu, 0xff4ecb59u,
      0xffa75652u, 0xffd3a752u, 0xffe9d2b3u, 0xfff4e91cu,
      0xfffa747fu, 0xfffd3a3bu, 0xfffe9d1du, 0xffff4e8eu
  };
  uint32_t power = UINT32_C(1) << 31;
  int k;
  for (k = 0; k < 16; ++k) {
    if (fraction >> (15 - k) & 1u) power = (uint32_t)((uint64_t)power * kRoots[k] >> 32);
  }
  return power;
}

int lucid_probabilities(float *values, int count) {
  int best = 0, k;
  float largest, sum = 0.0f;
  for (k = 1; k < count; ++k) {
    if (values[k] > values[best]) best = k;
  }
  largest = values[best];
  for (k = 0; k < count; ++k) {
    const float below = largest - values[k];
    uint32_t power = 0; /* far below the largest, where it would round to nothing */
    if (below < 21.0f) {
      const uint32_t exponent = (uint32_t)(below * 1.44269504f * 65536.0f);
      power = power_of_two(exponent & 0xffffu) >> (exponent >> 16);
    }
    values[k] = (float)power;
    sum += values[k];
  }
  for (k = 0; k < count; ++k) values[k] /= sum;
  return best;
}
