// Outputs, and what the first write to their pages costs.
#include "common/outputs.h"

#include "common/parallel.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
// Linux's own numbers, which older headers lack; a kernel that does not know them declines.
#ifndef MADV_FREE
#define MADV_FREE 8
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#include <algorithm>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

// One of the stable ABI's from torch 2.11 on; before it, there is none.
extern "C" __attribute__((weak)) AOTITorchError
torch_from_blob(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                int64_t offset, int32_t dtype, int32_t device_type, int32_t device_index,
                AtenTensorHandle* result, int32_t layout, const uint8_t* metadata,
                int64_t metadata_size, void (*deleter)(void* data, void* context), void* context);

namespace pixelkernels {
namespace {

constexpr int64_t kPage = 4096, kHugePage = int64_t{2} << 20, kPiece = int64_t{1} << 20;
// Smaller ones malloc gives out again, most often without returning them to the system.
constexpr int64_t kLeastKept = int64_t{8} << 20;
constexpr size_t kMostKept = 4;
// More than the caches hold until somebody reads it.
constexpr int64_t kPastCaches = int64_t{32} << 20;

int64_t bytes_of(const Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
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

// Whether fresh pages had better be huge.
bool huge_pages() {
  static const bool huge = !free_pages_leave();
  return huge;
}

// Advice on the whole pages in a range; where the kernel declines, everything still works.
void advise(const void* data, int64_t bytes, int64_t page, int advice) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + page - 1) / page * page, end = (begin + bytes) / page * page;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, advice);
}

void ask_for_huge_pages(const void* data, int64_t bytes) {
  if (huge_pages() && bytes >= 2 * kHugePage) advise(data, bytes, kHugePage, MADV_HUGEPAGE);
}

// Memory of outputs that were freed, the last one at the end. A training step soon asks for that
// one again; the system may have the pages of the others, which makes the next write to each cost
// more.
class Kept {
 public:
  // Leaked on purpose: tensors may outlive what is static.
  static Kept& all() {
    static Kept* const kept = new Kept;
    return *kept;
  }

  // so many bytes, or a null pointer
  void* take(int64_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block)
        if (block->bytes == bytes) {
          void* data = block->data;
          blocks_.erase(std::next(block).base());
          return data;
        }
    }
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    ask_for_huge_pages(data, bytes);
    return data;
  }

  void keep(void* data, int64_t bytes) {
    Block oldest{};
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // not of a block that was given out in the meantime
      if (!blocks_.empty()) madvise(blocks_.back().data, blocks_.back().bytes, MADV_FREE);
      if (blocks_.size() == kMostKept) {
        oldest = blocks_.front();
        blocks_.erase(blocks_.begin());
      }
      blocks_.push_back({data, bytes});
    }
    if (oldest.data) munmap(oldest.data, oldest.bytes);
  }

  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Block& block : blocks_) munmap(block.data, block.bytes);
    blocks_.clear();
  }

 private:
  struct Block {
    void* data;
    int64_t bytes;
  };
  std::mutex mutex_;
  std::vector<Block> blocks_;
};

// `fresh`, of which nothing was touched so far, or one like it in kept memory.
Tensor placed(Tensor fresh) {
  const int64_t bytes = bytes_of(fresh);
  void* data = torch_from_blob && bytes >= kLeastKept ? Kept::all().take(bytes) : nullptr;
  if (!data) {
    ask_for_huge_pages(fresh.data_ptr(), bytes);
    return fresh;
  }
  int32_t dtype;
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(fresh.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(torch_from_blob(
      data, fresh.dim(), fresh.sizes().data(), fresh.strides().data(), 0, dtype,
      aoti_torch_device_type_cpu(), -1, &handle, aoti_torch_layout_strided(), nullptr, 0,
      [](void* data, void* bytes) { Kept::all().keep(data, reinterpret_cast<intptr_t>(bytes)); },
      reinterpret_cast<void*>(static_cast<intptr_t>(bytes))));
  return Tensor(handle);
}
#else
Tensor placed(Tensor fresh) { return fresh; }
#endif

// The stable ABI says which of its functions failed, not why.
Tensor new_empty(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  try {
    return torch::stable::new_empty(like, {shape.begin(), shape.size()}, type);
  } catch (const std::exception&) {
    std::string sizes;
    for (int64_t size : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    STD_TORCH_CHECK(false, "pixelkernels: cannot allocate a tensor of shape [", sizes, "]");
  }
}

void ready_all(const Tensor& tensor) {
  const int64_t bytes = bytes_of(tensor);
  const char* first = data<char>(tensor);
  if (bytes >= 2 * kHugePage)
    parallel((bytes + kPiece - 1) / kPiece, kPiece,
             [&](int64_t i) { ready(first + i * kPiece, std::min(kPiece, bytes - i * kPiece)); });
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

Tensor output(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  Tensor out = placed(new_empty(like, shape, type));
  ready_all(out);
  return out;
}

Tensor output_like(const Tensor& like) {
  Tensor out = unready_like(like);
  ready_all(out);
  return out;
}

Tensor unready_like(const Tensor& like) { return placed(torch::stable::empty_like(like)); }

bool past_caches(const Tensor& output) {
#if defined(__x86_64__)
  return bytes_of(output) >= kPastCaches;
#else
  return false;  // store_all has no other way there
#endif
}

void release_memory() {
#if defined(__linux__)
  Kept::all().release();
#endif
}

void ready(const void* data, int64_t bytes) {
#if defined(__linux__)
  if (!huge_pages()) advise(data, bytes, kPage, MADV_POPULATE_WRITE);
#endif
}

}  // namespace pixelkernels
