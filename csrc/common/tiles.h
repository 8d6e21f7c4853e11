// Walking an image in tiles of 8 pixels x 8 channels, whatever its strides.
#pragma once

#include "common/simd.h"
#include "common/view.h"

namespace pixelkernels::PK_ISA {

constexpr int kChunkPixels = 2048;  // pixels whose labels are prepared at a time
constexpr int kChunkTiles = kChunkPixels / kLanes;

// One image of a View.
template <class T>
struct Plane {
  T* data;
  int64_t channel_stride, row_stride, pixel_stride, row_length;

  Plane(const View& view, int64_t image)
      : data(static_cast<T*>(view.data) + image * view.batch_stride),
        channel_stride(view.channel_stride),
        row_stride(view.row_stride),
        pixel_stride(view.pixel_stride),
        row_length(view.row_length) {}

  int64_t offset(int64_t pixel) const {
    if (pixel < row_length) return pixel * pixel_stride;  // divisions would dominate
    return pixel / row_length * row_stride + pixel % row_length * pixel_stride;
  }
};

// The offsets of the tiles of a chunk of pixels: `start` is -1 if a tile is not 8 pixels of one
// row.
struct Offsets {
  int64_t start[kChunkTiles];

  template <class T>
  void fill(const Plane<T>& plane, int64_t begin, int pixels) {
    int64_t row = begin / plane.row_length, column = begin % plane.row_length;
    for (int t = 0; t * kLanes < pixels; ++t) {
      const bool straight = (t + 1) * kLanes <= pixels && column + kLanes <= plane.row_length;
      start[t] = straight ? row * plane.row_stride + column * plane.pixel_stride : -1;
      for (column += kLanes; column >= plane.row_length; column -= plane.row_length) ++row;
    }
  }
};

// The layout of a tile in registers: row i holds eight pixels of channel i, or eight channels of
// pixel i.
enum class TileRows { kChannels, kPixels };

// Pixels and channels outside the image read as 0.
template <TileRows rows, class T>
PK_INLINE void load_tile(const Plane<T>& plane, int64_t start, int64_t pixel, int pixels,
                         int64_t channel, int channels, Vec<Accumulate<T>> out[kLanes]) {
  using A = Accumulate<T>;
  TileRows have = TileRows::kChannels;
  if (start >= 0 && plane.pixel_stride == 1) {
    const T* p = plane.data + start + channel * plane.channel_stride;
    // one branch instead of eight
    if (channels == kLanes) {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i) out[i] = load(p + i * plane.channel_stride);
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i)
        out[i] = i < channels ? load(p + i * plane.channel_stride) : Vec<A>{};
    }
  } else if (start >= 0 && plane.channel_stride == 1 && channels == kLanes) {
    const T* p = plane.data + start + channel;
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) out[i] = load(p + i * plane.pixel_stride);
    have = TileRows::kPixels;
  } else if (start >= 0 && plane.channel_stride == 1) {
    // whole vectors as long as they end within the tile, without the channels of the next pixel
    const T* p = plane.data + start + channel;
    const int64_t end = (kLanes - 1) * plane.pixel_stride + channels;
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) {
      const T* pixel = p + i * plane.pixel_stride;
      out[i] = first_lanes(
          i * plane.pixel_stride + kLanes <= end ? load(pixel) : load_some(pixel, channels),
          channels);
    }
    have = TileRows::kPixels;
  } else {
    A buffer[kLanes][kLanes] = {};
    for (int i = 0; i < kLanes && i < pixels; ++i) {
      const T* p = plane.data + plane.offset(pixel + i) + channel * plane.channel_stride;
      for (int c = 0; c < channels; ++c) buffer[i][c] = scalar(p[c * plane.channel_stride]);
    }
    for (int i = 0; i < kLanes; ++i) out[i] = load(buffer[i]);
    have = TileRows::kPixels;
  }
  if (have != rows) transpose(out);
}

template <TileRows rows, class T>
PK_INLINE void store_tile(const Plane<T>& plane, int64_t start, int64_t pixel, int pixels,
                          int64_t channel, int channels, Vec<Accumulate<T>> in[kLanes]) {
  using A = Accumulate<T>;
  if (start >= 0 && plane.pixel_stride == 1) {
    if (rows != TileRows::kChannels) transpose(in);
    T* p = plane.data + start + channel * plane.channel_stride;
    if (channels == kLanes) {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i) store(p + i * plane.channel_stride, in[i]);
    } else {
#pragma GCC unroll 8
      for (int i = 0; i < kLanes; ++i)
        if (i < channels) store(p + i * plane.channel_stride, in[i]);
    }
    return;
  }
  if (rows != TileRows::kPixels) transpose(in);
  if (start >= 0 && plane.channel_stride == 1 && channels == kLanes) {
    T* p = plane.data + start + channel;
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) store(p + i * plane.pixel_stride, in[i]);
    return;
  }
  int i = 0;
  if (start >= 0 && plane.channel_stride == 1 && plane.pixel_stride == channels) {
    // each vector overwrites what the one before wrote past its pixel
    T* p = plane.data + start + channel;
    for (; i * channels + kLanes <= kLanes * channels; ++i) store(p + i * channels, in[i]);
  }
  for (; i < kLanes && i < pixels; ++i) {
    A buffer[kLanes];
    store(buffer, in[i]);
    T* p = plane.data + plane.offset(pixel + i) + channel * plane.channel_stride;
    for (int c = 0; c < channels; ++c) store_scalar(p + c * plane.channel_stride, buffer[c]);
  }
}

}  // namespace pixelkernels::PK_ISA
