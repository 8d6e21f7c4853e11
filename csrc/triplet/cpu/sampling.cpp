// The CPU side of drawing random pixels of a mask.
#include <algorithm>
#include <cstring>
#include <memory>

#include "common/outputs.h"
#include "common/permutation.h"

namespace pixelkernels::triplet {
namespace {

// The positions of the set bits of eight pixels, in order.
struct Chosen {
  uint8_t index[256][8] = {}, count[256] = {};
  constexpr Chosen() {
    for (int bits = 0; bits < 256; ++bits)
      for (uint8_t k = 0; k < 8; ++k)
        if (bits >> k & 1) index[bits][count[bits]++] = k;
  }
};
constexpr Chosen kChosen;

// Lists the True pixels without data-dependent branches; returns their number. The list is padded
// by eight.
int64_t list_inside(const uint8_t* inside, int64_t pixels, int32_t* index) {
  constexpr uint64_t kGatherBits = 0x0102040810204080;
  int64_t count = 0;
  for (int64_t i = 0; i < pixels; i += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, inside + i, std::min<int64_t>(8, pixels - i));
    const int bits = static_cast<int>(eight * kGatherBits >> 56);
    for (int k = 0; k < 8; ++k) index[count + k] = static_cast<int32_t>(i) + kChosen.index[bits][k];
    count += kChosen.count[bits];
  }
  return count;
}

// All seeds share one list of the True pixels.
Tensor draw_pixels(Tensor mask, Tensor seeds, int64_t num) {
  STD_TORCH_CHECK(mask.is_contiguous() && mask.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the mask must be contiguous, in bool");
  const int64_t images = mask.size(0), pixels = mask.size(1) * mask.size(2), sets = seeds.size(0);
  Tensor drawn = output(seeds, {images, sets, num}, ScalarType::Long);
  torch::stable::parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<int32_t[]> index(new int32_t[pixels + 8]);
    for (int64_t image = begin; image < end; ++image) {
      const int64_t count = list_inside(data<uint8_t>(mask) + image * pixels, pixels, index.get());
      for (int64_t set = 0; set < sets; ++set) {
        const uint64_t seed = static_cast<uint64_t>(data<int64_t>(seeds)[set]);
        const Permutation permutation(seed, image, count);
        int64_t* out = data<int64_t>(drawn) + (image * sets + set) * num;
        const int64_t some = std::min(count, num);
        permutation.first(some, [&](int64_t i, uint32_t rank) { out[i] = index[rank]; });
        std::fill(out + some, out + num, -1);
      }
    }
  });
  return drawn;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) { m.impl("draw_pixels", TORCH_BOX(&draw_pixels)); }

}  // namespace pixelkernels::triplet
