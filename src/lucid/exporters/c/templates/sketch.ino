// Classifies the image of model_image.h again and again; open the serial monitor at 115200 baud.

#include <model.h>
#include <model_image.h>

static model_state state;
static float probabilities[MODEL_CLASSES];

void setup() { Serial.begin(115200); }

void loop() {
  const unsigned long start = millis();
  const int best = model_classify(&state, kImage, probabilities);
  const unsigned long taken = millis() - start;
  Serial.print(model_class_names[best]);
  Serial.print(", ");
  Serial.print(100.0f * probabilities[best]);
  Serial.print("%, ");
  Serial.print(taken);
  Serial.println(" ms");
  delay(1000);
}
