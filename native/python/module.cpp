// lucid._native: the engine as Python's lucid.engine sees it. Arguments are plain; what they mean for
// users, and the errors they get, is up to lucid.engine.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "dispatch.h"
#include "engine.h"
#include "error.h"
#include "peak.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using lucid::Engine;
using Images = nb::ndarray<const std::uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Every Error becomes the exception of lucid.errors that fits its kind.
void translate(const std::exception_ptr& pointer, void*) {
  try {
    std::rethrow_exception(pointer);
  } catch (const lucid::Error& error) {
    const char* name = "NetworkError";
    if (error.kind() == lucid::ErrorKind::kArgument) name = "ConfigError";
    if (error.kind() == lucid::ErrorKind::kFile) name = "CheckpointError";
    if (error.kind() == lucid::ErrorKind::kImage) name = "ShapeError";
    const nb::object type = nb::module_::import_("lucid.errors").attr(name);
    PyErr_SetString(type.ptr(), error.what());
  }
}

std::unique_ptr<Engine> load(lucid::Source& source, const std::string& precision,
                             const std::string& isa, int threads) {
  const nb::gil_scoped_release released;
  return std::make_unique<Engine>(source, lucid::Options{precision, isa, threads});
}

std::unique_ptr<Engine> load_file(const std::string& path, const std::string& precision,
                                  const std::string& isa, int threads) {
  lucid::FileSource source(path);
  return load(source, precision, isa, threads);
}

std::unique_ptr<Engine> load_bytes(const nb::bytes& content, const std::string& precision,
                                   const std::string& isa, int threads) {
  lucid::MemorySource source(content.data(), content.size());
  return load(source, precision, isa, threads);
}

// The native side counts pixels in int and refuses what is far smaller than its end.
int to_side(std::size_t side) {
  return static_cast<int>(std::min<std::size_t>(side, std::numeric_limits<int>::max()));
}

void plan(Engine& engine, std::size_t height, std::size_t width) {
  engine.plan(to_side(height), to_side(width));
}

// The caller has checked that channels and classes are the network's.
void run(Engine& engine, const Images& images, const Logits& logits) {
  const nb::gil_scoped_release released;
  const std::size_t count = images.shape(0);
  const std::size_t height = images.shape(1), width = images.shape(2);
  engine.run(images.data(), count, to_side(height), to_side(width), logits.data());
}

nb::list profile(Engine& engine, const Images& images, int repetitions) {
  std::vector<lucid::StepProfile> rows;
  {
    const nb::gil_scoped_release released;
    rows = engine.profile(images.data(), to_side(images.shape(1)), to_side(images.shape(2)),
                          repetitions);
  }
  nb::list found;
  for (const lucid::StepProfile& row : rows) {
    nb::list layers;
    for (const lucid::Layer* layer : row.layers) layers.append(layer->name);
    found.append(nb::make_tuple(layers, row.seconds, row.multiply_adds, row.weight_bytes,
                                row.activation_bytes));
  }
  return found;
}

nb::list isas(const std::string& precision, bool runnable) {
  nb::list names;
  for (const auto* set : lucid::kernel_sets(lucid::parse_precision(precision), runnable)) {
    names.append(set->isa);
  }
  return names;
}

nb::tuple measure_peak(const std::string& precision, const std::string& isa, double seconds) {
  const auto& set = lucid::choose_kernel_set(lucid::parse_precision(precision), isa);
  lucid::Peak peak;
  {
    const nb::gil_scoped_release released;
    peak = lucid::measure_peak(set, seconds);
  }
  return nb::make_tuple(peak.instruction, peak.multiply_adds);
}

}  // namespace

NB_MODULE(_native, module) {
  nb::register_exception_translator(translate);
  nb::class_<Engine>(module, "Engine")
      .def_prop_ro("isa", [](const Engine& engine) { return engine.kernels().isa; })
      .def_prop_ro("precision",
                   [](const Engine& engine) {
                     return lucid::precision_name(engine.kernels().precision);
                   })
      .def_prop_ro("threads", &Engine::threads)
      .def_prop_ro("weight_bytes", &Engine::weight_bytes)
      .def_prop_ro("text", &Engine::text)
      .def("plan", &plan, "height"_a, "width"_a)
      .def("run", &run, "images"_a, "logits"_a)
      .def("profile", &profile, "images"_a, "repetitions"_a)
      .def("fill_workspaces", &Engine::fill_workspaces, "byte"_a);
  module.def("load_file", &load_file, "path"_a, "precision"_a, "isa"_a, "threads"_a);
  module.def("load_bytes", &load_bytes, "content"_a, "precision"_a, "isa"_a, "threads"_a);
  module.def("isas", &isas, "precision"_a, "runnable"_a);
  module.def("measure_peak", &measure_peak, "precision"_a, "isa"_a, "seconds"_a);
  module.def("measure_bandwidth", &lucid::measure_bandwidth, "bytes"_a, "seconds"_a,
             nb::call_guard<nb::gil_scoped_release>());
}
