// Exact distance transforms: along the first axis, then along each later one. The work hardly
// depends on the mask. Between the passes the squares are in the result.
//
// Bytes per pixel: an image reads the mask and writes its squares, 5, and replaces them by the
// distances, 8. A volume has one more pass, so 13 and 21. The floor is 5: the mask and the result.
// Of labels of n bytes, the changes take n + 1 first, then every pass reads them, 1.
#include <cmath>

#include "distance/cuda/columns.cuh"
#include "distance/cuda/lines.cuh"

namespace pixelkernels::distance::cuda {
namespace {

template <class L>
__global__ void __launch_bounds__(kLineWarps* kWarp)
    changes_kernel(const L* labels, const Masks masks, const bool background, uint8_t* changes) {
  const int64_t line = int64_t{blockIdx.x} * kLineWarps + threadIdx.y;
  if (line >= masks.images * masks.depth * masks.height) return;
  const int64_t width = masks.width, slice = line / masks.height;
  const L* own = labels + line * width;
  // a line is no other than itself
  const L* above = line == slice * masks.height ? own : own - width;
  const L* before = slice % masks.depth == 0 ? own : own - masks.height * width;
  const uint8_t nothing = background ? 0 : kBackground;
  for (int x = threadIdx.x; x < width; x += kWarp) {
    const L label = own[x];
    const int deep = label != before[x] ? kAlongDepth : 0;
    const int down = label != above[x] ? kAlongRows : 0;
    const int aside = x > 0 && label != own[x - 1] ? kAlongColumns : 0;
    changes[line * width + x] = deep | down | aside | (label == 0 ? nothing : 0);
  }
}

template <class L>
void find_changes_as(const Device& device, const L* labels, const Masks& masks, bool background,
                     uint8_t* changes) {
  launch(device, changes_kernel<L>, ceil_div(masks.images * masks.depth * masks.height, kLineWarps),
         dim3(kWarp, kLineWarps), 0, labels, masks, background, changes);
}

template <class Metric, bool kLabels_>
struct Squares {
  static constexpr bool kLabels = kLabels_;
  Metric metric;

  __device__ unsigned operator()(int, int above, int below) const {
    const int steps = min(above, below);
    return steps < kFarSteps ? metric.square(steps) : Metric::kNone;
  }
};

// From the squares of the earlier passes to those that include this one's, or to distances.
template <class Metric_, bool kLast, bool kLabels_>
struct Transform {
  using Metric = Metric_;
  using Read = unsigned;
  static constexpr bool kSites = false, kLabels = kLabels_;
  struct Line {};
  Metric metric;
  const uint8_t* mask;  // changes, if kLabels
  uint8_t along;
  int length;
  bool border;
  unsigned* out;

  __device__ Line line(int64_t) const { return {}; }
  __device__ Read read(int64_t i) const { return out[i]; }
  __device__ bool changes(int64_t i) const { return (mask[i] & along) != 0; }
  __device__ unsigned square(Line, Read read) const { return read; }
  __device__ unsigned result(unsigned least, int x) const {
    return bounded(least, x, border ? min(x + 1, length - x) : kFarSteps);
  }
  // of labels, whose steps include those to the border
  __device__ unsigned result(unsigned least, int x, int steps) const {
    return bounded(least, x, steps);
  }
  __device__ void write(Line, int64_t i, int, unsigned result) const {
    out[i] = kLast && kLabels && (mask[i] & kBackground) ? 0 : result;
  }

 private:
  __device__ unsigned bounded(unsigned least, int x, int steps) const {
    unsigned square = metric.unlifted(least, x);
    if (steps < kFarSteps) square = min(square, metric.square(steps));
    return kLast ? metric.distance(square) : square;
  }
};

template <bool kLabels, class Metric>
void transform(const Device& device, const Masks& masks, const Metric& depths, const Metric& rows,
               const Metric& columns, unsigned* out) {
  const int64_t slices = masks.images * masks.depth;
  const auto first_axis = [&](const Metric& metric, int height, int64_t width, uint8_t along) {
    const Columns first = {masks.data, masks.images, height,
                           width,      masks.border, kLabels ? along : kAnyBit};
    find_along_columns(device, Squares<Metric, kLabels>{metric}, first, out);
  };
  if (masks.volumes) {
    first_axis(depths, masks.depth, int64_t{masks.height} * masks.width, kAlongDepth);
    const Transform<Metric, false, kLabels> along_rows = {rows,         masks.data,   kAlongRows,
                                                          masks.height, masks.border, out};
    solve_lines<true>(device, along_rows, {slices, masks.height, masks.width});
  } else {
    first_axis(rows, masks.height, masks.width, kAlongRows);
  }
  const Transform<Metric, true, kLabels> along_columns = {columns,     masks.data,   kAlongColumns,
                                                          masks.width, masks.border, out};
  solve_lines<false>(device, along_columns, {slices * masks.height, masks.width, 1});
}

template <class Metric>
void transform(const Device& device, const Masks& masks, const Metric& depths, const Metric& rows,
               const Metric& columns, unsigned* out) {
  masks.labels ? transform<true>(device, masks, depths, rows, columns, out)
               : transform<false>(device, masks, depths, rows, columns, out);
}

}  // namespace

void find_changes(const Device& device, const void* labels, Label type, const Masks& masks,
                  bool background, uint8_t* changes) {
  with_label(type, [&](auto like) {
    find_changes_as(device, static_cast<const decltype(like)*>(labels), masks, background, changes);
  });
}

void exact_transform(const Device& device, const Masks& masks, bool squared, uint32_t* out) {
  const Exact metric = {squared};
  transform(device, masks, metric, metric, metric, out);
}

void scaled_transform(const Device& device, const Masks& masks, const Spacing& spacing,
                      uint32_t* out) {
  // scaling by a power of two is exact, and keeps squares from overflowing
  const double depth = masks.volumes ? spacing.depth : 0.0;
  const double most = std::max({depth, spacing.row, spacing.column});
  const double unit = std::ldexp(1.0, std::ilogb(most));
  const auto metric = [&](double x) {
    return Scaled{static_cast<float>(x / unit), static_cast<float>(unit)};
  };
  transform(device, masks, metric(depth), metric(spacing.row), metric(spacing.column), out);
}

}  // namespace pixelkernels::distance::cuda
