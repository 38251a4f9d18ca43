/* An image and its logits, for the examples. */
#ifndef MODEL_IMAGE_H
#define MODEL_IMAGE_H

#include "model.h"

static const uint8_t kImage[MODEL_IMAGE_BYTES] = {
@IMAGE@};

#ifndef ARDUINO /* whose C++ may lack hexadecimal floats */
static const float kLogits[MODEL_CLASSES] = {
@LOGITS@};
#endif

#endif
