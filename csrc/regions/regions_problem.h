// Cuts a regions problem into blocks and runs the kernels of the best instruction set over them.
#pragma once

#include <algorithm>
#include <optional>

#include "common/host.h"
#include "regions/regions_cpu.h"

namespace pixelkernels {

inline const RegionsKernels& kernels(Element element) {
#if defined(__x86_64__)
  if (cpu_capability() >= Capability::kAvx512) return avx512::regions_kernels(element);
  if (cpu_capability() == Capability::kAvx2) return avx2::regions_kernels(element);
#endif
  return baseline::regions_kernels(element);
}

constexpr int64_t kBlockPixels = 4096;

// One problem: its description, its kernels and the loops over it.
struct Problem {
  Regions r;
  const RegionsKernels& run;
  const Tensor& features;

  // Blocks that keep partial results are large enough for the partials to stay below a quarter of
  // the float32 features. Their size depends on shapes alone, never on the number of threads, and
  // so do the results.
  Problem(const Tensor& features, const Tensor* labels, int64_t regions, bool partials)
      : run(kernels(element_of(features))), features(features) {
    r = {};
    r.features = view_of(features);
    r.element = element_of(features);
    r.label = labels ? label_of(*labels) : Label::kNone;
    r.labels = labels ? labels->data_ptr() : nullptr;
    r.batch = features.size(0);
    r.channels = features.size(1);
    r.pixels = features.size(2) * features.size(3);
    r.regions = regions;
    const int64_t padded = r.groups() * 8;
    int64_t block = kBlockPixels;
    if (partials)
      block = std::max(block, 12 * (regions + 1) * padded / std::max<int64_t>(r.channels, 1));
    r.block_pixels = (block + 7) / 8 * 8;
    r.blocks = (r.pixels + r.block_pixels - 1) / r.block_pixels;
  }

  template <class Body>
  void for_blocks(const Body& body) const {
    const int64_t work = std::min(r.block_pixels, r.pixels) * (r.channels + 1);
    parallel(r.batch * r.blocks, work, [&](int64_t i) { body(i / r.blocks, i % r.blocks); });
  }

  template <class Body>
  void for_regions(const Body& body) const {
    const int64_t work = 4 * r.blocks * r.groups() * 8;  // a few rows of each block's tables
    parallel(r.batch * r.regions, work, [&](int64_t i) { body(i / r.regions, i % r.regions); });
  }

  Tensor statistics(std::initializer_list<int64_t> shape) const {
    return output(features, shape, accumulate_type(r.element));
  }
  Tensor tables(int64_t n) const { return statistics({n, r.table()}); }
  Tensor sum_tables() const {
    return output(features, {r.batch * r.blocks, r.table()}, ScalarType::Double);
  }

  Tensor pack(const void* values, const int64_t* count, const void* minus = nullptr,
              const void* factor = nullptr) const {
    Tensor table = tables(r.batch);
    const PackArgs args{r, values, minus, factor, count, data(table)};
    parallel(r.batch, r.table(), [&](int64_t image) { run.pack(args, image); });
    return table;
  }
  Tensor pack_scale(const void* values, const int64_t* count) const {
    Tensor scale = statistics({r.batch, r.regions + 1});
    parallel(r.batch, r.regions,
             [&](int64_t image) { run.pack_scale(r, values, count, data(scale), image); });
    return scale;
  }
};

inline const void* optional_data(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->data_ptr() : nullptr;
}

}  // namespace pixelkernels
