// The regions kernels of one instruction set.
#include "regions/simd/distance.h"
#include "regions/simd/statistics.h"
#include "regions/simd/statistics_gradient.h"

namespace pixelkernels::regions::PK_ISA {
namespace {

template <class A>
void pack(const PackArgs& s, int64_t image) {
  const Input& in = s.input;
  A* table = static_cast<A*>(s.table) + image * in.table();
  clear(table, in.table());
  for (int64_t region = 0; region < in.regions; ++region) {
    const int64_t row = image * in.regions + region;
    const int64_t count = s.count ? s.count[row] : 1;
    if (count == 0) continue;
    const A* values = s.values ? static_cast<const A*>(s.values) + row * in.channels : nullptr;
    const A* minus = s.minus ? static_cast<const A*>(s.minus) + row * in.channels : nullptr;
    const A factor = minus && s.factor ? 2 * static_cast<const A*>(s.factor)[row] : 0;
    for (int64_t c = 0; c < in.channels; ++c) {
      A value = values ? values[c] : 0;
      if (factor != 0) value -= factor * minus[c];
      table[(c / kLanes * (in.regions + 1) + region) * kLanes + c % kLanes] =
          value / static_cast<A>(count);
    }
  }
}

template <class A>
void pack_scale(const Input& in, const void* values, const int64_t* count, void* out,
                int64_t image) {
  A* scale = static_cast<A*>(out) + image * (in.regions + 1);
  for (int64_t region = 0; region < in.regions; ++region) {
    const int64_t row = image * in.regions + region;
    const int64_t n = count ? count[row] : 1;
    scale[region] = n && values ? 2 * static_cast<const A*>(values)[row] / static_cast<A>(n) : 0;
  }
  scale[in.regions] = 0;
}

template <class A>
void merge_sums(const Input& in, const void* sums, const double* factor, void* out, int64_t image,
                int64_t region) {
  A* row = static_cast<A*>(out) + (image * in.regions + region) * in.channels;
  for (int64_t group = 0; group < in.groups(); ++group) {
    Vec<double> total = {};
    for (int64_t block = 0; block < in.blocks; ++block) {
      const double* table = table_of<double>(sums, in, image * in.blocks + block);
      total += load(table + group_offset(in, group) + region * kLanes);
    }
    for (int64_t c = group * kLanes; c < in.channels && c < (group + 1) * kLanes; ++c)
      row[c] = static_cast<A>(total[c % kLanes] * factor[image]);
  }
}

template <class T>
void any_stats_block(const StatsArgs& s, int64_t image, int64_t block) {
  (s.normalize ? stats_block<T, true> : stats_block<T, false>)(s, image, block);
}

template <class T>
void any_stats_backward(const StatsBackwardArgs& s, int64_t image, int64_t block) {
  const auto run = s.normalize ? stats_backward<T, true, true>
                   : s.scale   ? stats_backward<T, true, false>
                               : stats_backward<T, false, false>;
  run(s, image, block);
}

template <class T>
constexpr Kernels kernels_of() {
  using A = Accumulate<T>;
  return {pack<A>,          pack_scale<A>,         merge_sums<A>, any_stats_block<T>,
          stats_merge<A>,   any_stats_backward<T>, pull_block<T>, pull_backward<T>,
          contrast<T>,      weighted_block<T>,     distance<T>,   weighted_backward<T>,
          weighted_share<T>};
}

}  // namespace

constexpr PerElement<Kernels> kKernels{
    {kernels_of<Half>(), kernels_of<BFloat16>(), kernels_of<float>(), kernels_of<double>()}};

}  // namespace pixelkernels::regions::PK_ISA
