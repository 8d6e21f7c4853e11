// A tile: the values of up to kTileColumns adjacent columns of a slice, as one line per column.
#pragma once

#include "common/simd.h"
#include "distance/kernels.h"

namespace pixelkernels::distance::PK_ISA {

using namespace pixelkernels::PK_ISA;

// body(row, column, whole) for the blocks of a tile of kLanes rows and columns, or fewer at its
// edges, where it is not whole.
template <class Body>
PK_INLINE void for_blocks(int64_t height, int64_t n, const Body& body) {
  for (int64_t r = 0; r < height; r += kLanes)
    for (int64_t c = 0; c < n; c += kLanes) body(r, c, height - r >= kLanes && n - c >= kLanes);
}

template <class T>
PK_INLINE void read_tile(const T* from, int64_t width, int64_t height, int64_t n, T* lines) {
  const int64_t pitch = padded(height);
  for_blocks(height, n, [&](int64_t r, int64_t c, bool whole) {
    if (whole && sizeof(T) == sizeof(uint32_t)) {
      U32 block[kLanes];
      for (int i = 0; i < kLanes; ++i)
        std::memcpy(&block[i], from + (r + i) * width + c, sizeof block[i]);
      transpose(block);
      for (int i = 0; i < kLanes; ++i)
        std::memcpy(lines + (c + i) * pitch + r, &block[i], sizeof block[i]);
      return;
    }
    for (int64_t y = r; y < r + kLanes && y < height; ++y)
      for (int64_t x = c; x < c + kLanes && x < n; ++x) lines[x * pitch + y] = from[y * width + x];
  });
}

template <class T>
PK_INLINE void write_tile(const T* lines, int64_t width, int64_t height, int64_t n, T* to) {
  const int64_t pitch = padded(height);
  for_blocks(height, n, [&](int64_t r, int64_t c, bool whole) {
    if (whole && sizeof(T) == sizeof(uint32_t)) {
      U32 block[kLanes];
      for (int i = 0; i < kLanes; ++i)
        std::memcpy(&block[i], lines + (c + i) * pitch + r, sizeof block[i]);
      transpose(block);
      for (int i = 0; i < kLanes; ++i)
        std::memcpy(to + (r + i) * width + c, &block[i], sizeof block[i]);
      return;
    }
    for (int64_t y = r; y < r + kLanes && y < height; ++y)
      for (int64_t x = c; x < c + kLanes && x < n; ++x) to[y * width + x] = lines[x * pitch + y];
  });
}

}  // namespace pixelkernels::distance::PK_ISA
