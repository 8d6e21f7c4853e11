#include "common/outputs.h"

#include <string>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pixelkernels {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;
// More than the caches keep until the output is read.
constexpr int64_t kPastCaches = int64_t{32} << 20;

int64_t bytes_of(const Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

// Asks for huge pages before the first write to a large tensor, which would otherwise take a page
// fault per 4 KiB. A kernel may ignore it.
Tensor with_huge_pages(Tensor fresh) {
#if defined(__linux__)
  const int64_t bytes = bytes_of(fresh);
  if (bytes < 2 * kHugePage) return fresh;
  const auto data = reinterpret_cast<uintptr_t>(fresh.data_ptr());
  const uintptr_t begin = (data + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (data + bytes) / kHugePage * kHugePage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  return fresh;
}

// The stable ABI reports which function failed, not why.
Tensor new_empty(const Tensor& like, Shape shape, ScalarType type) {
  try {
    return torch::stable::new_empty(like, shape, type);
  } catch (const std::exception&) {
    std::string sizes;
    for (int64_t size : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    STD_TORCH_CHECK(false, "pixelkernels: cannot allocate a tensor of shape [", sizes, "]");
  }
}

}  // namespace

Element element_of(const Tensor& features) {
  switch (features.scalar_type()) {
    case ScalarType::Half:
      return Element::kHalf;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    case ScalarType::Float:
      return Element::kFloat;
    case ScalarType::Double:
      return Element::kDouble;
    default:
      STD_TORCH_CHECK(false, "pixelkernels: unexpected dtype of features");
  }
}

ScalarType accumulate_type(Element element) {
  return element == Element::kDouble ? ScalarType::Double : ScalarType::Float;
}

Tensor output(const Tensor& like, Shape shape, ScalarType type) {
  return with_huge_pages(new_empty(like, shape, type));
}

Tensor output_like(const Tensor& like) { return with_huge_pages(torch::stable::empty_like(like)); }

bool past_caches(const Tensor& output) {
#if defined(__x86_64__)
  return bytes_of(output) >= kPastCaches;
#else
  return false;  // store_all has no non-temporal stores there
#endif
}

}  // namespace pixelkernels
