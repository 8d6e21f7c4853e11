#include "common/host.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <cstring>

namespace pixelkernels {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

Capability detect() {
#if defined(__x86_64__)
  const char* asked = std::getenv("PIXELKERNELS_CPU_CAPABILITY");
  if (asked && std::strcmp(asked, "baseline") == 0) return Capability::kBaseline;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx2 && avx512 && (!asked || std::strcmp(asked, "avx512") == 0)) return Capability::kAvx512;
  if (avx2) return Capability::kAvx2;
#endif
  return Capability::kBaseline;
}

void advise_huge_pages(const Tensor& tensor, int64_t bytes) {
#if defined(__linux__)
  if (bytes < 2 * kHugePage) return;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (begin + bytes) / kHugePage * kHugePage;
  // advice: where the kernel declines, the pages are small and everything still works
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

int64_t element_size(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return 1;
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return 2;
    case ScalarType::Float:
    case ScalarType::Int:
      return 4;
    case ScalarType::Double:
    case ScalarType::Long:
      return 8;
    default:
      STD_TORCH_CHECK(false, "pixelkernels: unexpected dtype of an output");
  }
}

}  // namespace

Capability cpu_capability() {
  static const Capability capability = detect();
  return capability;
}

const char* cpu_capability_name() {
  switch (cpu_capability()) {
    case Capability::kAvx512:
      return "avx512";
    case Capability::kAvx2:
      return "avx2";
    case Capability::kBaseline:
      return "baseline";
  }
  return "";
}

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

Label label_of(const Tensor& labels) {
  STD_TORCH_CHECK(labels.is_contiguous(), "pixelkernels: labels must be contiguous");
  switch (labels.scalar_type()) {
    case ScalarType::Bool:
    case ScalarType::Byte:
      return Label::kUInt8;
    case ScalarType::Char:
      return Label::kInt8;
    case ScalarType::Short:
      return Label::kInt16;
    case ScalarType::Int:
      return Label::kInt32;
    case ScalarType::Long:
      return Label::kInt64;
    default:
      STD_TORCH_CHECK(false, "pixelkernels: unexpected dtype of labels");
  }
}

ScalarType accumulate_type(Element element) {
  return element == Element::kDouble ? ScalarType::Double : ScalarType::Float;
}

int64_t accumulate_size(Element element) { return element == Element::kDouble ? 8 : 4; }

View view_of(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 4, "pixelkernels: features must be [B, C, H, W]");
  const int64_t rows = tensor.size(2), columns = tensor.size(3);
  View view{tensor.data_ptr(), tensor.stride(0), tensor.stride(1),
            tensor.stride(2),  tensor.stride(3), columns};
  if (columns <= 1 && rows > 1) {
    view.pixel_stride = view.row_stride;
    view.row_length = rows;
  } else if (rows <= 1 || view.row_stride == columns * view.pixel_stride) {
    view.row_length = rows * columns;
  }
  if (view.row_length < 1) view.row_length = 1;
  return view;
}

Tensor output(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  Tensor out = torch::stable::new_empty(like, {shape.begin(), shape.size()}, type);
  advise_huge_pages(out, out.numel() * element_size(type));
  return out;
}

Tensor output_like(const Tensor& like) {
  Tensor out = torch::stable::empty_like(like);
  advise_huge_pages(out, out.numel() * element_size(out.scalar_type()));
  return out;
}

}  // namespace pixelkernels
