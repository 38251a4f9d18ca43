#include "memory.h"

#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lucid {
namespace {

#if defined(__linux__)

// From here on memory comes from the system, which zeroes it page by page when it is first
// touched, and takes it back at once. In huge pages only if there is much: a virtual machine may
// have to find them first, which takes milliseconds, but float32 weights of width 1.0, whose small
// pages would not all be in the table of translations, are read up to twice as fast.
constexpr std::size_t kPaged = std::size_t{128} << 10;
constexpr std::size_t kHuge = std::size_t{8} << 20;

bool is_paged(std::size_t bytes) { return bytes >= kPaged; }

void* take_pages(std::size_t bytes) {
  void* const pages =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  if (bytes >= kHuge) madvise(pages, bytes, MADV_HUGEPAGE);
  return pages;
}

void free_pages(void* pages, std::size_t bytes) { munmap(pages, bytes); }

#else

bool is_paged(std::size_t) { return false; }
void* take_pages(std::size_t) { return nullptr; }
void free_pages(void*, std::size_t) {}

#endif

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(aligned(bytes)) {
  if (bytes_ == 0) return;
  if (is_paged(bytes_)) {
    data_ = static_cast<char*>(take_pages(bytes_));
    return;
  }
  data_ = static_cast<char*>(::operator new(bytes_, std::align_val_t{kAlignment}));
  std::memset(data_, 0, bytes_);
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (is_paged(bytes_)) {
    free_pages(data_, bytes_);
  } else {
    ::operator delete(data_, std::align_val_t{kAlignment});
  }
}

}  // namespace lucid
