// The CPU side of sampling: ranks of pixels within their class.
#include <algorithm>

#include "common/host.h"
#include "common/permutation.h"

namespace pixelkernels {
namespace {

Tensor sample_ranks(Tensor counts, Tensor seed, int64_t num) {
  STD_TORCH_CHECK(counts.is_contiguous() && counts.scalar_type() == ScalarType::Long,
                  "pixelkernels: counts must be contiguous, in int64");
  Tensor ranks = output(counts, {counts.size(0), counts.size(1), num}, ScalarType::Long);
  const uint64_t key = static_cast<uint64_t>(*data<int64_t>(seed));
  parallel(counts.numel(), 40 * num, [&](int64_t set) {
    const int64_t n = data<int64_t>(counts)[set], drawn = std::min(n, num);
    const Permutation permutation(key, set, n);
    int64_t* out = data<int64_t>(ranks) + set * num;
    for (int64_t i = 0; i < drawn; ++i) out[i] = permutation[static_cast<uint32_t>(i)];
    std::fill(out + drawn, out + num, -1);
  });
  return ranks;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("sample_ranks", TORCH_BOX(&sample_ranks));
}

}  // namespace pixelkernels
