// Exact distance transforms, along columns, then along rows. The work hardly depends on the mask.
//
// Columns: the squared distance of every pixel to the nearest True pixel of its column.
// Rows: pixel x of a row is nearest to a True pixel of the column q, its site, that minimises
// columns[q] + (x - q)^2. Sites do not decrease along a row, whichever is taken among equals. So
// the anchors, the first of every 32 pixels and the last of all, are solved level by level, each
// between the sites of those on both sides; then a warp tries what lies between the sites of two
// anchors for the 32 pixels there. Over a row these are hardly more candidates than columns.
//
// Between the passes the squares are in the result, which each row reads into shared memory before
// it writes. Where a row does not fit, they have a workspace.
#include <algorithm>
#include <cmath>

#include "distance/cuda/kernels.cuh"

namespace pixelkernels::distance::cuda {
namespace {

constexpr int kWordRows = 32;  // the rows of a column that make up the bits of a word
constexpr int kColumnWarps = 24;
constexpr int kRowWarps = 8;
constexpr int kAccessesAhead = 8;  // loads of a thread in flight

// A distance along a column of kFarSteps or more means no True pixel. The rows that stand for none
// above and none below are that far from all rows.
constexpr int kFarSteps = 1 << 30, kNoneAbove = -kFarSteps, kNoneBelow = kFarSteps + kLongestSide;

struct Problem {
  Masks masks;
  int pitch;  // of a row of squares, at least the width; padding has no site
  unsigned* columns;
  unsigned* out;
};

// ---- metrics: squares as stored, ordered as unsigned numbers ----

// Squares are below 2^31, and 2^31 means none. columns[q] includes q^2 + 2^30, so the cost of q for
// x is columns[q] - 2xq plus the common term x^2 - 2^30. For sides up to 2^15 - 1 it lies within
// [0, 2^32), in any order of summation.
struct Exact {
  static constexpr unsigned kNowhere = 1u << 31, kLift = 1u << 30;
  bool squared;

  __device__ unsigned column(int distance, int q) const {
    const unsigned d = distance;
    return (distance < kFarSteps ? d * d : kNowhere) + static_cast<unsigned>(q) * q + kLift;
  }
  __device__ unsigned cost(unsigned column, int x, int q) const {
    return column - 2u * static_cast<unsigned>(x) * static_cast<unsigned>(q);
  }
  // The least cost of the candidates q, q + 1, q + 2 and q + 3.
  __device__ unsigned least_cost(uint4 columns, int x, int q) const {
    const unsigned step = 0u - 2u * static_cast<unsigned>(x);
    const unsigned least =
        min(min(columns.x, columns.y + step), min(columns.z + 2 * step, columns.w + 3 * step));
    return least + step * static_cast<unsigned>(q);
  }
  // `edge` is the distance to the first column outside, 0 where that is not True.
  __device__ unsigned result(unsigned cost, int x, int edge) const {
    unsigned square = cost + static_cast<unsigned>(x) * x - kLift;
    if (edge > 0) square = min(square, static_cast<unsigned>(edge) * edge);
    if (squared) return min(square, kNowhere - 1);
    if (square >= kNowhere) return __float_as_uint(INFINITY);
    // a float holds every integer up to 2^24
    return __float_as_uint(square <= 1u << 24 ? __fsqrt_rn(static_cast<float>(square))
                                              : static_cast<float>(sqrt(double(square))));
  }
};

// Squares are float32.
struct Scaled {
  float row, column_spacing;
  float unit;  // both spacings are in this unit

  static __device__ float square(float spacing, int steps) {
    const float distance = __fmul_rn(spacing, static_cast<float>(steps));
    return __fmul_rn(distance, distance);
  }
  __device__ unsigned column(int distance, int) const {
    return __float_as_uint(distance < kFarSteps ? square(row, distance) : INFINITY);
  }
  __device__ unsigned cost(unsigned column, int x, int q) const {
    return __float_as_uint(__fadd_rn(__uint_as_float(column), square(column_spacing, x - q)));
  }
  __device__ unsigned least_cost(uint4 columns, int x, int q) const {
    return min(min(cost(columns.x, x, q), cost(columns.y, x, q + 1)),
               min(cost(columns.z, x, q + 2), cost(columns.w, x, q + 3)));
  }
  __device__ unsigned result(unsigned cost, int, int edge) const {
    float least = __uint_as_float(cost);
    if (edge > 0) least = fminf(least, square(column_spacing, edge));
    return __float_as_uint(__fmul_rn(unit, __fsqrt_rn(least)));
  }
};

// ---- columns ----

__device__ inline unsigned load_word(const uint8_t* from, int64_t stride, int rows) {
  uint8_t values[kWordRows];
#pragma unroll
  for (int r = 0; r < kWordRows; ++r, from += stride) values[r] = r < rows ? *from : 0;
  unsigned bits = 0;
#pragma unroll
  for (int r = 0; r < kWordRows; ++r) bits |= (values[r] != 0 ? 1u : 0u) << r;
  return bits;
}

// A block handles 32 columns of an image, one per lane, and a warp `band` words of each. Going up
// the band, a warp reads the mask and stores each word, and the first True row below it, in the
// place of the squares; going down, it reads them again.
template <class Metric>
__global__ void __launch_bounds__(kColumnWarps* kWarp)
    columns_kernel(const Metric metric, const Problem p, const int band) {
  __shared__ int first_of[kColumnWarps][kWarp], last_of[kColumnWarps][kWarp];
  const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
  const int height = p.masks.height, width = p.masks.width;
  const unsigned column_blocks = (p.pitch + kWarp - 1) / kWarp;
  const int64_t image = blockIdx.x / column_blocks;
  const int x = blockIdx.x % column_blocks * kWarp + lane;
  const bool inside = x < width, writes = x < p.pitch;
  const uint8_t* mask = p.masks.data + image * height * width + x;
  unsigned* columns = p.columns + image * height * p.pitch + x;

  const int words = (height + kWordRows - 1) / kWordRows;
  const int begin = min(warp * band, words), end = min(begin + band, words);
  unsigned bits = 0;
  int below = kNoneBelow, first = kNoneBelow, last = kNoneAbove;
  for (int word = end - 1; word >= begin; --word) {
    const int row = word * kWordRows;
    if (word + 1 < end && writes) {
      unsigned* left = columns + int64_t{row + kWordRows} * p.pitch;
      left[0] = bits;
      // the last row of an image has nothing below
      if (row + kWordRows + 1 < height) left[p.pitch] = below;
    }
    below = first;
    bits = load_word(mask + int64_t{row} * width, width, inside ? height - row : 0);
    if (bits != 0) {
      first = row + __ffs(bits) - 1;
      if (last == kNoneAbove) last = row + kWordRows - 1 - __clz(bits);
    }
  }
  first_of[warp][lane] = first;
  last_of[warp][lane] = last;
  __syncthreads();
  const bool border = p.masks.border && inside;
  int above = border ? -1 : kNoneAbove, beyond = border ? height : kNoneBelow;
  for (int w = 0; w < warp; ++w) above = max(above, last_of[w][lane]);
  for (int w = warp + 1; w < warps; ++w) beyond = min(beyond, first_of[w][lane]);

  for (int word = begin; word < end; ++word) {
    const int row = word * kWordRows, last_row = row + kWordRows - 1;
    const unsigned here = bits;
    const int below_here = min(below, beyond);
    unsigned* next = columns + int64_t{last_row + 1} * p.pitch;
    if (word + 1 < end && writes) {
      bits = next[0];
      below = last_row + 2 < height ? static_cast<int>(next[p.pitch]) : kNoneBelow;
    }
    int from_above[kWordRows];
    int distance = row - above;
#pragma unroll
    for (int r = 0; r < kWordRows; ++r, ++distance) {
      if (here >> r & 1) distance = 0;
      from_above[r] = distance;
    }
    distance = below_here - last_row;
    unsigned* to = next;
#pragma unroll
    for (int r = kWordRows - 1; r >= 0; --r, ++distance) {
      if (here >> r & 1) distance = 0;
      to -= p.pitch;
      if (r < height - row && writes) *to = metric.column(min(from_above[r], distance), x);
    }
    if (here != 0) above = last_row - __clz(here);
  }
}

// ---- rows ----

// Anchors are numbered from 1; site 0 is the first column.
__device__ inline int anchor_pixel(int anchor, int width) {
  return min((anchor - 1) * kWarp, width - 1);
}
__host__ __device__ inline int anchor_count(int width) { return (width + kWarp - 1) / kWarp + 1; }

// Words of a row in memory, padded for 16-byte accesses.
__host__ __device__ inline int64_t whole_vectors(int64_t n) { return (n + 3) / 4 * 4; }
__host__ __device__ inline int64_t site_pitch(int width) {
  return whole_vectors(anchor_count(width) + 1);
}

// The warps of a block share a row, or each has its own if `alone`. Squares and sites are in shared
// memory, or else in p.columns and `sites`, and then no warp is alone.
template <bool kInShared, class Metric>
__global__ void __launch_bounds__(kRowWarps* kWarp)
    rows_kernel(const Metric metric, const Problem p, const bool alone, int* sites) {
  extern __shared__ uint4 shared[];
  const int lane = threadIdx.x;
  const int warp = alone ? 0 : threadIdx.y, warps = alone ? 1 : blockDim.y;
  const int64_t row = alone ? int64_t{blockIdx.x} * blockDim.y + threadIdx.y : blockIdx.x;
  if (row >= p.masks.images * p.masks.height) return;
  const auto wait = [&] {
    if (alone)
      __syncwarp();
    else
      __syncthreads();
  };
  const int width = p.masks.width, anchors = anchor_count(width);
  unsigned* columns = p.columns + row * p.pitch;
  if constexpr (kInShared) {
    const int64_t whole = whole_vectors(width);
    const unsigned* from = columns;
    columns = reinterpret_cast<unsigned*>(shared) +
              (alone ? threadIdx.y : 0) * (whole + site_pitch(width));
    sites = reinterpret_cast<int*>(columns + whole);
    const int step = warps * kWarp;
    for (int base = warp * kWarp + lane; base < whole; base += kAccessesAhead * step) {
      unsigned values[kAccessesAhead];
#pragma unroll
      for (int k = 0; k < kAccessesAhead; ++k) {
        const int q = base + k * step;
        values[k] = q < width ? from[q] : metric.column(kFarSteps, q);
      }
#pragma unroll
      for (int k = 0; k < kAccessesAhead; ++k)
        if (base + k * step < whole) columns[base + k * step] = values[k];
    }
  } else {
    sites += row * site_pitch(width);
  }
  if (warp == 0 && lane == 0) sites[0] = 0;
  wait();

  int apart = 1;
  while (apart <= anchors) apart *= 2;
  for (apart /= 2; apart > 0; apart /= 2) {
    for (int anchor = (2 * warp + 1) * apart; anchor <= anchors; anchor += 2 * warps * apart) {
      const int x = anchor_pixel(anchor, width), lowest = sites[anchor - apart];
      const int highest = anchor + apart <= anchors ? sites[anchor + apart] : width - 1;
      unsigned least = ~0u;
      int site = lowest;
      for (int q = lowest + lane; q <= highest; q += kWarp) {
        const unsigned cost = metric.cost(columns[q], x, q);
        if (cost < least) least = cost, site = q;
      }
      const bool wins = least == __reduce_min_sync(kWholeWarp, least);
      site = __shfl_sync(kWholeWarp, site, __ffs(__ballot_sync(kWholeWarp, wins)) - 1);
      if (lane == 0) sites[anchor] = site;
    }
    wait();
  }

  unsigned* out = p.out + row * width;
  for (int part = warp; part < anchors - 1; part += warps) {
    const int x = part * kWarp + lane, highest = sites[part + 2];
    unsigned least = ~0u;
#pragma unroll 2
    for (int q = sites[part + 1] / 4 * 4; q <= highest; q += 4)
      least = min(least, metric.least_cost(*reinterpret_cast<const uint4*>(columns + q), x, q));
    const int edge = p.masks.border ? min(x + 1, width - x) : 0;
    if (x < width) out[x] = metric.result(least, x, edge);
  }
}

// ---- launching ----

template <class Metric>
void transform(const Device& device, const Metric& metric, const Masks& masks, uint32_t* out) {
  const int64_t rows = masks.images * masks.height;
  const int64_t words_in_row = whole_vectors(masks.width) + site_pitch(masks.width);
  const int64_t bytes_in_row = words_in_row * static_cast<int64_t>(sizeof(unsigned));
  const bool in_shared = bytes_in_row <= device.shared_memory();
  Problem p = {masks, masks.width, out, out};
  int* sites = nullptr;
  if (!in_shared) {
    p.pitch = static_cast<int>(whole_vectors(masks.width));
    p.columns = device.workspace<unsigned>(rows * p.pitch);
    sites = device.workspace<int>(rows * site_pitch(masks.width));
  }

  const int64_t words = ceil_div(masks.height, kWordRows);
  const int64_t band = ceil_div(words, kColumnWarps);
  launch(device, columns_kernel<Metric>, masks.images * ceil_div(p.pitch, kWarp),
         dim3(kWarp, static_cast<unsigned>(ceil_div(words, band))), 0, metric, p,
         static_cast<int>(band));

  // at most 1024 columns per warp, fewer where too few warps would fill the device
  int64_t warps = 1;
  const auto worthwhile = [&] {
    return masks.width > 1024 * warps || rows * warps < 16 * device.multiprocessors();
  };
  while (warps < kRowWarps && masks.width > 2 * kWarp * warps && worthwhile()) warps *= 2;
  const bool alone = warps == 1 && in_shared;
  if (alone) warps = std::min<int64_t>(kRowWarps, device.shared_memory() / bytes_in_row);
  const dim3 threads(kWarp, static_cast<unsigned>(warps));
  const int64_t blocks = alone ? ceil_div(rows, warps) : rows;
  if (in_shared)
    launch(device, rows_kernel<true, Metric>, blocks, threads, (alone ? warps : 1) * bytes_in_row,
           metric, p, alone, sites);
  else
    launch(device, rows_kernel<false, Metric>, blocks, threads, 0, metric, p, alone, sites);
}

}  // namespace

void exact_transform(const Device& device, const Masks& masks, bool squared, uint32_t* out) {
  transform(device, Exact{squared}, masks, out);
}

void scaled_transform(const Device& device, const Masks& masks, double row_spacing,
                      double column_spacing, uint32_t* out) {
  // scaling by a power of two is exact, and keeps squares from overflowing
  const double unit = std::ldexp(1.0, std::ilogb(std::max(row_spacing, column_spacing)));
  const Scaled metric = {static_cast<float>(row_spacing / unit),
                         static_cast<float>(column_spacing / unit), static_cast<float>(unit)};
  transform(device, metric, masks, out);
}

}  // namespace pixelkernels::distance::cuda
