/* @TITLE@
 *
 * Written by lucid @VERSION@. No library, no heap, no operating system; C99, and C++ may call it.
 *
 * Memory: a model_state (MODEL_STATE_BYTES), which the caller gives and which may be static, at
 * most MODEL_STACK_BYTES of stack, and the logits. A state serves one image at a time; several
 * states may be in use at once, on several threads. Weights and tables: MODEL_CONST_BYTES.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#define MODEL_HEIGHT @HEIGHT@
#define MODEL_WIDTH @WIDTH@
#define MODEL_CHANNELS @CHANNELS@ /* @COLOR@ */
#define MODEL_CLASSES @CLASSES@
#define MODEL_LAYERS @LAYERS@

#define MODEL_ROW_BYTES (MODEL_WIDTH * MODEL_CHANNELS)
#define MODEL_IMAGE_BYTES @IMAGE_BYTES@
#define MODEL_STATE_BYTES @STATE_BYTES@
#define MODEL_STACK_BYTES @STACK_BYTES@ /* compiled with -O1 or higher */
#define MODEL_CONST_BYTES @CONST_BYTES@ /* weights, biases and multipliers */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  uint32_t memory[@MEMORY_WORDS@];
  uint16_t rows[@COUNTERS@];
} model_state;

extern const char *const model_class_names[MODEL_CLASSES]; /* UTF-8 */

/* A whole image, MODEL_IMAGE_BYTES: rows from the top, pixels from the left, @COLOR_ORDER@.
 * Gives the probability of each class and returns the class of the largest.
 */
int model_classify(model_state *state, const uint8_t *image, float *probabilities);

/* The same, but gives the logits, whose bytes are equal on every device. */
void model_logits(model_state *state, const uint8_t *image, float *logits);

/* An image row by row, as a camera gives it: begin, push_row MODEL_HEIGHT times, finish. A row is
 * MODEL_ROW_BYTES, and is no longer needed when push_row returns. push_row returns how many rows
 * are missing still, and ignores those that are too many. finish gives the logits and returns 0;
 * if rows are missing, it returns how many and does nothing.
 */
void model_begin(model_state *state);
int model_push_row(model_state *state, const uint8_t *row);
int model_finish(model_state *state, float *logits);

/* Turns logits into probabilities, in place, and returns the class of the largest. */
int model_softmax(float *logits);

#ifdef __cplusplus
}
#endif

#endif
