// Maps of the distance to the nearest click. Only the result goes through memory: a tile of pixels
// compares the few clicks that can be nearest to one of its pixels.
#pragma once

#include "common/math.h"
#include "distance/kernels.h"

namespace pixelkernels::distance::PK_ISA {

using namespace pixelkernels::PK_ISA;

typedef Vec<float> Floats;

// The clicks of one slice, and those that a tile needs. Their squared distance along the depth is
// `across`, 0 in images.
struct Clicks {
  float *across, *row, *column, *squared, *near_across, *near_row, *near_column;
  int64_t count, near;

  Clicks(const ClickMaps& s, int64_t slice, float* scratch) : count(0), near(0) {
    const int64_t padded = s.clicks + kClickPad;
    float** const lists[] = {&across,      &row,      &column,     &squared,
                             &near_across, &near_row, &near_column};
    for (float** list : lists) *list = scratch, scratch += padded;
    const int64_t map = slice / s.depth, first = map / 2 * s.clicks, label = 1 - map % 2;
    const float depth = static_cast<float>(slice % s.depth);
    for (int64_t i = first; i < first + s.clicks; ++i) {
      const float* point = s.points + s.axes * i;
      const float z = s.axes == 3 ? depth - *point++ : 0.0f, r = point[0], c = point[1];
      across[count] = z * z;
      row[count] = r;
      column[count] = c;
      count += s.labels[i] == label && z == z && r == r && c == c;
    }
    for (int64_t i = count; i < count + kLanes; ++i)
      across[i] = row[i] = column[i] = __builtin_inff();
  }

  // By the triangle inequality, only clicks within `reach` of the tile's centre can be nearest to
  // one of its pixels.
  void cull(float centre_row, float centre_column, float half_diagonal) {
    Floats lanes = splat(__builtin_inff());
    for (int64_t i = 0; i < count; i += kLanes) {
      const Floats r = load(row + i) - centre_row, c = load(column + i) - centre_column;
      const Floats d2 = load(across + i) + r * r + c * c;
      store(squared + i, d2);
      lanes = smaller(d2, lanes);
    }
    const float least = least_lane(lanes);
    // a margin for the rounding of the distances
    const float reach = (__builtin_sqrtf(least) + 2 * half_diagonal) * 1.00001f + 0.01f;
    const Floats limit = splat(reach * reach);
    near = 0;
    for (int64_t first = 0; first < count; first += kLanes) {
      if (!any(load(squared + first) <= limit)) continue;
      for (int64_t i = first; i < count && i < first + kLanes; ++i) {
        near_across[near] = across[i];
        near_row[near] = row[i];
        near_column[near] = column[i];
        near += squared[i] <= limit[0];
      }
    }
  }
};

template <Encoding encoding>
PK_INLINE void encode(const ClickMaps& s, const float* squares, int64_t n, float* out) {
  if (encoding == Encoding::kEuclidean) {
    for (int64_t i = 0; i < n; ++i) {
      const float d = __builtin_sqrtf(squares[i]);
      out[i] = d < s.truncate ? d : s.truncate;
    }
  } else if (encoding == Encoding::kDisk) {
    const float limit = s.radius * s.radius;
    for (int64_t i = 0; i < n; ++i) out[i] = squares[i] <= limit ? 1 : 0;
  } else {
    float buffer[kClickTileColumns];
    const float factor = encoding == Encoding::kTanh ? -4 / s.radius : -0.5f / s.radius / s.radius;
    for (int64_t i = 0; i < kClickTileColumns; ++i)
      buffer[i] = encoding == Encoding::kTanh ? __builtin_sqrtf(squares[i]) : squares[i];
    for (int64_t i = 0; i < kClickTileColumns; i += kLanes) {
      const Floats e = exponential(load(buffer + i) * factor);
      store(buffer + i, encoding == Encoding::kTanh ? (1.0f - e) / (1.0f + e) : e);
    }
    std::memcpy(out, buffer, sizeof(float) * n);
  }
}

template <Encoding encoding>
void click_tile(const ClickMaps& s, const Clicks& clicks, int64_t slice, int64_t begin, int64_t end,
                int64_t column) {
  constexpr int kVectors = kClickTileColumns / kLanes;
  const int64_t n = s.width - column < kClickTileColumns ? s.width - column : kClickTileColumns;
  Floats x[kVectors];
  for (int i = 0; i < kClickTileColumns; ++i)
    x[i / kLanes][i % kLanes] = static_cast<float>(column + i);
  for (int64_t row = begin; row < end; ++row) {
    Floats best[kVectors];
    for (int v = 0; v < kVectors; ++v) best[v] = splat(__builtin_inff());
    for (int64_t i = 0; i < clicks.near; ++i) {
      const float r = static_cast<float>(row) - clicks.near_row[i];
      const Floats squared = splat(clicks.near_across[i] + r * r), c = splat(clicks.near_column[i]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Floats d = x[v] - c;
        best[v] = smaller(d * d + squared, best[v]);
      }
    }
    float squares[kClickTileColumns];
    for (int v = 0; v < kVectors; ++v) store(squares + v * kLanes, best[v]);
    encode<encoding>(s, squares, n, s.out + (slice * s.height + row) * s.width + column);
  }
}

inline void click_rows(const ClickMaps& s, int64_t slice, int64_t begin, int64_t end,
                       float* scratch) {
  Clicks clicks(s, slice, scratch);
  const auto tile = s.encoding == Encoding::kEuclidean ? click_tile<Encoding::kEuclidean>
                    : s.encoding == Encoding::kDisk    ? click_tile<Encoding::kDisk>
                    : s.encoding == Encoding::kTanh    ? click_tile<Encoding::kTanh>
                                                       : click_tile<Encoding::kGaussian>;
  for (int64_t column = 0; column < s.width; column += kClickTileColumns) {
    const float height = 0.5f * (kClickTileRows - 1), width = 0.5f * (kClickTileColumns - 1);
    clicks.cull(static_cast<float>(begin) + height, static_cast<float>(column) + width,
                __builtin_sqrtf(height * height + width * width));
    tile(s, clicks, slice, begin, end, column);
  }
}

}  // namespace pixelkernels::distance::PK_ISA
