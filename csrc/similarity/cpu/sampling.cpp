// The CPU side of the order by class, and of sampling ranks within a class.
#include <algorithm>
#include <tuple>
#include <vector>

#include "common/outputs.h"
#include "common/parallel.h"
#include "common/permutation.h"

namespace pixelkernels::similarity {
namespace {

// A counting sort: the positions of each class stay in order, the ignored ones come last.
std::tuple<Tensor, Tensor> points_by_class(Tensor labels, int64_t classes) {
  const int64_t images = labels.size(0), points = labels.size(1);
  Tensor order = output(labels, {images, points}, ScalarType::Long);
  Tensor offsets = output(labels, {images, classes + 1}, ScalarType::Long);
  parallel(images, 4 * points, [&](int64_t image) {
    with_label(label_of(labels), [&](auto like) {
      using L = decltype(like);
      const L* label = data<L>(labels) + image * points;
      const auto class_of = [&](int64_t i) {
        const int64_t c = static_cast<int64_t>(label[i]);
        return c >= 0 && c < classes ? c : classes;
      };
      std::vector<int64_t> next(classes + 2);
      for (int64_t i = 0; i < points; ++i) ++next[class_of(i) + 1];
      for (int64_t c = 0; c <= classes; ++c) next[c + 1] += next[c];
      std::copy_n(next.begin(), classes + 1, data<int64_t>(offsets) + image * (classes + 1));
      int64_t* out = data<int64_t>(order) + image * points;
      for (int64_t i = 0; i < points; ++i) out[next[class_of(i)]++] = i;
    });
  });
  return {order, offsets};
}

Tensor sample_ranks(Tensor counts, Tensor seed, int64_t num) {
  STD_TORCH_CHECK(counts.is_contiguous() && counts.scalar_type() == ScalarType::Long,
                  "pixelkernels: counts must be contiguous, in int64");
  Tensor ranks = output(counts, {counts.size(0), counts.size(1), num}, ScalarType::Long);
  const uint64_t key = static_cast<uint64_t>(*data<int64_t>(seed));
  parallel(counts.numel(), 40 * num, [&](int64_t set) {
    const int64_t n = data<int64_t>(counts)[set], drawn = std::min(n, num);
    const Permutation permutation(key, set, n);
    int64_t* out = data<int64_t>(ranks) + set * num;
    permutation.first(drawn, [&](int64_t i, uint32_t rank) { out[i] = rank; });
    std::fill(out + drawn, out + num, -1);
  });
  return ranks;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("points_by_class", TORCH_BOX(&points_by_class));
  m.impl("sample_ranks", TORCH_BOX(&sample_ranks));
}

}  // namespace pixelkernels::similarity
