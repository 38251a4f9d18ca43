/* lucid's engine for programs in C and whatever calls C: loads a network file, runs images.
 *
 *     lucid_engine* engine = NULL;
 *     if (lucid_load_file("model.int8.safetensors", NULL, &engine) != LUCID_OK) {
 *       fprintf(stderr, "%s\n", lucid_error());
 *       return 1;
 *     }
 *     lucid_run(engine, pixels, 1, 224, 224, logits);
 *     lucid_free(engine);
 *
 * Any number of threads may use one engine at once. No function prints, aborts or throws.
 */

#ifndef LUCID_ENGINE_H
#define LUCID_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(LUCID_SHARED)
#if defined(LUCID_BUILDING)
#define LUCID_API __declspec(dllexport)
#else
#define LUCID_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define LUCID_API __attribute__((visibility("default")))
#else
#define LUCID_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lucid_engine lucid_engine;

typedef enum lucid_status {
  LUCID_OK = 0,
  LUCID_BAD_ARGUMENT = 1, /* an option is out of range or unknown, or this CPU lacks it */
  LUCID_BAD_FILE = 2,     /* missing, truncated, foreign or inconsistent */
  LUCID_BAD_NETWORK = 3,  /* its numbers could overflow */
  LUCID_BAD_IMAGE = 4,    /* a size that the network can't run on */
  LUCID_NO_MEMORY = 5,
  LUCID_FAILURE = 6
} lucid_status;

/* What is 0 or NULL is left to the engine. */
typedef struct lucid_options {
  const char* precision; /* "int8", "float32", "bfloat16" or "float32-split"; as stored */
  const char* isa;       /* a name of lucid_isa_name(); LUCID_ISA, or the best that runs here */
  int threads;           /* of one call; 1 */
} lucid_options;

/* One step of a run. Texts live as long as the engine. */
typedef struct lucid_step {
  const char* layer;         /* its name; of two that run in one go, the second's */
  double seconds;            /* the median */
  int64_t multiply_adds;
  size_t weight_bytes;
  size_t activation_bytes;   /* read and written */
} lucid_step;

/* Why this thread's last call that failed did so; valid until its next. Never NULL. */
LUCID_API const char* lucid_error(void);

/* `path` is UTF-8. `options` may be NULL. Nothing is kept of the bytes. */
LUCID_API lucid_status lucid_load_file(const char* path, const lucid_options* options,
                                       lucid_engine** engine);
LUCID_API lucid_status lucid_load_bytes(const void* bytes, size_t size,
                                        const lucid_options* options, lucid_engine** engine);
LUCID_API void lucid_free(lucid_engine* engine); /* NULL is fine */

LUCID_API int lucid_classes(const lucid_engine* engine);
LUCID_API const char* lucid_class_name(const lucid_engine* engine, int index); /* UTF-8, or NULL */
LUCID_API int lucid_channels(const lucid_engine* engine);   /* of the image, 3 for RGB */
LUCID_API int lucid_resolution(const lucid_engine* engine); /* that it was trained for, in pixels */
LUCID_API const char* lucid_precision(const lucid_engine* engine);
LUCID_API const char* lucid_isa(const lucid_engine* engine);

/* The instruction sets of this build for a precision, best first: the name of number `index`, or NULL
 * behind the last. `runnable` leaves out what this CPU lacks. */
LUCID_API const char* lucid_isa_name(const char* precision, int runnable, int index);

/* images: (count, height, width, channels) bytes -> logits: (count, classes). The first call for a
 * size plans it and allocates memory; later ones do neither. */
LUCID_API lucid_status lucid_run(lucid_engine* engine, const uint8_t* images, size_t count,
                                 int height, int width, float* logits);

/* Runs one image `repetitions` times. Writes at most `capacity` steps and how many there are. */
LUCID_API lucid_status lucid_profile(lucid_engine* engine, const uint8_t* image, int height,
                                     int width, int repetitions, lucid_step* steps, size_t capacity,
                                     size_t* count);

#ifdef __cplusplus
}
#endif

#endif
