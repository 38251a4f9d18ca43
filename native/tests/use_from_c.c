/* The C interface, used as a program would: prints the logits of a grey image, and what errors say.
 *
 *   use_from_c NETWORK SIDE
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lucid_engine.h"

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, lucid_error());
  return 1;
}

int main(int count, char** arguments) {
  lucid_options options = {0};
  lucid_engine* engine = NULL;
  lucid_step steps[100];
  size_t step_count = 0, bytes;
  uint8_t* image;
  float* logits;
  int side, k;

  if (count != 3) return 2;
  side = atoi(arguments[2]);
  options.isa = "none such";
  if (lucid_load_file(arguments[1], &options, &engine) != LUCID_BAD_ARGUMENT) return fail("isa");
  printf("%s\n", lucid_error());
  options.isa = "scalar";
  options.threads = 2;
  if (lucid_load_file("no such file", &options, &engine) != LUCID_BAD_FILE) return fail("file");
  printf("%s\n", lucid_error());
  if (lucid_load_bytes("short", 5, &options, &engine) != LUCID_BAD_FILE) return fail("bytes");
  if (lucid_load_file(arguments[1], &options, &engine) != LUCID_OK) return fail("load");

  printf("%s %s %d %d %s\n", lucid_precision(engine), lucid_isa(engine), lucid_channels(engine),
         lucid_resolution(engine), lucid_class_name(engine, 0));
  if (lucid_class_name(engine, lucid_classes(engine)) != NULL) return fail("class name");
  if (strcmp(lucid_isa_name(lucid_precision(engine), 1, 0), "") == 0) return fail("isa name");
  if (lucid_isa_name("int8", 0, 1000) != NULL) return fail("isa name behind the last");

  bytes = (size_t)side * (size_t)side * (size_t)lucid_channels(engine);
  image = malloc(bytes);
  logits = malloc((size_t)lucid_classes(engine) * sizeof *logits);
  if (image == NULL || logits == NULL) return 1;
  memset(image, 100, bytes);
  if (lucid_run(engine, image, 1, 0, side, logits) != LUCID_BAD_IMAGE) return fail("size");
  if (lucid_run(engine, image, 1, side, side, logits) != LUCID_OK) return fail("run");
  if (lucid_profile(engine, image, side, side, 3, steps, 100, &step_count) != LUCID_OK) {
    return fail("profile");
  }
  if (lucid_profile(engine, image, side, side, 1, NULL, 1, &step_count) != LUCID_BAD_ARGUMENT) {
    return fail("no room for steps");
  }
  printf("%s\n", steps[step_count - 1].layer);
  for (k = 0; k < lucid_classes(engine); ++k) printf("%.9g\n", (double)logits[k]);
  free(image);
  free(logits);
  lucid_free(engine);
  lucid_free(NULL);
  return 0;
}
