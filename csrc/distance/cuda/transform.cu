// Exact distance transforms: along the first axis, then along each later one. The work hardly
// depends on the mask. Between the passes the squares are in the result.
//
// Bytes per pixel: an image reads the mask and writes its squares, 5, and replaces them by the
// distances, 8. A volume has one more pass, so 13 and 21. The floor is 5: the mask and the result.
#include <cmath>

#include "distance/cuda/columns.cuh"
#include "distance/cuda/lines.cuh"

namespace pixelkernels::distance::cuda {
namespace {

template <class Metric>
struct Squares {
  Metric metric;

  __device__ unsigned operator()(int, int above, int below) const {
    const int steps = min(above, below);
    return steps < kFarSteps ? metric.square(steps) : Metric::kNone;
  }
};

// From the squares of the earlier passes to those that include this one's, or to distances.
template <class Metric_, bool kLast>
struct Transform {
  using Metric = Metric_;
  using Read = unsigned;
  static constexpr bool kSites = false;
  struct Line {};
  Metric metric;
  int length;
  bool border;
  unsigned* out;

  __device__ Line line(int64_t) const { return {}; }
  __device__ Read read(int64_t i) const { return out[i]; }
  __device__ unsigned square(Line, Read read) const { return read; }
  __device__ unsigned result(unsigned least, int x) const {
    unsigned square = metric.unlifted(least, x);
    if (border) square = min(square, metric.square(min(x + 1, length - x)));
    return kLast ? metric.distance(square) : square;
  }
  __device__ void write(Line, int64_t i, int, unsigned result) const { out[i] = result; }
};

template <class Metric>
void transform(const Device& device, const Masks& masks, const Metric& depths, const Metric& rows,
               const Metric& columns, unsigned* out) {
  const int64_t slices = masks.images * masks.depth;
  if (masks.volumes) {
    const Columns first = {masks.data, masks.images, masks.depth,
                           int64_t{masks.height} * masks.width, masks.border};
    find_along_columns(device, Squares<Metric>{depths}, first, out);
    solve_lines<true>(device, Transform<Metric, false>{rows, masks.height, masks.border, out},
                      {slices, masks.height, masks.width});
  } else {
    const Columns first = {masks.data, masks.images, masks.height, masks.width, masks.border};
    find_along_columns(device, Squares<Metric>{rows}, first, out);
  }
  solve_lines<false>(device, Transform<Metric, true>{columns, masks.width, masks.border, out},
                     {slices * masks.height, masks.width, 1});
}

}  // namespace

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
