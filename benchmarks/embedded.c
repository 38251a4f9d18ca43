/* Prints what the layers of an exported model take in ticks of SysTick: those of one inference, a
 * line each, and a last line with all of it, which is exact only without MODEL_PROFILE. The logits
 * go to logits.bin.
 *
 * embedded.elf IMAGE: a file of MODEL_IMAGE_BYTES.
 */
#include <stdint.h>
#include <stdio.h>

#include "model.h"

#define MASK 0xffffffu /* SysTick counts down in 24 bits */

static model_state state;
static uint8_t image[MODEL_IMAGE_BYTES];
static float logits[MODEL_CLASSES];
static volatile uint32_t *const kSysTick = (volatile uint32_t *)0xE000E010u;

static uint32_t now(void) { return MASK - kSysTick[2]; }

#ifdef MODEL_PROFILE
static uint32_t ticks[MODEL_LAYERS], begin;
static int running;

void model_profile(int layer);
void model_profile(int layer) {
  if (layer < 0) {
    ticks[running] += (now() - begin) & MASK;
  } else {
    running = layer;
    begin = now();
  }
}
#endif

int main(int argc, char *argv[]) {
  FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
  uint32_t start, all;
  if (file == NULL || fread(image, 1, sizeof image, file) != sizeof image) return 1;
  kSysTick[1] = MASK;
  kSysTick[2] = 0;
  kSysTick[0] = 5; /* on, the core's clock, no interrupt */
  start = now();
  model_logits(&state, image, logits);
  all = (now() - start) & MASK;
#ifdef MODEL_PROFILE
  {
    int k;
    for (k = 0; k < MODEL_LAYERS; ++k) printf("%lu\n", (unsigned long)ticks[k]);
  }
#endif
  printf("%lu\n", (unsigned long)all);
  file = fopen("logits.bin", "wb");
  return file == NULL || fwrite(logits, 1, sizeof logits, file) != sizeof logits || fclose(file);
}
