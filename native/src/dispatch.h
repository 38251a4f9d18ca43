// Which kernel sets this build has, and which of them the engine takes.

#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace lucid {

// As users spell it: "int8", "float32", "bfloat16" or "float32-split".
const char* precision_name(Precision precision);
// Throws Error(kArgument) that lists the names.
Precision parse_precision(const std::string& name);

// The sets of a precision, best first; only those that this CPU can execute, or all of the build.
std::vector<const KernelSet*> kernel_sets(Precision precision, bool runnable_only);

// The set named `isa`; where that is empty, the one that the variable LUCID_ISA names, or the best.
// Throws Error(kArgument) when it is unknown, lacks the precision or can't run here.
const KernelSet& choose_kernel_set(Precision precision, const std::string& isa);

}  // namespace lucid
