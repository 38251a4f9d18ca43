// What this CPU could do at most, measured: the limits that a layer's time is compared with.

#pragma once

#include <cstddef>

#include "kernels.h"

namespace lucid {

struct Peak {
  const char* instruction = "";  // that does a kernel set's products; none is known of plain C++
  double multiply_adds = 0;      // that one thread can do in a second
};

// Runs nothing but the instruction by which a set is bound, on registers full of random numbers,
// for about so many seconds; the fastest of many short loops counts.
Peak measure_peak(const KernelSet& set, double seconds);

// Bytes that one thread can load in a second from an array of about so many, read again and again:
// of the L1 cache, say, when the array fits it. 0 where no vector loads are known.
double measure_bandwidth(std::size_t bytes, double seconds);

}  // namespace lucid
