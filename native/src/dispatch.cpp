#include "dispatch.h"

#include <algorithm>
#include <cstdlib>

#include "cpu.h"
#include "error.h"
#include "kernel_list.h"  // made by CMake from kernels.cmake

namespace lucid {

#define LUCID_DECLARE(set) extern const KernelSet set;
LUCID_KERNEL_SETS(LUCID_DECLARE)
#undef LUCID_DECLARE

namespace {

// Best first within each precision. The scalar sets need nothing, so automatic choice succeeds for
// every precision that has one.
#define LUCID_ADDRESS(set) &set,
constexpr const KernelSet* kKernelSets[] = {LUCID_KERNEL_SETS(LUCID_ADDRESS)};
#undef LUCID_ADDRESS

struct PrecisionName {
  Precision precision;
  const char* name;
};

constexpr PrecisionName kPrecisions[] = {{Precision::kInt8, "int8"},
                                         {Precision::kFloat32, "float32"},
                                         {Precision::kBfloat16, "bfloat16"},
                                         {Precision::kFloat32Split, "float32-split"}};

bool runs_here(const KernelSet& set) { return (set.features & ~cpu_features()) == 0; }

std::string names_of(const std::vector<const KernelSet*>& sets) {
  std::string names;
  for (const KernelSet* set : sets) names += (names.empty() ? "" : ", ") + std::string(set->isa);
  return names.empty() ? "none" : names;
}

}  // namespace

const char* precision_name(Precision precision) {
  for (const PrecisionName& row : kPrecisions) {
    if (row.precision == precision) return row.name;
  }
  return "";
}

Precision parse_precision(const std::string& name) {
  std::string names;
  for (const PrecisionName& row : kPrecisions) {
    if (name == row.name) return row.precision;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorKind::kArgument,
              "precision must be one of " + names + ", got " + in_quotes(name));
}

std::vector<const KernelSet*> kernel_sets(Precision precision, bool runnable_only) {
  std::vector<const KernelSet*> found;
  for (const KernelSet* set : kKernelSets) {
    if (set->precision == precision && (!runnable_only || runs_here(*set))) found.push_back(set);
  }
  return found;
}

const KernelSet& choose_kernel_set(Precision precision, const std::string& isa) {
  const char* variable = std::getenv("LUCID_ISA");
  const bool forced = isa.empty() && variable != nullptr && *variable != '\0';
  const std::string wanted = forced ? variable : isa;
  const std::string who = forced ? "LUCID_ISA" : "isa";
  const auto runnable = kernel_sets(precision, true);
  if (wanted.empty()) {
    if (!runnable.empty()) return *runnable.front();
    throw Error(ErrorKind::kArgument, std::string(precision_name(precision)) +
                                          " needs a CPU with one of: " +
                                          names_of(kernel_sets(precision, false)));
  }
  const auto is_wanted = [&](const KernelSet* set) { return wanted == set->isa; };
  const auto found = std::find_if(runnable.begin(), runnable.end(), is_wanted);
  if (found != runnable.end()) return **found;
  const auto built = kernel_sets(precision, false);
  const bool known = std::any_of(built.begin(), built.end(), is_wanted);
  throw Error(ErrorKind::kArgument,
              who + ": " +
                  (known ? "this CPU lacks " + in_quotes(wanted)
                         : in_quotes(wanted) + " is no instruction set of this build for " +
                               precision_name(precision)) +
                  "; here run: " + names_of(runnable));
}

}  // namespace lucid
