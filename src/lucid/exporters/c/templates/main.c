/* A complete example: classifies the image of model_image.h and compares the logits, byte for byte,
 * with those that the computer found which wrote it. Needs printf and nothing else.
 *
 * Compiled with MODEL_PROFILE defined (in model_execute.c too), it prints what each layer took:
 * instructions in QEMU with -icount, cycles on a device.
 */
#ifndef ARDUINO /* there examples/classify is the program */

#include <stdio.h>
#include <string.h>

#include "model.h"
#include "model_image.h"

static model_state state;
static float values[MODEL_CLASSES];

#ifdef MODEL_PROFILE
#include "model_profile.h"
#endif

int main(void) {
  int best, equal;
  model_logits(&state, kImage, values);
  equal = memcmp(values, kLogits, sizeof values) == 0;
  best = model_softmax(values);
  printf("%s, %d.%d%%\n", model_class_names[best], (int)(values[best] * 1000.0f) / 10,
         (int)(values[best] * 1000.0f) % 10);
  printf("logits %s those of the reference\n", equal ? "equal" : "DIFFER FROM");
#ifdef MODEL_PROFILE
  print_ticks();
#endif
  return equal ? 0 : 1;
}

#endif
