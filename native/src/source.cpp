#include "source.h"

#include <algorithm>
#include <cstring>

#include "error.h"

#if defined(_WIN32)
#include <filesystem>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#endif

namespace lucid {
namespace {

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kFile, message); }

constexpr char kUnreadable[] = "can't be read; it may have been changed meanwhile";
constexpr char kNoFile[] = "expected a file, found a folder or device";

}  // namespace

void MemorySource::read(std::uint64_t offset, void* to, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, data_ + offset, bytes);
}

#if defined(_WIN32)

FileSource::FileSource(const std::string& path) {
  const std::filesystem::path place = std::filesystem::u8path(path);
  std::error_code error;
  const auto status = std::filesystem::status(place, error);
  if (error) fail("can't be opened (" + error.message() + ")");
  if (!std::filesystem::is_regular_file(status)) fail(kNoFile);
  file_.open(place, std::ios::binary);
  file_.seekg(0, std::ios::end);
  const std::streamoff end = file_.tellg();
  if (!file_ || end < 0) fail("can't be opened");
  bytes_ = static_cast<std::uint64_t>(end);
}

void FileSource::read(std::uint64_t offset, void* to, std::size_t bytes) {
  file_.seekg(static_cast<std::streamoff>(offset));
  file_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
  if (!file_) fail(kUnreadable);
}

#else

// Should it be a pipe, O_NONBLOCK keeps from waiting for somebody to write to it.
FileSource::FileSource(const std::string& path)
    : file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  struct stat status {};
  if (file_ < 0 || ::fstat(file_, &status) != 0) {
    const int error = errno;
    if (file_ >= 0) ::close(file_);
    fail("can't be opened (" + std::generic_category().message(error) + ")");
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(file_);
    fail(kNoFile);
  }
  bytes_ = static_cast<std::uint64_t>(status.st_size);
}

FileSource::~FileSource() { ::close(file_); }

void FileSource::read(std::uint64_t offset, void* to, std::size_t bytes) {
  constexpr std::size_t kAtOnce = std::size_t{1} << 30;
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got =
        ::pread(file_, at, std::min(bytes, kAtOnce), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail(kUnreadable);
    at += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
}

#endif

}  // namespace lucid
