/* What each layer takes: model_execute.c calls model_profile when MODEL_PROFILE is defined.
 *
 * The clock is SysTick on a Cortex-M, which counts the core's cycles down in 24 bits (in QEMU with
 * -icount: instructions, times a factor); cycles on RISC-V; elsewhere the C library's clock. Where
 * SysTick is in use already, as under an operating system and most makers' libraries, or RISC-V's
 * counter is missing, define MODEL_TICKS: 32 bits that count up. That is Cortex-M's cycle counter,
 * once it is on: -D'MODEL_TICKS=(*(volatile uint32_t *)0xE0001004u)'.
 */
#ifndef MODEL_PROFILE_H
#define MODEL_PROFILE_H

#include <stdint.h>

#if defined(MODEL_TICKS)
static uint32_t ticks(void) { return MODEL_TICKS; }
#define TICK_MASK 0xffffffffu
#elif defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
static uint32_t ticks(void) {
  volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010u; /* control, reload, value */
  if ((systick[0] & 1u) == 0) {
    systick[1] = 0xffffffu;
    systick[2] = 0;
    systick[0] = 5; /* on, the core's clock, no interrupt */
  }
  return 0xffffffu - systick[2];
}
#define TICK_MASK 0xffffffu
#elif defined(__riscv)
static uint32_t ticks(void) {
  unsigned long cycles;
  __asm__ volatile("rdcycle %0" : "=r"(cycles));
  return (uint32_t)cycles;
}
#define TICK_MASK 0xffffffffu
#else
#include <time.h>
static uint32_t ticks(void) { return (uint32_t)clock(); }
#define TICK_MASK 0xffffffffu
#endif

static uint64_t layer_ticks[MODEL_LAYERS];
static uint32_t began;
static int current;

void model_profile(int layer);
void model_profile(int layer) {
  const uint32_t now = ticks();
  if (layer < 0) {
    layer_ticks[current] += (now - began) & TICK_MASK;
  } else {
    current = layer;
  }
  began = ticks();
}

static void print_ticks(void) {
  uint64_t total = 0;
  int k;
  for (k = 0; k < MODEL_LAYERS; ++k) {
    total += layer_ticks[k];
    printf("layer %d: %lu ticks\n", k, (unsigned long)layer_ticks[k]);
  }
  printf("in all: %lu ticks\n", (unsigned long)total);
}

#endif
