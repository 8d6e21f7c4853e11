#include "common/host.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

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

#if defined(__linux__)
// A balloon is virtio device 5, and its feature bit 5 says that it reports free pages to the host.
bool free_pages_leave() {
  std::string device, features;
  for (int i = 0;; ++i) {
    const std::string folder = "/sys/bus/virtio/devices/virtio" + std::to_string(i);
    if (!std::getline(std::ifstream(folder + "/device"), device)) return false;
    std::getline(std::ifstream(folder + "/features"), features);
    if (device == "0x0005" && features.size() > 5 && features[5] == '1') return true;
  }
}
#endif

void advise_huge_pages(const Tensor& tensor) {
#if defined(__linux__)
  static const bool worth = !free_pages_leave();
  const int64_t bytes = tensor.numel() * static_cast<int64_t>(tensor.element_size());
  if (!worth || bytes < 2 * kHugePage) return;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (begin + bytes) / kHugePage * kHugePage;
  // advice: where the kernel declines, the pages are small and everything still works
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
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

ScalarType accumulate_type(Element element) {
  return element == Element::kDouble ? ScalarType::Double : ScalarType::Float;
}

Tensor output(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  Tensor out = torch::stable::new_empty(like, {shape.begin(), shape.size()}, type);
  advise_huge_pages(out);
  return out;
}

Tensor output_like(const Tensor& like) {
  Tensor out = torch::stable::empty_like(like);
  advise_huge_pages(out);
  return out;
}

}  // namespace pixelkernels
