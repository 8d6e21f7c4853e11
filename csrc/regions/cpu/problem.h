// Cuts a regions problem into blocks and runs the kernels of the best instruction set over them.
#pragma once

#include <algorithm>
#include <optional>

#include "common/outputs.h"
#include "common/parallel.h"
#include "regions/kernels.h"

namespace pixelkernels::regions {

constexpr int64_t kBlockPixels = 4096;

// One problem: its description, its kernels and the loops over it.
struct Problem {
  Input in;
  const Kernels& run;
  const Tensor& features;

  // Blocks are large enough for their partial results to take less than a quarter of the float32
  // features. Their size depends on shapes alone, so the results do not depend on the number of
  // threads.
  Problem(const Tensor& features, const Tensor* labels, int64_t regions, bool partials,
          int64_t block = kBlockPixels)
      : run(kernels()[element_of(features)]), features(features) {
    in = {};
    in.features = view_of(features);
    in.element = element_of(features);
    in.label = labels ? label_of(*labels) : Label::kNone;
    in.labels = labels ? labels->data_ptr() : nullptr;
    in.batch = features.size(0);
    in.channels = features.size(1);
    in.pixels = features.size(2) * features.size(3);
    in.regions = regions;
    const int64_t padded = in.groups() * 8;
    if (partials)
      block = std::max(block, 12 * (regions + 1) * padded / std::max<int64_t>(in.channels, 1));
    in.block_pixels = (block + 7) / 8 * 8;
    in.blocks = (in.pixels + in.block_pixels - 1) / in.block_pixels;
  }

  // body(image, block) for the images [first, last)
  template <class Body>
  void for_blocks(int64_t first, int64_t last, const Body& body) const {
    const int64_t work = std::min(in.block_pixels, in.pixels) * (in.channels + 1);
    parallel((last - first) * in.blocks, work,
             [&](int64_t i) { body(first + i / in.blocks, i % in.blocks); });
  }
  template <class Body>
  void for_blocks(const Body& body) const {
    for_blocks(0, in.batch, body);
  }

  template <class Body>
  void for_regions(const Body& body) const {
    const int64_t work = 4 * in.blocks * in.groups() * 8;  // a few rows of each block's tables
    parallel(in.batch * in.regions, work, [&](int64_t i) { body(i / in.regions, i % in.regions); });
  }

  Tensor statistics(std::initializer_list<int64_t> shape) const {
    return output(features, shape, accumulate_type(in.element));
  }
  Tensor tables(int64_t n) const { return statistics({n, in.table()}); }
  Tensor sum_tables() const {
    return output(features, {in.batch * in.blocks, in.table()}, ScalarType::Double);
  }

  Tensor pack(const void* values, const int64_t* count, const void* minus = nullptr,
              const void* factor = nullptr) const {
    Tensor table = tables(in.batch);
    const PackArgs args{in, values, minus, factor, count, data(table)};
    parallel(in.batch, in.table(), [&](int64_t image) { run.pack(args, image); });
    return table;
  }
  Tensor pack_scale(const void* values, const int64_t* count) const {
    Tensor scale = statistics({in.batch, in.regions + 1});
    parallel(in.batch, in.regions,
             [&](int64_t image) { run.pack_scale(in, values, count, data(scale), image); });
    return scale;
  }
};

inline const void* optional_data(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->data_ptr() : nullptr;
}

}  // namespace pixelkernels::regions
