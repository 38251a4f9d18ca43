// lucid_engine.h in terms of Engine: every exception becomes a status and a text.

#include "lucid_engine.h"

#include <algorithm>
#include <exception>
#include <new>
#include <string>

#include "dispatch.h"
#include "engine.h"
#include "error.h"

struct lucid_engine {
  lucid::Engine engine;
};

namespace {

std::string& last_error() {
  thread_local std::string text;
  return text;
}

lucid_status fail(lucid_status status, const char* reason) noexcept {
  try {
    last_error() = reason;
  } catch (...) {
    last_error().clear();
  }
  return status;
}

lucid_status status_of(lucid::ErrorKind kind) {
  switch (kind) {
    case lucid::ErrorKind::kArgument:
      return LUCID_BAD_ARGUMENT;
    case lucid::ErrorKind::kFile:
      return LUCID_BAD_FILE;
    case lucid::ErrorKind::kNetwork:
      return LUCID_BAD_NETWORK;
    case lucid::ErrorKind::kImage:
      return LUCID_BAD_IMAGE;
  }
  return LUCID_FAILURE;
}

template <class Function>
lucid_status guarded(Function function) noexcept {
  try {
    function();
    return LUCID_OK;
  } catch (const lucid::Error& error) {
    return fail(status_of(error.kind()), error.what());
  } catch (const std::bad_alloc&) {
    return fail(LUCID_NO_MEMORY, "not enough memory");
  } catch (const std::exception& error) {
    return fail(LUCID_FAILURE, error.what());
  } catch (...) {
    return fail(LUCID_FAILURE, "unknown failure");
  }
}

void check(bool fine, const char* what) {
  if (!fine) throw lucid::Error(lucid::ErrorKind::kArgument, what);
}

lucid::Options to_options(const lucid_options* given) {
  lucid::Options options;
  if (given == nullptr) return options;
  if (given->precision != nullptr) options.precision = given->precision;
  if (given->isa != nullptr) options.isa = given->isa;
  if (given->threads != 0) options.threads = given->threads;
  check(options.threads > 0, "threads must be at least 1");
  return options;
}

}  // namespace

const char* lucid_error(void) { return last_error().c_str(); }

lucid_status lucid_load_file(const char* path, const lucid_options* options,
                             lucid_engine** engine) {
  return guarded([&] {
    check(path != nullptr && engine != nullptr, "path and engine must not be NULL");
    lucid::FileSource source(path);
    *engine = new lucid_engine{{source, to_options(options)}};
  });
}

lucid_status lucid_load_bytes(const void* bytes, size_t size, const lucid_options* options,
                              lucid_engine** engine) {
  return guarded([&] {
    check(bytes != nullptr && engine != nullptr, "bytes and engine must not be NULL");
    lucid::MemorySource source(bytes, size);
    *engine = new lucid_engine{{source, to_options(options)}};
  });
}

void lucid_free(lucid_engine* engine) { delete engine; }

int lucid_classes(const lucid_engine* engine) {
  return static_cast<int>(engine->engine.class_names().size());
}

const char* lucid_class_name(const lucid_engine* engine, int index) {
  const auto& names = engine->engine.class_names();
  if (index < 0 || index >= lucid_classes(engine)) return nullptr;
  return names[static_cast<std::size_t>(index)].c_str();
}

int lucid_channels(const lucid_engine* engine) { return engine->engine.channels(); }

int lucid_resolution(const lucid_engine* engine) { return engine->engine.resolution(); }

const char* lucid_precision(const lucid_engine* engine) {
  return lucid::precision_name(engine->engine.kernels().precision);
}

const char* lucid_isa(const lucid_engine* engine) { return engine->engine.kernels().isa; }

const char* lucid_isa_name(const char* precision, int runnable, int index) {
  const char* name = nullptr;
  guarded([&] {
    check(precision != nullptr, "precision must not be NULL");
    const auto sets = lucid::kernel_sets(lucid::parse_precision(precision), runnable != 0);
    if (index >= 0 && static_cast<std::size_t>(index) < sets.size()) {
      name = sets[static_cast<std::size_t>(index)]->isa;
    }
  });
  return name;
}

lucid_status lucid_run(lucid_engine* engine, const uint8_t* images, size_t count, int height,
                       int width, float* logits) {
  return guarded([&] {
    check(engine != nullptr && (count == 0 || (images != nullptr && logits != nullptr)),
          "engine, images and logits must not be NULL");
    engine->engine.run(images, count, height, width, logits);
  });
}

lucid_status lucid_profile(lucid_engine* engine, const uint8_t* image, int height, int width,
                           int repetitions, lucid_step* steps, size_t capacity, size_t* count) {
  return guarded([&] {
    check(engine != nullptr && image != nullptr && count != nullptr,
          "engine, image and count must not be NULL");
    check(steps != nullptr || capacity == 0, "steps must not be NULL");
    const auto found = engine->engine.profile(image, height, width, repetitions);
    *count = found.size();
    for (std::size_t k = 0; k < std::min(capacity, found.size()); ++k) {
      steps[k] = {found[k].layers.back()->name.c_str(), found[k].seconds, found[k].multiply_adds,
                  found[k].weight_bytes, found[k].activation_bytes};
    }
  });
}
