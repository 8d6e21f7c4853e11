// The nearest True pixel, and its distance: the passes of a distance transform, which keep the
// coordinates found so far instead of squares. Each computes the squares again from them.
//
// Bytes per pixel: an image reads the mask and writes rows, 5, reads them and writes distance and
// indices, 16. A volume writes depths, 5, then depths and rows, 8, then reads these and writes
// distance and indices, 20; with the 32-bit coordinates of a spacing or of long sides, these are
// 12 and 24. So 21, and 33 or 41. The floor is 13 and 17: the mask, the distance and the indices.
// Expanded labels of n bytes take 2 n + 1 for the mask and the result, instead of 12 or 16.
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

// From the coordinates on the other axes to the nearest pixel, along the axis of the columns.
template <class Metric_, bool kVolumes>
struct LastPass {
  using Metric = Metric_;
  using Square = typename Metric::Square;
  using Read = std::conditional_t<kVolumes, Found<Metric>, Row>;
  static constexpr bool kSites = true, kLabels = false;
  struct Line {
    int depth, row;
    int64_t image;  // its first pixel
  };
  Metric metric, depths, rows;
  int depth, height;
  int64_t pixels;  // of an image
  const Read* from;

  __device__ Line line(int64_t plane) const {
    const int64_t slice = plane / height;
    return {static_cast<int>(slice % depth), static_cast<int>(plane - slice * height),
            slice / depth * pixels};
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
  // pixel i, number x of its line, whose nearest column is `site`, with what was found there
  __device__ unsigned distance(const Line& line, int x, int site, Read found) const {
    Square least = Metric::kNone;
    if (site >= 0) least = metric.sum(square(line, found), metric.square(x - site));
    return metric.distance(least);
  }
};

template <class Metric, bool kVolumes>
struct ToIndices : LastPass<Metric, kVolumes> {
  using Base = LastPass<Metric, kVolumes>;
  unsigned* distances;
  int* indices;

  __device__ void write(const typename Base::Line& line, int64_t i, int x, unsigned result) const {
    const int site = static_cast<int>(result);
    const auto found = this->from[site < 0 ? i : i + (site - x)];
    int* index = indices + line.image * (kVolumes ? 2 : 1) + i;
    distances[i] = this->distance(line, x, site, found);
    if constexpr (kVolumes) *index = found.depth, index += this->pixels;
    *index = found.row;
    index[this->pixels] = site;
  }
};

// body(L()) for a type of so many bytes.
template <class Body>
__device__ inline void with_size(int64_t bytes, const Body& body) {
  switch (bytes) {
    case 1:
      return body(uint8_t());
    case 2:
      return body(uint16_t());
    case 4:
      return body(uint32_t());
    default:
      return body(uint64_t());
  }
}

template <class Metric, bool kVolumes>
struct ToLabels : LastPass<Metric, kVolumes> {
  using Base = LastPass<Metric, kVolumes>;
  const void* labels;
  int64_t label_bytes;
  unsigned limit;  // as the distances, whose bits have their order
  int width;
  void* expanded;

  __device__ void write(const typename Base::Line& line, int64_t i, int x, unsigned result) const {
    const int site = static_cast<int>(result);
    int64_t source = -1;
    if (site >= 0) {
      const auto found = this->from[i + (site - x)];
      int64_t row = found.row;
      if constexpr (kVolumes) row += int64_t{found.depth} * this->height;
      if (this->distance(line, x, site, found) <= limit) source = line.image + row * width + site;
    }
    with_size(label_bytes, [&](auto like) {
      using L = decltype(like);
      static_cast<L*>(expanded)[i] = source < 0 ? L(0) : static_cast<const L*>(labels)[source];
    });
  }
};

template <class L>
__global__ void __launch_bounds__(kLineWarps* kWarp)
    labelled_kernel(const L* labels, const int64_t pixels, uint8_t* mask) {
  const int64_t i =
      (int64_t{blockIdx.x} * kLineWarps + threadIdx.y) * kWarp + static_cast<int>(threadIdx.x);
  if (i < pixels) mask[i] = labels[i] != 0 ? 1 : 0;
}

// The passes before the last one, which is last(volumes, found); `depths_found` is memory of 4
// bytes per voxel of volumes.
template <class Metric, class Last>
void nearest(const Device& device, const Masks& masks, const Metric& depths, const Metric& rows,
             int* depths_found, const Last& last) {
  const int64_t slices = masks.images * masks.depth;
  if (masks.volumes) {
    const Columns first = {
        masks.data, masks.images, masks.depth, int64_t{masks.height} * masks.width, false, kAnyBit};
    find_along_columns(device, FirstSite{}, first, reinterpret_cast<unsigned*>(depths_found));
    auto* found = device.workspace<Found<Metric>>(masks.images * masks.pixels());
    const AlongRows<Metric> pass = {rows, depths, masks.depth, masks.width, depths_found, found};
    solve_lines<true>(device, pass, {slices, masks.height, masks.width});
    last(std::true_type(), found);
  } else {
    auto* found = device.workspace<Row>(masks.images * masks.pixels());
    const Columns first = {masks.data, masks.images, masks.height, masks.width, false, kAnyBit};
    find_along_columns(device, FirstSite{}, first, reinterpret_cast<unsigned*>(found));
    last(std::false_type(), found);
  }
}

template <class Metric>
void to_indices(const Device& device, const Masks& masks, const Metric& depths, const Metric& rows,
                const Metric& columns, unsigned* distance, int* indices) {
  // the depths are where the distances will be
  nearest(device, masks, depths, rows, reinterpret_cast<int*>(distance),
          [&](auto volumes, const auto* found) {
            const ToIndices<Metric, volumes> pass = {
                {columns, depths, rows, masks.depth, masks.height, masks.pixels(), found},
                distance,
                indices};
            solve_lines<false>(device, pass,
                               {masks.images * masks.depth * masks.height, masks.width, 1});
          });
}

template <class Metric>
void to_labels(const Device& device, const Masks& masks, const Metric& depths, const Metric& rows,
               const Metric& columns, const Expansion& expansion) {
  const int64_t voxels = masks.volumes ? masks.images * masks.pixels() : 0;
  nearest(device, masks, depths, rows, device.workspace<int>(voxels),
          [&](auto volumes, const auto* found) {
            const ToLabels<Metric, volumes> pass = {
                {columns, depths, rows, masks.depth, masks.height, masks.pixels(), found},
                expansion.labels,
                expansion.label_bytes,
                expansion.limit,
                masks.width,
                expansion.expanded};
            solve_lines<false>(device, pass,
                               {masks.images * masks.depth * masks.height, masks.width, 1});
          });
}

}  // namespace

void exact_nearest(const Device& device, const Masks& masks, bool squared, uint32_t* distance,
                   int* indices) {
  const Exact metric = {squared};
  to_indices(device, masks, metric, metric, metric, distance, indices);
}

void scaled_nearest(const Device& device, const Masks& masks, const Spacing& spacing,
                    uint32_t* distance, int* indices) {
  to_indices(device, masks, Precise{spacing.depth}, Precise{spacing.row}, Precise{spacing.column},
             distance, indices);
}

void find_labelled(const Device& device, const void* labels, Label type, int64_t pixels,
                   uint8_t* mask) {
  with_label(type, [&](auto like) {
    using L = decltype(like);
    launch(device, labelled_kernel<L>, ceil_div(pixels, kLineWarps * kWarp),
           dim3(kWarp, kLineWarps), 0, static_cast<const L*>(labels), pixels, mask);
  });
}

void exact_expansion(const Device& device, const Masks& masks, bool squared,
                     const Expansion& expansion) {
  const Exact metric = {squared};
  to_labels(device, masks, metric, metric, metric, expansion);
}

void scaled_expansion(const Device& device, const Masks& masks, const Spacing& spacing,
                      const Expansion& expansion) {
  to_labels(device, masks, Precise{spacing.depth}, Precise{spacing.row}, Precise{spacing.column},
            expansion);
}

}  // namespace pixelkernels::distance::cuda
