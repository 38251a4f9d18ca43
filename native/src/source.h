// Where the bytes of a network file come from. They are read, not mapped: what is checked can't
// change any more, and a file that is cut off meanwhile is an error instead of a signal.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#if defined(_WIN32)
#include <fstream>
#endif

namespace lucid {

class Source {
 public:
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  virtual ~Source() = default;
  virtual std::uint64_t size() const = 0;
  // The range lies within the source.
  virtual void read(std::uint64_t offset, void* to, std::size_t bytes) = 0;
};

class MemorySource : public Source {
 public:
  MemorySource(const void* data, std::size_t bytes)
      : data_(static_cast<const char*>(data)), bytes_(bytes) {}
  std::uint64_t size() const override { return bytes_; }
  void read(std::uint64_t offset, void* to, std::size_t bytes) override;

 private:
  const char* data_;
  std::size_t bytes_;
};

class FileSource : public Source {
 public:
  // `path` is UTF-8. Throws Error(kFile).
  explicit FileSource(const std::string& path);
  std::uint64_t size() const override { return bytes_; }
  void read(std::uint64_t offset, void* to, std::size_t bytes) override;

#if defined(_WIN32)
 private:
  std::ifstream file_;
#else
  ~FileSource() override;

 private:
  int file_;
#endif
  std::uint64_t bytes_ = 0;
};

}  // namespace lucid
