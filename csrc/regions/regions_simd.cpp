// The regions kernels of one instruction set, PK_ISA; the build compiles this file once for each.
// Nothing from the standard library's templates may be used here: the linker could hand one set's
// copy to another.
#include "regions_distance_simd.h"
#include "regions_gradient_simd.h"
#include "regions_stats_simd.h"

namespace pixelkernels {
namespace PK_ISA {
namespace {

template <class A>
void pack(const PackArgs& s, int64_t image) {
  const Regions& r = s.regions;
  A* table = static_cast<A*>(s.table) + image * r.table();
  clear(table, r.table());
  for (int64_t region = 0; region < r.regions; ++region) {
    const int64_t row = image * r.regions + region;
    const int64_t count = s.count ? s.count[row] : 1;
    if (count == 0) continue;
    const A* values = s.values ? static_cast<const A*>(s.values) + row * r.channels : nullptr;
    const A* minus = s.minus ? static_cast<const A*>(s.minus) + row * r.channels : nullptr;
    const A factor = minus && s.factor ? 2 * static_cast<const A*>(s.factor)[row] : 0;
    for (int64_t c = 0; c < r.channels; ++c) {
      A value = values ? values[c] : 0;
      if (factor != 0) value -= factor * minus[c];
      table[(c / kLanes * (r.regions + 1) + region) * kLanes + c % kLanes] =
          value / static_cast<A>(count);
    }
  }
}

template <class A>
void pack_scale(const Regions& r, const void* values, const int64_t* count, void* out,
                int64_t image) {
  A* scale = static_cast<A*>(out) + image * (r.regions + 1);
  for (int64_t region = 0; region < r.regions; ++region) {
    const int64_t row = image * r.regions + region;
    const int64_t n = count ? count[row] : 1;
    scale[region] = n && values ? 2 * static_cast<const A*>(values)[row] / static_cast<A>(n) : 0;
  }
  scale[r.regions] = 0;
}

template <class A>
void merge_sums(const Regions& r, const void* sums, const double* factor, void* out, int64_t image,
                int64_t region) {
  A* row = static_cast<A*>(out) + (image * r.regions + region) * r.channels;
  for (int64_t group = 0; group < r.groups(); ++group) {
    Vec<double> total = {};
    for (int64_t block = 0; block < r.blocks; ++block) {
      const double* table = table_of<double>(sums, r, image * r.blocks + block);
      total += load(table + group_offset(r, group) + region * kLanes);
    }
    for (int64_t c = group * kLanes; c < r.channels && c < (group + 1) * kLanes; ++c)
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
constexpr RegionsKernels kernels_for() {
  using A = Accumulate<T>;
  return {pack<A>,          pack_scale<A>,         merge_sums<A>, any_stats_block<T>,
          stats_merge<A>,   any_stats_backward<T>, pull_block<T>, pull_backward<T>,
          contrast<T>,      weighted_block<T>,     distance<T>,   weighted_backward<T>,
          weighted_share<T>};
}

constexpr RegionsKernels kHalf = kernels_for<Half>(), kBFloat16 = kernels_for<BFloat16>(),
                         kFloat = kernels_for<float>(), kDouble = kernels_for<double>();

}  // namespace

const RegionsKernels& regions_kernels(Element element) {
  switch (element) {
    case Element::kHalf:
      return kHalf;
    case Element::kBFloat16:
      return kBFloat16;
    case Element::kFloat:
      return kFloat;
    case Element::kDouble:
      return kDouble;
  }
  __builtin_unreachable();
}

}  // namespace PK_ISA
}  // namespace pixelkernels
