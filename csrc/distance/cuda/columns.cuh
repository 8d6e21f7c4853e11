// The first pass of a distance transform: the nearest True pixel of every pixel's column. Columns
// run along the first axis of an image or volume.
#pragma once

#include "distance/cuda/kernels.cuh"

namespace pixelkernels::distance::cuda {

constexpr int kWordRows = 32;  // the rows of a column that make up the bits of a word
constexpr int kColumnWarps = 24;

// A distance along a column of kFarSteps or more means no True pixel. The rows that stand for none
// above and none below are that far from all rows.
constexpr int kFarSteps = 1 << 30, kNoneAbove = -kFarSteps, kNoneBelow = kFarSteps + kLongestSide;

struct Columns {
  const uint8_t* mask;
  int64_t images;
  int height;
  int64_t width;  // the number of columns
  bool border;    // the pixels above and below are True, or have another label
  uint8_t bits;   // a pixel with one of them is True, or a change
};

__device__ inline unsigned load_word(const uint8_t* from, int64_t stride, int rows, uint8_t bits) {
  uint8_t values[kWordRows];
#pragma unroll
  for (int r = 0; r < kWordRows; ++r, from += stride) values[r] = r < rows ? *from : 0;
  unsigned word = 0;
#pragma unroll
  for (int r = 0; r < kWordRows; ++r) word |= ((values[r] & bits) != 0 ? 1u : 0u) << r;
  return word;
}

// Writes found(row, steps up, steps down): to the nearest True pixels, or, if Found::kLabels, to
// the nearest pixels with another label. That is the one above a pixel with a change, and for those
// above it the pixel with the change. A block handles 32 columns of an image, one per lane, and a
// warp `band` words of each. Going up the band, a warp reads the mask and stores each word, and the
// first True row below it, in the place of the results; going down, it reads them again.
template <class Found>
__global__ void __launch_bounds__(kColumnWarps* kWarp)
    columns_kernel(const Found found, const Columns c, unsigned* out, const int band) {
  __shared__ int first_of[kColumnWarps][kWarp], last_of[kColumnWarps][kWarp];
  const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
  const int height = c.height;
  const int64_t width = c.width;
  const auto column_blocks = static_cast<unsigned>((width + kWarp - 1) / kWarp);
  const int64_t image = blockIdx.x / column_blocks;
  const int64_t x = int64_t{blockIdx.x % column_blocks} * kWarp + lane;
  const bool inside = x < width;
  const uint8_t* mask = c.mask + image * height * width + x;
  unsigned* results = out + image * height * width + x;

  const int words = (height + kWordRows - 1) / kWordRows;
  const int begin = min(warp * band, words), end = min(begin + band, words);
  unsigned bits = 0;
  int below = kNoneBelow, first = kNoneBelow, last = kNoneAbove;
  for (int word = end - 1; word >= begin; --word) {
    const int row = word * kWordRows;
    if (word + 1 < end && inside) {
      unsigned* left = results + (row + kWordRows) * width;
      left[0] = bits;
      // the last row of an image has nothing below
      if (row + kWordRows + 1 < height) left[width] = below;
    }
    below = first;
    bits = load_word(mask + row * width, width, inside ? height - row : 0, c.bits);
    if (bits != 0) {
      first = row + __ffs(bits) - 1;
      if (last == kNoneAbove) last = row + kWordRows - 1 - __clz(bits);
    }
  }
  first_of[warp][lane] = first;
  last_of[warp][lane] = last;
  __syncthreads();
  constexpr int kUp = Found::kLabels ? 1 : 0;
  int above = c.border ? kUp - 1 : kNoneAbove, beyond = c.border ? height : kNoneBelow;
  for (int w = 0; w < warp; ++w) above = max(above, last_of[w][lane]);
  for (int w = warp + 1; w < warps; ++w) beyond = min(beyond, first_of[w][lane]);

  for (int word = begin; word < end; ++word) {
    const int row = word * kWordRows, last_row = row + kWordRows - 1;
    const unsigned here = bits;
    const int below_here = min(below, beyond);
    unsigned* next = results + (last_row + 1) * width;
    if (word + 1 < end && inside) {
      bits = next[0];
      below = last_row + 2 < height ? static_cast<int>(next[width]) : kNoneBelow;
    }
    int from_above[kWordRows];
    int distance = row - above + kUp;
#pragma unroll
    for (int r = 0; r < kWordRows; ++r, ++distance) {
      if (here >> r & 1) distance = kUp;
      from_above[r] = distance;
    }
    distance = below_here - last_row;
    unsigned* to = next;
#pragma unroll
    for (int r = kWordRows - 1; r >= 0; --r, ++distance) {
      const int from_below = distance;
      if (here >> r & 1) distance = 0;
      to -= width;
      if (r < height - row && inside)
        *to = found(row + r, from_above[r], Found::kLabels ? from_below : distance);
    }
    if (here != 0) above = last_row - __clz(here);
  }
}

template <class Found>
void find_along_columns(const Device& device, const Found& found, const Columns& columns,
                        unsigned* out) {
  const int64_t words = ceil_div(columns.height, kWordRows);
  const int64_t band = ceil_div(words, kColumnWarps);
  launch(device, columns_kernel<Found>, columns.images * ceil_div(columns.width, kWarp),
         dim3(kWarp, static_cast<unsigned>(ceil_div(words, band))), 0, found, columns, out,
         static_cast<int>(band));
}

}  // namespace pixelkernels::distance::cuda
