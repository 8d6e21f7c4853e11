// Sums over regions: the kernel that reads the features.
//
// A block handles a run of pixels and a group of up to 32 channels. Each lane of a warp owns one
// channel of one stream of pixels (32 channels of 1 stream, 16 of 2, ... 1 of 32) and a column of
// the warp's table [region][lane]. So no two lanes share an accumulator or a bank, whatever the
// labels are. Features reach the lanes through shared memory, in tiles of 128 bytes per lane, which
// are copied asynchronously while the previous tile is summed. They are summed in units of 16
// bytes: while the pixels of a unit have one label, the region's accumulators stay in registers;
// otherwise each pixel is added to the table. Moments are relative to the first pixel of a region
// that the lane reads, so that they do not cancel.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "regions/cuda/layout.cuh"

namespace pixelkernels::regions::cuda {

// One warp and its tiles.
template <class T, bool kInterleaved, bool kMoments>
struct RegionSums {
  static constexpr int kUnit = kVector<T>;
  static constexpr int kTileSteps = kSteps<T>;

  const SumsArgs& a;
  const Lanes& lanes;
  int64_t image;
  int lane, end;
  const T* source;  // the group's first channel
  char *memory, *table;
  WarpMemory at;
  TableMemory in_table;
  int region = kIgnored;  // the region whose sums are in registers
  float centre = 0, sum = 0, square = 0;

  __device__ RegionSums(const SumsArgs& args, const Lanes& lanes_, int64_t image_, int lane_,
                        int end_, char* memory_)
      : a(args),
        lanes(lanes_),
        image(image_),
        lane(lane_),
        end(end_),
        memory(memory_),
        at(lanes_.streams, args.plan.stages, kTileSteps, kInterleaved,
           !kMoments || args.inverse_norm),
        in_table(args.p.regions, lanes_.streams) {
    source = image_data<const T>(a.p.features, image) + lanes.first * a.p.features.channel_stride;
  }

  __device__ bool weighted() const { return !kMoments || a.inverse_norm; }
  __device__ int tile_pixels() const { return lanes.streams * kTileSteps; }
  __device__ int* labels() const { return reinterpret_cast<int*>(memory + at.labels); }
  __device__ int* flags() const { return reinterpret_cast<int*>(memory + at.flags); }
  __device__ WeightAndTotal* weights() const {
    return reinterpret_cast<WeightAndTotal*>(memory + at.weights);
  }
  __device__ float2* table_sums(int r) const {
    return reinterpret_cast<float2*>(table) + r * int64_t{kWarp} + lane;
  }
  __device__ float* table_centre(int r) const {
    return reinterpret_cast<float*>(table + in_table.centres) + r * int64_t{kWarp} + lane;
  }
  __device__ int* table_count(int r, int stream) const {
    return reinterpret_cast<int*>(table + in_table.counts) + r * int64_t{lanes.streams} + stream;
  }

  // The first pixel of a region is its centre; before, the table has NaN.
  __device__ void clear_table() const {
    for (int i = lane; i < a.p.regions * lanes.streams; i += kWarp) *(table_count(0, 0) + i) = 0;
    const bool given = !kMoments && a.centre && lanes.channel < lanes.channels;
    const float* centres =
        a.centre + image * a.p.regions * a.p.channels + lanes.first + lanes.channel;
#pragma unroll 4
    for (int r = 0; r < a.p.regions; ++r) {
      *table_sums(r) = make_float2(0.0f, 0.0f);
      *table_centre(r) = kMoments ? nanf("")
                         : given  ? __ldg(centres + r * int64_t{a.p.channels})
                                  : 0.0f;
    }
    __syncwarp();
  }

  // Starts copying the tile that begins at pixel `start`.
  __device__ void copy_tile(char* to, int start) const {
    if (a.vectors)
      kInterleaved ? copy_pixels(to, start) : copy_rows(to, start);
    else
      kInterleaved ? copy_own(to, start) : copy_transposed(to, start);
    __pipeline_commit();
  }

  // 16 bytes of a row at a time: eight lanes per row, every fourth channel.
  __device__ void copy_rows(char* to, int start) const {
    const int row = lane / kUnits, within = lane % kUnits;
    const int64_t rows_apart = (kWarp / kUnits) * a.p.features.channel_stride;
    for (int stream = 0; stream < lanes.streams; ++stream) {
      const int pixel = start + stream * kTileSteps + within * kUnit;
      if (pixel >= end) continue;
      const T* from = source + offset(pixel, row);
      char* target = to + (stream * lanes.width + row) * kSegmentPitchBytes + within * kVectorBytes;
#pragma unroll 4
      for (int channel = row; channel < lanes.channels; channel += kWarp / kUnits) {
        __pipeline_memcpy_async(target, from, kVectorBytes);
        from += rows_apart;
        target += (kWarp / kUnits) * kSegmentPitchBytes;
      }
    }
  }

  // 16 bytes of a pixel's channels at a time, in the order of the pixels.
  __device__ void copy_pixels(char* to, int start) const {
    const int units_log = lanes.width_log - (kUnit == 4 ? 2 : 3), pixels_apart = kWarp >> units_log;
    const int channel = (lane & ((1 << units_log) - 1)) * kUnit;
    const bool one_row = a.p.features.row_length >= a.p.pixels;
    int pixel = start + (lane >> units_log);
    if (channel >= lanes.channels) return;
    const T* from = source + offset(pixel, channel);
#pragma unroll 2
    for (int k = 0; k < kUnits && pixel < end; ++k) {
      __pipeline_memcpy_async(to + (k * kWarp + lane) * kVectorBytes, from, kVectorBytes);
      pixel += pixels_apart;
      from = one_row ? from + pixels_apart * a.p.features.pixel_stride
                     : source + offset(pixel, channel);
    }
  }

  // Rows without alignment: the lanes run along the pixels.
  __device__ void copy_transposed(char* to, int start) const {
    for (int i = lane; i < tile_pixels(); i += kWarp) {
      if (start + i >= end) continue;
      const T* from = source + offset(start + i, 0);
      char* target = to + i / kTileSteps * lanes.width * kSegmentPitchBytes;
#pragma unroll 8
      for (int channel = 0; channel < lanes.channels; ++channel) {
        reinterpret_cast<T*>(target + channel * kSegmentPitchBytes)[i % kTileSteps] = *from;
        from += a.p.features.channel_stride;
      }
    }
  }

  // Pixels without alignment: each lane takes its own values.
  __device__ void copy_own(char* to, int start) const {
    T* own = reinterpret_cast<T*>(to) + lane;
    const bool one_row = a.p.features.row_length >= a.p.pixels;
    const int64_t apart = lanes.streams * a.p.features.pixel_stride;
    int pixel = start + lanes.stream;
    if (lanes.channel >= lanes.channels) return;
    if (one_row) {
      const T* from = source + offset(pixel, lanes.channel);
#pragma unroll 8
      for (int step = 0; step < kTileSteps; ++step)
        if (pixel + step * lanes.streams < end) own[step * kWarp] = from[step * apart];
    } else {
#pragma unroll 4
      for (int step = 0; step < kTileSteps; ++step, pixel += lanes.streams)
        if (pixel < end) own[step * kWarp] = source[offset(pixel, lanes.channel)];
    }
  }

  __device__ int64_t offset(int pixel, int channel) const {
    return pixel_offset(a.p.features, pixel, a.p.pixels) + channel * a.p.features.channel_stride;
  }

  __device__ int stream_of(int i) const {
    return (kInterleaved ? i : i / kTileSteps) & (lanes.streams - 1);
  }

  // The index of the label and weight of pixel i of a window: [tile][stream][step].
  __device__ int index_of(int i) const {
    const int within = i & (tile_pixels() - 1), row = (i - within) / kTileSteps;
    const int step = kInterleaved ? within >> (5 - lanes.width_log) : within % kTileSteps;
    return (row + stream_of(i)) * (kTileSteps + kUnitPad) + step;
  }

  // Regions and weights of a window of tiles, in the order of access; read after a __syncwarp.
  __device__ void prepare_window(int start) const {
    constexpr int kTogether = 4;
    const int64_t first = image * a.p.pixels + start, last = image * a.p.pixels + end;
    const float* values = kMoments ? a.inverse_norm : a.weights.values;
    for (int i = lane; i < at.window_tiles * tile_pixels(); i += kTogether * kWarp) {
      int region_of[kTogether];
      float value[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k)
        value[k] = values && first + i + k * kWarp < last ? values[first + i + k * kWarp] : 0.0f;
      load_regions(a.p.labels, a.p.label, first + i, kWarp, last, a.p.regions, region_of);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int index = index_of(i + k * kWarp);
        if (weighted()) {
          WeightAndTotal weight = {value[k], 0.0f};
          if (!kMoments && region_of[k] >= 0)
            weight = pixel_weight(a.weights, value[k], image, first + i + k * kWarp);
          if (!kMoments && weight.weight == 0.0f) region_of[k] = kIgnored;
          weights()[index] = weight;
        }
        labels()[index] = region_of[k];
        if (region_of[k] >= 0) atomicAdd(table_count(region_of[k], stream_of(i + k * kWarp)), 1);
      }
    }
    __syncwarp();
    for (int i = lane; i < at.window_tiles * lanes.streams * kUnits; i += kWarp) {
      const int row = i / kUnits, unit = i % kUnits;
      const int* label = labels() + row * (kTileSteps + kUnitPad) + unit * kUnit;
      int flag = label[0];
#pragma unroll
      for (int u = 1; u < kUnit; ++u) flag = label[u] == label[0] ? flag : kMixed;
      flags()[row * (kUnits + 1) + unit] = flag;
    }
  }

  // Loads a region's sums from the table, before x is added.
  __device__ void take(int next, float x) {
    const float2 sums = *table_sums(next);
    centre = *table_centre(next);
    sum = sums.x;
    square = sums.y;
    if (kMoments && isnan(centre)) *table_centre(next) = centre = isfinite(x) ? x : 0.0f;
  }

  __device__ void put_back(int r) const { *table_sums(r) = make_float2(sum, square); }

  __device__ void leave() {
    if (region != kIgnored) put_back(region);
    region = kIgnored;
  }

  // Adds one pixel, or with kFirst starts new sums from it.
  template <bool kFirst = false>
  __device__ void add(float x, const WeightAndTotal* weight, float& to_sum,
                      float& to_square) const {
    const float d = x - centre;
    if (kMoments) {
      to_sum = kFirst ? d : to_sum + d;
      to_square = kFirst ? d * d : fmaf(d, d, to_square);
    } else {
      const WeightAndTotal w = *weight;
      const bool by_sign = a.weights.kind == PixelWeights::kHinge && a.weights.norm == 1;
      const float direction = by_sign ? sign(d) : d;
      to_sum = kFirst ? w.weight * direction : fmaf(w.weight, direction, to_sum);
      to_square = kFirst ? w.total : to_square + w.total;
    }
  }

  __device__ void sum_unit(const float (&x)[kUnit], int flag, const int* label,
                           const WeightAndTotal* weight) {
    if (flag >= 0) {
      if (flag != region) {
        leave();
        take(flag, x[0]);
        region = flag;
      }
      // two separate sums, so that consecutive units depend on one addition only
      float sums[2], squares[2];
      add<true>(x[0], weight, sums[0], squares[0]);
      add<true>(x[1], weight + 1, sums[1], squares[1]);
#pragma unroll
      for (int u = 2; u < kUnit; ++u) add(x[u], weight + u, sums[u & 1], squares[u & 1]);
      sum += sums[0] + sums[1];
      square += squares[0] + squares[1];
    } else if (flag == kMixed) {
      leave();
#pragma unroll
      for (int u = 0; u < kUnit; ++u) {
        const int own = label[u];
        if (own == kIgnored) continue;
        take(own, x[u]);
        add(x[u], weight + u, sum, square);
        put_back(own);
      }
    }
  }

  // `row` is the lane's stream in the window.
  __device__ void sum_tile(const char* tile, int row) {
    const int* flag = flags() + row * (kUnits + 1);
    const int* label = labels() + row * (kTileSteps + kUnitPad);
    const WeightAndTotal* weight = weights() + row * (kTileSteps + kUnitPad);
    const bool scaled = kMoments && weighted();
    tile += kInterleaved ? lane * sizeof(T) : lane * kSegmentPitchBytes;
#pragma unroll 2
    for (int unit = 0; unit < kUnits; ++unit) {
      float x[kUnit];
      if (kInterleaved) {
#pragma unroll
        for (int u = 0; u < kUnit; ++u)
          x[u] = to_float(reinterpret_cast<const T*>(tile)[u * kWarp]);
        tile += kUnit * kWarp * sizeof(T);
      } else {
        unpack<T, kUnit>(*reinterpret_cast<const uint4*>(tile), x);
        tile += kVectorBytes;
      }
      if (scaled) {
#pragma unroll
        for (int u = 0; u < kUnit; ++u) x[u] *= weight[u].weight;
      }
      sum_unit(x, *flag, label, weight);
      ++flag;
      label += kUnit;
      weight += kUnit;
    }
  }

  // Windows `first`, `first + stride`, ... of the chunk that begins at pixel `begin`.
  __device__ void run(int begin, int first, int stride) {
    clear_table();
    const int in_window = at.window_tiles - 1;
    const auto start_of = [&](int tile) {
      const int64_t window = first + int64_t{tile >> at.window_log} * stride;
      return begin + ((window << at.window_log) + (tile & in_window)) * tile_pixels();
    };
    const int ahead = a.plan.stages - 1;
    char *filled = memory, *summed = memory;  // cycle through the stages
    const auto next_stage = [&](char* stage) {
      stage += at.stage_bytes;
      return stage == memory + a.plan.stages * at.stage_bytes ? memory : stage;
    };
    for (int tile = -ahead;; ++tile) {
      const int64_t fetched = start_of(tile + ahead);
      if (fetched < end)
        copy_tile(filled, static_cast<int>(fetched));
      else
        __pipeline_commit();  // an empty group, so that the wait counts tiles
      filled = next_stage(filled);
      if (tile < 0) continue;
      const int64_t start = start_of(tile);
      if (start >= end) break;
      if ((tile & in_window) == 0) prepare_window(static_cast<int>(start));
      __pipeline_wait_prior(ahead);
      __syncwarp();
      sum_tile(summed, (tile & in_window) * lanes.streams + lanes.stream);
      summed = next_stage(summed);
      __syncwarp();  // before the tile's memory is filled again
    }
    // only empty groups of copies are left
    leave();
  }
};

template <class T, bool kInterleaved, bool kMoments, bool kSharedTable>
__global__ void __launch_bounds__(256, 1) region_sums_kernel(const SumsArgs a) {
  extern __shared__ uint4 shared[];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int group = blockIdx.x % a.plan.groups;
  const unsigned chunk_number = blockIdx.x / a.plan.groups,
                 image_number = chunk_number / a.plan.chunks;
  const int64_t chunk = chunk_number, image = image_number;  // the chunk among those of all images
  const int begin = static_cast<int>(chunk_number - image_number * a.plan.chunks) * a.plan.chunk;
  const int end = a.p.pixels - begin < a.plan.chunk ? a.p.pixels : begin + a.plan.chunk;
  const Lanes lanes(a.plan, a.p.channels, group, lane);
  const int64_t warp_bytes = a.plan.shared / a.plan.warps;

  RegionSums<T, kInterleaved, kMoments> own(a, lanes, image, lane, end,
                                            reinterpret_cast<char*>(shared) + warp * warp_bytes);
  const auto table_of = [&](int w) {
    if constexpr (kSharedTable)
      return reinterpret_cast<char*>(shared) + w * warp_bytes + own.at.bytes;
    else
      return a.tables + (int64_t{blockIdx.x} * a.plan.warps + w) * a.plan.table;
  };
  own.table = table_of(warp);
  own.run(begin, warp, a.plan.warps);
  __syncthreads();

  // the warps' tables, then the streams, in a fixed order
  for (int r = warp; r < a.p.regions; r += a.plan.warps) {
    Column all = {};
    for (int w = 0; w < a.plan.warps; ++w) {
      own.table = table_of(w);
      Column column = {*own.table_count(r, lanes.stream), 0.0f, 0.0f, 0.0f};
      if (column.count == 0) continue;
      const float2 sums = *own.table_sums(r);
      column.sum = sums.x;
      column.square = sums.y;
      if (kMoments) column.centre = *own.table_centre(r);
      all = merged(all, column);
    }
    for (int apart = lanes.width; apart < kWarp; apart *= 2)
      all = merged(all, exchanged(all, apart));
    const int64_t row = (chunk * a.plan.groups + group) * a.p.regions + r;
    if (group == 0 && lane == 0) a.counts[chunk * a.p.regions + r] = all.count;
    if (all.count == 0) continue;  // the rest is not read
    const bool owner = lanes.stream == 0 && lanes.channel < lanes.channels;
    float square = all.square;
    if (kMoments) {
      const float mean_shift = all.sum / static_cast<float>(all.count);
      if (owner) a.moments()[row * a.plan.group_channels + lane] = {all.centre, mean_shift};
      square = owner ? all.square - all.sum * mean_shift : 0.0f;
      square = square < 0.0f ? 0.0f : square;
      for (int apart = kWarp / 2; apart > 0; apart /= 2)
        square += __shfl_xor_sync(kWholeWarp, square, apart);
    } else if (owner) {
      a.sums[row * a.plan.group_channels + lane] = all.sum;
    }
    if (lane == 0) a.squares[row] = square;
  }
}

}  // namespace pixelkernels::regions::cuda
