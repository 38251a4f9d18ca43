/* Prints the most likely class of an image, given as raw RGB bytes of the network's own resolution:
 *
 *     classify NETWORK PIXELS
 */

#include <stdio.h>
#include <stdlib.h>

#include "lucid_engine.h"

static int classify(lucid_engine* engine, FILE* pixels) {
  const int side = lucid_resolution(engine);
  const int classes = lucid_classes(engine);
  const size_t bytes = (size_t)side * (size_t)side * (size_t)lucid_channels(engine);
  unsigned char* image = malloc(bytes);
  float* logits = malloc((size_t)classes * sizeof *logits);
  int best = 0, k, failed = 1;

  if (image == NULL || logits == NULL) {
    fprintf(stderr, "out of memory\n");
  } else if (fread(image, 1, bytes, pixels) != bytes) {
    fprintf(stderr, "%zu bytes expected, for %d x %d pixels\n", bytes, side, side);
  } else if (lucid_run(engine, image, 1, side, side, logits) != LUCID_OK) {
    fprintf(stderr, "%s\n", lucid_error());
  } else {
    for (k = 1; k < classes; ++k) {
      if (logits[k] > logits[best]) best = k;
    }
    printf("%s, on %s\n", lucid_class_name(engine, best), lucid_isa(engine));
    failed = 0;
  }
  free(image);
  free(logits);
  return failed;
}

int main(int count, char** arguments) {
  lucid_engine* engine = NULL;
  FILE* pixels;
  int failed = 1;

  if (count != 3) {
    fprintf(stderr, "usage: classify NETWORK PIXELS\n");
    return 2;
  }
  pixels = fopen(arguments[2], "rb");
  if (pixels == NULL) {
    perror(arguments[2]);
  } else if (lucid_load_file(arguments[1], NULL, &engine) != LUCID_OK) {
    fprintf(stderr, "%s\n", lucid_error());
  } else {
    failed = classify(engine, pixels);
  }
  lucid_free(engine);
  if (pixels != NULL) fclose(pixels);
  return failed;
}
