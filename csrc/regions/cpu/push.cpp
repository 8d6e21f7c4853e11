// The CPU side of the push term between region means.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "common/outputs.h"
#include "common/parallel.h"

namespace pixelkernels::regions {
namespace {

// One centroid against all others of its image: its share of the push term, and its whole gradient,
// in which each pair counts for both of its orders.
template <class A>
double push_of(const A* mean, const bool* present, int64_t regions, int64_t channels, int64_t own,
               double delta, int64_t norm, A* gradient) {
  std::fill_n(gradient, channels, A{0});
  if (!present[own]) return 0;
  const A* a = mean + own * channels;
  double push = 0;
  for (int64_t other = 0; other < regions; ++other) {
    if (other == own || !present[other]) continue;
    const A* b = mean + other * channels;
    double distance = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const double d = static_cast<double>(a[c]) - static_cast<double>(b[c]);
      distance += norm == 1 ? std::abs(d) : d * d;
    }
    if (norm == 2) distance = std::sqrt(distance);
    const double hinge = 2 * delta - distance;
    if (hinge <= 0) continue;
    push += hinge * hinge;
    const double factor = norm == 1 ? 4 * hinge : distance == 0 ? 0 : 4 * hinge / distance;
    for (int64_t c = 0; c < channels; ++c) {
      const double d = static_cast<double>(a[c]) - static_cast<double>(b[c]);
      gradient[c] -= static_cast<A>(factor * (norm == 1 ? (d > 0) - (d < 0) : d));
    }
  }
  return push;
}

std::tuple<Tensor, Tensor> region_push(Tensor mean, Tensor present, double delta, int64_t norm) {
  const int64_t batch = mean.size(0), regions = mean.size(1), channels = mean.size(2);
  STD_TORCH_CHECK(mean.is_contiguous() && present.is_contiguous(),
                  "region_push: expected contiguous tensors");
  Tensor push = output(mean, {batch}, mean.scalar_type()), gradient = output_like(mean);
  std::vector<double> rows(batch * regions);
  const auto run = [&](auto* values, auto* out, auto* total) {
    parallel(batch * regions, regions * channels, [&](int64_t i) {
      const int64_t image = i / regions;
      rows[i] = push_of(values + image * regions * channels, data<bool>(present) + image * regions,
                        regions, channels, i % regions, delta, norm, out + i * channels);
    });
    for (int64_t image = 0; image < batch; ++image) {
      double sum = 0;
      for (int64_t region = 0; region < regions; ++region) sum += rows[image * regions + region];
      total[image] = static_cast<std::decay_t<decltype(*total)>>(sum);
    }
  };
  if (mean.scalar_type() == ScalarType::Double)
    run(data<double>(mean), data<double>(gradient), data<double>(push));
  else
    run(data<float>(mean), data<float>(gradient), data<float>(push));
  return {push, gradient};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) { m.impl("region_push", TORCH_BOX(&region_push)); }

}  // namespace pixelkernels::regions
