/* Computes the logits of images, each whole and by rows, for a comparison with the reference.
 *
 * verify [IMAGES LOGITS]: files of raw bytes, images.bin and logits.bin when left out. Returns 0,
 * or 1 if a file can't be read or written, or 2 if the two ways differ.
 */
#include <stdio.h>
#include <string.h>

#include "model.h"

static model_state state;
static uint8_t image[MODEL_IMAGE_BYTES];
static float whole[MODEL_CLASSES];
static float by_rows[MODEL_CLASSES];

int main(int argc, char **argv) {
  FILE *in = fopen(argc > 2 ? argv[1] : "images.bin", "rb");
  FILE *out = fopen(argc > 2 ? argv[2] : "logits.bin", "wb");
  int y;
  if (in == NULL || out == NULL) return 1;
  while (fread(image, 1, sizeof image, in) == sizeof image) {
    model_logits(&state, image, whole);
    if (fwrite(whole, 1, sizeof whole, out) != sizeof whole) return 1;
    model_begin(&state);
    for (y = 0; y < MODEL_HEIGHT; ++y) {
      if (model_finish(&state, by_rows) != MODEL_HEIGHT - y) return 2;
      if (model_push_row(&state, image + y * MODEL_ROW_BYTES) != MODEL_HEIGHT - 1 - y) return 2;
    }
    if (model_finish(&state, by_rows) != 0) return 2;
    if (memcmp(whole, by_rows, sizeof whole) != 0) return 2;
  }
  return fclose(in) == 0 && fclose(out) == 0 ? 0 : 1;
}
