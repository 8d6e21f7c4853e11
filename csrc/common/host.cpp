#include "common/host.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace pixelkernels {
namespace {

constexpr int64_t kPage = 4096, kHugePage = int64_t{2} << 20, kPiece = int64_t{1} << 20;

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

// Whether fresh pages had better be huge.
bool huge_pages() {
#if defined(__linux__)
  static const bool huge = !free_pages_leave();
  return huge;
#else
  return false;
#endif
}

int64_t bytes_of(const Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}

// Advice on the whole pages in a range; where the kernel declines, everything still works.
void advise(const void* data, int64_t bytes, int64_t page, int advice) {
#if defined(__linux__)
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + page - 1) / page * page, end = (begin + bytes) / page * page;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, advice);
#endif
}

void ask_for_huge_pages(const Tensor& tensor) {
#if defined(__linux__)
  if (huge_pages() && bytes_of(tensor) >= 2 * kHugePage)
    advise(tensor.data_ptr(), bytes_of(tensor), kHugePage, MADV_HUGEPAGE);
#endif
}

void ready_all(const Tensor& tensor) {
  const int64_t bytes = bytes_of(tensor);
  const char* first = data<char>(tensor);
  if (bytes >= 2 * kHugePage)
    parallel((bytes + kPiece - 1) / kPiece, kPiece,
             [&](int64_t i) { ready(first + i * kPiece, std::min(kPiece, bytes - i * kPiece)); });
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
  ask_for_huge_pages(out);
  ready_all(out);
  return out;
}

Tensor output_like(const Tensor& like) {
  Tensor out = unready_like(like);
  ready_all(out);
  return out;
}

Tensor unready_like(const Tensor& like) {
  Tensor out = torch::stable::empty_like(like);
  ask_for_huge_pages(out);
  return out;
}

void ready(const void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
  if (!huge_pages()) advise(data, bytes, kPage, MADV_POPULATE_WRITE);
#endif
}

}  // namespace pixelkernels
