/* Runs a network by rows: as soon as a layer has the rows that a row of its output needs, that row
 * is computed, and those no longer needed are overwritten. Whole maps stand only where that saves
 * memory; a pair of layers then writes its map over the one that it reads.
 */
#ifndef LUCID_EXECUTE_H
#define LUCID_EXECUTE_H

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A stage, and where the rows that it reads lie. Stage 0 is the stem, each other a depthwise layer
 * with the pointwise one behind it; one more says what the pool reads. Offsets are in the memory.
 */
typedef struct {
  uint32_t offset;
  uint32_t between; /* offset of what stands between the two layers; of the pool's means */
  uint32_t work;    /* offset of what the kernels work with */
  uint16_t kept;    /* rows that stand there: row r lies at place r % kept */
  uint16_t count;   /* rows of its output that it computes at once, to LUCID_MAX_ROWS */
} lucid_stage;

typedef struct {
  const lucid_layer *layers; /* stem, pairs of depthwise and pointwise, pool, dense */
  const lucid_stage *stages; /* one more than there are */
  const uint8_t *outside;    /* of the image */
  uint16_t count;            /* stages: 1 + pairs */
  uint16_t streamed;         /* those that run as the image's rows come; the others run after */
} lucid_plan;

/* memory: as large as the plan says, 4-byte aligned. rows: streamed + 1 counters. */
typedef struct {
  uint8_t *memory;
  uint16_t *rows;
  const uint8_t *image; /* whole, or NULL when its rows are pushed */
} lucid_run;

void lucid_run_begin(const lucid_plan *plan, const lucid_run *run);

/* Takes the next row of the image, if any is missing; returns how many are missing still. */
int lucid_run_row(const lucid_plan *plan, const lucid_run *run, const uint8_t *row);

/* All rows of run->image. */
void lucid_run_image(const lucid_plan *plan, const lucid_run *run);

/* Computes the logits once no row is missing. */
void lucid_run_finish(const lucid_plan *plan, const lucid_run *run, float *logits);

/* Turns logits into probabilities, in place; returns the class of the largest, the first of equal
 * ones. Each step is a whole number or one IEEE-754 operation: the same bits on every device,
 * within 1e-5 of the true value.
 */
int lucid_probabilities(float *values, int count);

#ifdef __cplusplus
}
#endif

#endif
