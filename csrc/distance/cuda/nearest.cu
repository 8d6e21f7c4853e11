// The nearest True pixel, and its distance: the passes of a distance transform, which keep the
// coordinates found so far instead of squares. Each computes the squares again from them.
//
// Bytes per pixel: an image reads the mask and writes rows, 5, reads them and writes distance and
// indices, 16. A volume writes depths, 5, then depths and rows, 8, then reads these and writes
// distance and indices, 20; with the 32-bit coordinates of a spacing or of long sides, these are
// 12 and 24. So 21, and 33 or 41. The floor is 13 and 17: the mask, the distance and the indices.
#include <type_traits>

#include "distance/cuda/columns.cuh"
#include "distance/cuda/lines.cuh"

namespace pixelkernels::distance::cuda {
namespace {

struct FirstSite {
  static constexpr bool kLabels = false;
  __device__ unsigned operator()(int row, int above, int below) const {
    if (min(above, below) >= kFarSteps) return ~0u;  // -1
    return above <= below ? row - above : row + below;
  }
};

// What the passes before the last one find; -1 without a True pixel.
struct Row {
  int row;
};
template <class T>
struct alignas(2 * sizeof(T)) DepthAndRow {
  using Coordinate = T;
  T depth, row;
};
template <class Metric>
using Found = DepthAndRow<std::conditional_t<std::is_same_v<Metric, Exact>, int16_t, int>>;

// Volumes: from the depth to depth and row, along the axis of the rows.
template <class Metric_>
struct AlongRows {
  using Metric = Metric_;
  using Read = int;
  static constexpr bool kSites = true, kLabels = false;
  struct Line {
    int depth;
  };
  Metric metric, depths;
  int depth, width;
  const int* from;
  Found<Metric>* to;

  __device__ Line line(int64_t plane) const { return {static_cast<int>(plane % depth)}; }
  __device__ Read read(int64_t i) const { return from[i]; }
  __device__ typename Metric::Square square(Line line, Read site) const {
    return site < 0 ? Metric::kNone : depths.square(line.depth - site);
  }
  __device__ void write(Line, int64_t i, int x, unsigned result) const {
    using T = typename Found<Metric>::Coordinate;
    const int site = static_cast<int>(result);
    Found<Metric> found = {-1, -1};
    if (site >= 0)
      found = {static_cast<T>(from[i + int64_t{site - x} * width]), static_cast<T>(site)};
    to[i] = found;
  }
};

// From the coordinates on the other axes to the result, along the axis of the columns.
template <class Metric_, bool kVolumes>
struct AlongColumns {
  using Metric = Metric_;
  using Square = typename Metric::Square;
  using Read = std::conditional_t<kVolumes, Found<Metric>, Row>;
  static constexpr bool kSites = true, kLabels = false;
  struct Line {
    int depth, row;
    int64_t before;  // what the indices of earlier images have more than their pixels
  };
  Metric metric, depths, rows;
  int depth, height;
  int64_t pixels;  // of an image
  const Read* from;
  unsigned* distance;
  int* indices;

  __device__ Line line(int64_t plane) const {
    const int64_t slice = plane / height;
    return {static_cast<int>(slice % depth), static_cast<int>(plane - slice * height),
            slice / depth * pixels * (kVolumes ? 2 : 1)};
  }
  __device__ Read read(int64_t i) const { return from[i]; }
  __device__ Square square(const Line& line, Read site) const {
    if (site.row < 0) return Metric::kNone;
    const Square square = rows.square(line.row - site.row);
    if constexpr (kVolumes)
      return metric.sum(depths.square(line.depth - site.depth), square);
    else
      return square;
  }
  __device__ void write(const Line& line, int64_t i, int x, unsigned result) const {
    const int site = static_cast<int>(result);
    const Read found = from[site < 0 ? i : i + (site - x)];
    int* index = indices + line.before + i;
    Square least = Metric::kNone;
    if (site >= 0) least = metric.sum(square(line, found), metric.square(x - site));
    distance[i] = metric.distance(least);
    if constexpr (kVolumes) *index = found.depth, index += pixels;
    *index = found.row;
    index[pixels] = site;
  }
};

template <class Metric>
void nearest(const Device& device, const Masks& masks, const Metric& depths, const Metric& rows,
             const Metric& columns, unsigned* distance, int* indices) {
  const int64_t slices = masks.images * masks.depth;
  const auto last = [&](auto volumes, const auto* found) {
    const AlongColumns<Metric, volumes> pass = {
        columns, depths, rows, masks.depth, masks.height, masks.pixels(), found, distance, indices};
    solve_lines<false>(device, pass, {slices * masks.height, masks.width, 1});
  };
  if (masks.volumes) {
    // the depths are where the distances will be
    const Columns first = {
        masks.data, masks.images, masks.depth, int64_t{masks.height} * masks.width, false, kAnyBit};
    find_along_columns(device, FirstSite{}, first, distance);
    auto* found = device.workspace<Found<Metric>>(masks.images * masks.pixels());
    const AlongRows<Metric> pass = {
        rows, depths, masks.depth, masks.width, reinterpret_cast<const int*>(distance), found};
    solve_lines<true>(device, pass, {slices, masks.height, masks.width});
    last(std::true_type(), found);
  } else {
    auto* found = device.workspace<Row>(masks.images * masks.pixels());
    const Columns first = {masks.data, masks.images, masks.height, masks.width, false, kAnyBit};
    find_along_columns(device, FirstSite{}, first, reinterpret_cast<unsigned*>(found));
    last(std::false_type(), found);
  }
}

}  // namespace

void exact_nearest(const Device& device, const Masks& masks, bool squared, uint32_t* distance,
                   int* indices) {
  const Exact metric = {squared};
  nearest(device, masks, metric, metric, metric, distance, indices);
}

void scaled_nearest(const Device& device, const Masks& masks, const Spacing& spacing,
                    uint32_t* distance, int* indices) {
  nearest(device, masks, Precise{spacing.depth}, Precise{spacing.row}, Precise{spacing.column},
          distance, indices);
}

}  // namespace pixelkernels::distance::cuda
