/* Starts a C program on a Cortex-M without an operating system, in QEMU. Its files, its console and
 * its arguments are those of the host, by semihosting:
 *
 *     arm-none-eabi-gcc -mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16 -O2 main.c start.c \
 *         -nostartfiles --specs=rdimon.specs -L examples/bare_metal -T mps2-an386.ld -o main.elf
 *     qemu-system-arm -M mps2-an386 -nographic -kernel main.elf \
 *         -semihosting-config enable=on,target=native,arg=main.elf,arg=image.raw
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define MAX_ARGUMENTS 8

extern uint32_t stack_top;             /* the linker's: the end of the memory, */
extern char end;                       /* and what behind all variables is free */
extern void initialise_monitor_handles(void);
extern void __libc_init_array(void);
extern int main(int argc, char *argv[]);

void _init(void);
void _fini(void);
void *_sbrk(ptrdiff_t bytes);
void reset(void);
void fault(void);

void _init(void) {}
void _fini(void) {}

/* malloc's memory. */
void *_sbrk(ptrdiff_t bytes) {
  static char *heap_end = &end;
  char *const begin = heap_end;
  heap_end += bytes;
  return begin;
}

/* Asks the host. */
static int semihosting(int operation, const void *arguments) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static int read_arguments(char *argv[]) {
  static char line[512];
  struct {
    char *place;
    uint32_t bytes;
  } block = {line, sizeof line};
  char *at = line;
  int argc = 0;
  if (semihosting(0x15, &block) != 0) return 0; /* SYS_GET_CMDLINE */
  while (*at != '\0' && argc < MAX_ARGUMENTS) {
    argv[argc++] = at;
    while (*at != '\0' && *at != ' ') ++at;
    if (*at == ' ') *at++ = '\0';
  }
  return argc;
}

void reset(void) {
  static char *argv[MAX_ARGUMENTS + 1];
  volatile uint32_t *const access = (volatile uint32_t *)0xE000ED88u; /* CPACR */
  *access |= 0xFu << 20; /* the FPU, and with it the vector unit, are off after a reset */
  __asm__ volatile("dsb\n isb");
  initialise_monitor_handles();
  __libc_init_array();
  exit(main(read_arguments(argv), argv));
}

void fault(void) {
  static const uint32_t kReason[2] = {0x20024, 101}; /* an internal error; QEMU's exit status */
  semihosting(0x20, kReason);                        /* SYS_EXIT_EXTENDED */
  for (;;) {
  }
}

typedef struct {
  uint32_t *stack;
  void (*handlers[15])(void);
} vectors;

__attribute__((section(".vectors"), used)) static const vectors kVectors = {
    &stack_top,
    {reset, fault, fault, fault, fault, fault, fault, 0, 0, 0, fault, fault, 0, fault, fault},
};
