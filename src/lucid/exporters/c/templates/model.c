/* @TITLE@
 *
 * Written by lucid @VERSION@; model.h says how to use it.
 */

#include "model.h"

#include <stddef.h>

#include "execute.h"

#define WEIGHTS static const LUCID_ALIGNED int8_t

/* A weight sum beside its bias: kernels may multiply weights by (value - offset). */
#define STEM(bias, sum) ((bias) + LUCID_STEM_OFFSET * (sum))
#define DEPTHWISE(bias, sum) ((bias) + LUCID_DEPTHWISE_OFFSET * (sum))
#define POINTWISE(bias, sum) ((bias) + LUCID_POINTWISE_OFFSET * (sum))
#define DENSE(bias, sum) ((bias) + LUCID_DENSE_OFFSET * (sum))

@ARRAYS@
static const uint8_t kOutside[MODEL_CHANNELS] = {@OUTSIDE@};

static const lucid_layer kLayers[MODEL_LAYERS] = {
@LAYER_TABLE@};

static const lucid_stage kStages[] = {
@STAGE_TABLE@};

static const lucid_plan kPlan = {kLayers, kStages, kOutside, @STAGES@, @STREAMED@};

const char *const model_class_names[MODEL_CLASSES] = {
@CLASS_NAMES@};

/* What model.h promises of memory, and what the kernels need of it. */
typedef char state_bytes_are_known[sizeof(model_state) == MODEL_STATE_BYTES ? 1 : -1];
typedef char const_bytes_are_known[
    (@CONST_SIZEOF@) == MODEL_CONST_BYTES ? 1 : -1];
typedef char kernels_have_room[
@SCRATCH_CHECKS@    1 ? 1 : -1];

static lucid_run run_with(model_state *state, const uint8_t *image) {
  lucid_run run;
  run.memory = (uint8_t *)state->memory;
  run.rows = state->rows;
  run.image = image;
  return run;
}

void model_begin(model_state *state) {
  const lucid_run run = run_with(state, NULL);
  lucid_run_begin(&kPlan, &run);
}

int model_push_row(model_state *state, const uint8_t *row) {
  const lucid_run run = run_with(state, NULL);
  return lucid_run_row(&kPlan, &run, row);
}

int model_finish(model_state *state, float *logits) {
  const lucid_run run = run_with(state, NULL);
  const int missing = MODEL_HEIGHT - state->rows[0];
  if (missing == 0) lucid_run_finish(&kPlan, &run, logits);
  return missing;
}

void model_logits(model_state *state, const uint8_t *image, float *logits) {
  const lucid_run run = run_with(state, image);
  lucid_run_begin(&kPlan, &run);
  lucid_run_image(&kPlan, &run);
  lucid_run_finish(&kPlan, &run, logits);
}

int model_softmax(float *logits) { return lucid_probabilities(logits, MODEL_CLASSES); }

int model_classify(model_state *state, const uint8_t *image, float *probabilities) {
  model_logits(state, image, probabilities);
  return model_softmax(probabilities);
}
