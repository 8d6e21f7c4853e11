// The layout of the sums over regions: over blocks, warps and lanes, and in memory.
#pragma once

#include "regions/cuda/weights.cuh"

namespace pixelkernels::regions::cuda {

constexpr int kSegmentBytes = 128;                    // bytes of a lane's pixels in a tile
constexpr int kUnits = kSegmentBytes / kVectorBytes;  // in sequence
constexpr int kSegmentPitchBytes =
    kSegmentBytes + kVectorBytes;  // 16-byte reads of the 32 segments have no bank conflicts
constexpr int kUnitPad = 4;  // padding of a stream's labels, so that streams have different banks
constexpr int kIgnored = -1;
constexpr int kMixed = -2;  // a unit with pixels of several labels

template <class T>
constexpr int kSteps = kSegmentBytes / static_cast<int>(sizeof(T));  // pixels of a lane in a tile

// The mean of a chunk is centre + shift. Rounded, it would lose the digits of a small variance.
struct alignas(8) Moments {
  float centre, shift;
};

struct SumsPlan {
  int groups, group_channels;  // the split of the channels
  int chunk, chunks;           // pixels of a block, and blocks of an image
  int warps;
  int stages;  // tiles of a warp in shared memory: the current one and those in flight
  bool shared_table;
  int64_t shared, table;  // bytes for a block and, in device memory, for a warp
};

struct SumsArgs {
  Pixels p;
  SumsPlan plan;
  bool vectors;  // 16-byte copies
  const float* inverse_norm;
  PixelWeights weights;
  const float* centre;  // [B, R, C]
  // partial results of image b, chunk k, group g: row (b * chunks + k) * groups + g
  int* counts;     // [B * chunks, R]
  float* sums;     // [rows, R, group_channels]: Moments, or sums of w (f - centre)
  float* squares;  // [rows, R]: sums of squared distances to the mean over the group's channels, or
                   // of q
  char* tables;    // where shared memory is too small for them

  __device__ Moments* moments() const { return reinterpret_cast<Moments*>(sums); }
};

// The distribution of a group of channels over the lanes.
struct Lanes {
  int first, channels;            // the group
  int width_log, width, streams;  // width: channels rounded up to a power of two
  int channel, stream;            // this lane's

  __host__ __device__ Lanes(const SumsPlan& plan, int all_channels, int group, int lane) {
    first = group * plan.group_channels;
    channels =
        all_channels - first < plan.group_channels ? all_channels - first : plan.group_channels;
    width_log = 0;
    while ((1 << width_log) < channels) ++width_log;
    width = 1 << width_log;
    streams = kWarp / width;
    channel = lane & (width - 1);
    stream = lane >> width_log;
  }
};

// Byte offsets in a warp's part of shared memory and in its table.
struct WarpMemory {
  int window_log, window_tiles;  // tiles whose labels are prepared at a time
  int stage_bytes, weights, labels, flags;
  int64_t bytes;

  __host__ __device__ WarpMemory(int streams, int stages, int steps, bool interleaved,
                                 bool weighted) {
    window_log = streams == 1 ? 2 : streams == 2 ? 1 : 0;
    window_tiles = 1 << window_log;
    const int rows = window_tiles * streams;
    stage_bytes = kWarp * (interleaved ? kSegmentBytes : kSegmentPitchBytes);
    weights = stages * stage_bytes;
    labels = weights + (weighted ? rows * (steps + kUnitPad) * 8 : 0);
    flags = labels + rows * (steps + kUnitPad) * 4;
    bytes = (flags + rows * (kUnits + 1) * 4 + 15) / 16 * 16;
  }
};

struct TableMemory {
  int64_t centres, counts, bytes;

  __host__ __device__ TableMemory(int regions, int streams) {
    centres = int64_t{regions} * kWarp * 8;
    counts = centres + int64_t{regions} * kWarp * 4;
    bytes = (counts + int64_t{regions} * streams * 4 + 15) / 16 * 16;
  }
};

// The accumulators of one lane for one region: count, and the sums of x - centre and |x - centre|^2
// (or of the weighted differences and of q).
struct Column {
  int count;
  float centre, sum, square;
};

// Merges two columns, relative to the centre of `mine`.
__device__ inline Column merged(const Column& mine, const Column& other) {
  if (other.count == 0) return mine;
  if (mine.count == 0) return other;
  const float n = static_cast<float>(other.count), shift = other.centre - mine.centre;
  return {mine.count + other.count, mine.centre, mine.sum + (other.sum + n * shift),
          mine.square + (other.square + shift * (2.0f * other.sum + n * shift))};
}

__device__ inline Column exchanged(const Column& column, int lanes_apart) {
  return {__shfl_xor_sync(kWholeWarp, column.count, lanes_apart),
          __shfl_xor_sync(kWholeWarp, column.centre, lanes_apart),
          __shfl_xor_sync(kWholeWarp, column.sum, lanes_apart),
          __shfl_xor_sync(kWholeWarp, column.square, lanes_apart)};
}

}  // namespace pixelkernels::regions::cuda
