#include "memory.h"

#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lucid {
namespace {

// From here on a buffer takes whole huge pages: fewer of them have to be looked up, and the kernel
// hands them out in one go.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t{bytes >= kHugePage ? kHugePage : kAlignment};
}

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(aligned(bytes)) {
  if (bytes_ == 0) return;
  data_ = static_cast<char*>(::operator new(bytes_, alignment_of(bytes_)));
#if defined(__linux__)
  if (bytes_ >= kHugePage) madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
  std::memset(data_, 0, bytes_);
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::operator delete(data_, alignment_of(bytes_));
}

}  // namespace lucid
