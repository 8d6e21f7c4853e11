// Plans and launches the sums over regions, and merges the blocks' partial results.
#include <algorithm>

#include "regions/cuda/sums.cuh"

namespace pixelkernels::regions::cuda {
namespace {

constexpr int kGroupChannels = kWarp;
constexpr int kMaxWarps = 8;
constexpr int64_t kEnoughWarps = 16;       // per multiprocessor, enough to saturate the memory
constexpr int64_t kReservedShared = 1024;  // by the system, for each block
constexpr int kMaxChunks = 1024;
constexpr int kMergeThreads = 512;

// ---- merging ----

struct MergeArgs {
  SumsPlan plan;
  int regions, channels;
  const int* counts;
  const float *sums, *squares;
  int64_t* count;      // may be null
  float *out, *total;  // [B, R, C], and [B, R]: variance, or the sum of q
  float divide_eps;
};

// One block per region of an image: threadIdx.x over channels, threadIdx.y over slices of the
// chunks. The order of every sum depends on shapes alone.
template <bool kMoments>
__global__ void __launch_bounds__(kMergeThreads) merge_sums_kernel(const MergeArgs a) {
  extern __shared__ uint4 shared[];
  __shared__ int64_t total_count;
  __shared__ float total_square;
  Column* columns = reinterpret_cast<Column*>(shared);            // [blockDim.y][blockDim.x]
  int* counts = reinterpret_cast<int*>(columns + kMergeThreads);  // [chunks]
  float* reduced = reinterpret_cast<float*>(columns);  // [threads], before and after the columns
  const int width = blockDim.x, slices = blockDim.y, thread = threadIdx.y * width + threadIdx.x;
  const int64_t image = blockIdx.x / a.regions, region = blockIdx.x % a.regions;
  const int64_t first = image * a.plan.chunks;
  const SumsPlan& plan = a.plan;

  for (int k = thread; k < plan.chunks; k += kMergeThreads)
    counts[k] = a.counts[(first + k) * a.regions + region];
  __syncthreads();
  const auto reduce = [&](float value) {
    reduced[thread] = value;
    for (int half = kMergeThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread < half) reduced[thread] += reduced[thread + half];
    }
    __syncthreads();
    return reduced[0];
  };
  // moments are summed over the groups of channels; q is the same in all groups
  float square = 0.0f;
  const int groups = kMoments ? plan.groups : 1;
  for (int i = thread; i < plan.chunks * groups; i += kMergeThreads) {
    const int k = i / groups;
    if (counts[k] != 0)
      square += a.squares[((first + k) * plan.groups + i % groups) * a.regions + region];
  }
  square = reduce(square);
  if (thread == 0) {
    int64_t sum = 0;
    for (int k = 0; k < plan.chunks; ++k) sum += counts[k];
    total_count = sum;
    total_square = square;
  }
  __syncthreads();
  const float n = static_cast<float>(total_count);
  float divisor = 1.0f;
  if (!kMoments && a.divide_eps >= 0.0f) {
    divisor = total_square + a.divide_eps;
    divisor = divisor == 0.0f ? 1.0f : divisor;
  }

  float spread = 0.0f;  // of the chunks' means
  for (int c0 = 0; c0 < a.channels; c0 += width) {
    const int c = c0 + threadIdx.x;
    Column mine = {};
    if (c < a.channels) {
      const int group = c / plan.group_channels;
#pragma unroll 4
      for (int k = threadIdx.y; k < plan.chunks; k += slices) {
        if (counts[k] == 0) continue;
        const int64_t row = ((first + k) * plan.groups + group) * a.regions + region;
        const int64_t i = row * plan.group_channels + c % plan.group_channels;
        if (kMoments) {
          const Moments part = reinterpret_cast<const Moments*>(a.sums)[i];
          if (mine.count == 0) mine.centre = part.centre;
          const float d = (part.centre - mine.centre) + part.shift;
          const float weighted = static_cast<float>(counts[k]) * d;
          mine.sum += weighted;
          mine.square += weighted * d;
        } else {
          mine.sum += a.sums[i];
        }
        mine.count += counts[k];
      }
    }
    columns[thread] = mine;
    __syncthreads();
    if (threadIdx.y == 0 && c < a.channels) {
      for (int y = 1; y < slices; ++y) mine = merged(mine, columns[y * width + threadIdx.x]);
      float value = mine.sum / divisor;
      if (kMoments) {
        const float shift = mine.sum / (n > 0.0f ? n : 1.0f), rest = mine.square - mine.sum * shift;
        value = mine.centre + shift;
        spread += rest < 0.0f ? 0.0f : rest;
      }
      a.out[(image * a.regions + region) * a.channels + c] = value;
    }
    __syncthreads();
  }
  if (kMoments) spread = reduce(spread);
  if (thread == 0) {
    const int64_t row = image * a.regions + region;
    if (a.count) a.count[row] = total_count;
    a.total[row] = kMoments ? (total_square + spread) / (n > 0.0f ? n : 1.0f) : total_square;
  }
}

// ---- planning ----

bool interleaved(const Pixels& p) {
  return p.channels > 1 && p.features.channel_stride < p.features.pixel_stride;
}

SumsPlan plan_sums(const Device& device, const Pixels& p, bool weighted, int64_t value_bytes) {
  SumsPlan plan = {};
  // even groups of channels, in multiples of a 16-byte unit
  const int64_t channels = std::max(p.channels, 1);
  const int64_t even = ceil_div(channels, ceil_div(channels, kGroupChannels));
  plan.group_channels = static_cast<int>(std::min(round_up(even, 8), channels));
  plan.groups = static_cast<int>(ceil_div(channels, plan.group_channels));
  const Lanes lanes(plan, p.channels, 0, 0), last(plan, p.channels, plan.groups - 1, 0);
  const int steps = kSegmentBytes / (p.element == Element::kFloat ? 4 : 2), streams = last.streams;
  plan.table = TableMemory(p.regions, streams).bytes;

  // Two large blocks per multiprocessor are best: they merge cheaply, and one reads while the other
  // merges. The tables limit the number of warps. A third stage doubles the bytes in flight, which
  // is as much as a warp can sum in that time.
  const int64_t window = std::max(4, streams) * int64_t{steps};
  const int64_t windows = p.batch * plan.groups * ceil_div(std::max(p.pixels, 1), window);
  const int64_t most_warps =
      std::clamp<int64_t>(windows / (2 * device.multiprocessors()), 1, kMaxWarps);
  const int64_t limit = device.shared_memory(), of_multiprocessor = limit + kReservedShared;
  int64_t resident = 1, best = 0;
  for (int stages = 2; stages <= 3; ++stages) {
    const int64_t stage =
        std::max(WarpMemory(lanes.streams, stages, steps, interleaved(p), weighted).bytes,
                 WarpMemory(streams, stages, steps, interleaved(p), weighted).bytes);
    const bool shared_table = stage + plan.table <= limit;
    const int64_t warp = stage + (shared_table ? plan.table : 0);
    for (int64_t choice = 2; choice <= kEnoughWarps + 1; ++choice) {
      const int64_t blocks = choice <= kEnoughWarps ? choice : 1;
      const int64_t available = std::min(limit, of_multiprocessor / blocks - kReservedShared);
      const int64_t warps = std::min(available / warp, shared_table ? most_warps : 1);
      const int64_t score =
          std::min(blocks * warps * (stages - 1), kEnoughWarps) + (shared_table ? kEnoughWarps : 0);
      if (warps < 1 || score <= best) continue;
      best = score;
      resident = blocks;
      plan.stages = stages;
      plan.warps = static_cast<int>(warps);
      plan.shared_table = shared_table;
      plan.shared = warps * warp;
    }
  }

  // partial results take at most a quarter of the float32 features
  const int64_t row = 4 + plan.groups * (4 + value_bytes * plan.group_channels);
  const int64_t tables = plan.shared_table ? 0 : plan.groups * plan.warps * plan.table;
  const int64_t least_chunk = ceil_div(p.regions * row + tables, channels);
  // about three waves of blocks, so that the last one is nearly full
  const int64_t blocks = 3 * device.multiprocessors() * resident;
  const int64_t wanted = std::max<int64_t>(1, blocks / std::max<int64_t>(1, p.batch * plan.groups));
  const int64_t chunk = std::max({ceil_div(p.pixels, std::min<int64_t>(wanted, kMaxChunks)),
                                  least_chunk, plan.warps * window});
  plan.chunk = static_cast<int>(
      std::min<int64_t>(round_up(chunk, window), round_up(std::max(p.pixels, 1), 64)));
  plan.chunks = static_cast<int>(ceil_div(p.pixels, plan.chunk));
  return plan;
}

template <class T, bool kMoments>
void launch_sums(const Device& device, const SumsArgs& args) {
  const SumsPlan& plan = args.plan;
  const int64_t blocks = args.p.batch * plan.chunks * plan.groups;
  const auto run = [&](auto* kernel) {
    launch(device, kernel, blocks, dim3(plan.warps * kWarp), plan.shared, args);
  };
  if (interleaved(args.p)) {
    plan.shared_table ? run(region_sums_kernel<T, true, kMoments, true>)
                      : run(region_sums_kernel<T, true, kMoments, false>);
  } else {
    plan.shared_table ? run(region_sums_kernel<T, false, kMoments, true>)
                      : run(region_sums_kernel<T, false, kMoments, false>);
  }
}

template <bool kMoments>
void sum_and_merge(const Device& device, SumsArgs args, int64_t* count, float* out, float* total,
                   float divide_eps) {
  const Pixels& p = args.p;
  constexpr int64_t kValueBytes = kMoments ? sizeof(Moments) : sizeof(float);
  args.plan = plan_sums(device, p, !kMoments || args.inverse_norm, kValueBytes);
  const SumsPlan& plan = args.plan;
  const int64_t bytes = p.element == Element::kFloat ? 4 : 2;
  const Alignment aligned(p.features, bytes, p.channels, p.pixels);
  const Lanes last(plan, p.channels, plan.groups - 1, 0);
  args.vectors =
      interleaved(p) ? aligned.channels && last.width * bytes >= kVectorBytes : aligned.pixels;

  const int64_t chunks = p.batch * plan.chunks, rows = chunks * plan.groups * p.regions;
  args.counts = device.workspace<int>(chunks * p.regions);
  args.sums =
      reinterpret_cast<float*>(device.workspace<char>(rows * plan.group_channels * kValueBytes));
  args.squares = device.workspace<float>(rows);
  args.tables = plan.shared_table
                    ? nullptr
                    : device.workspace<char>(chunks * plan.groups * plan.warps * plan.table);
  with_element(p.element,
               [&](auto element) { launch_sums<decltype(element), kMoments>(device, args); });

  const MergeArgs merge = {plan,         p.regions, p.channels, args.counts, args.sums,
                           args.squares, count,     out,        total,       divide_eps};
  int width = kWarp;
  while (width < p.channels && width < 256) width *= 2;
  const int64_t shared = kMergeThreads * sizeof(Column) + plan.chunks * sizeof(int);
  launch(device, merge_sums_kernel<kMoments>, p.batch * p.regions,
         dim3(width, kMergeThreads / width), shared, merge);
}

}  // namespace

void region_moments(const Device& device, const Pixels& pixels, const float* inverse_norm,
                    int64_t* count, float* mean, float* variance) {
  SumsArgs args = {};
  args.p = pixels;
  args.inverse_norm = inverse_norm;
  sum_and_merge<true>(device, args, count, mean, variance, -1.0f);
}

void region_sums(const Device& device, const Pixels& pixels, const PixelWeights& weights,
                 const float* centre, float* sums, float* totals, float divide_eps) {
  SumsArgs args = {};
  args.p = pixels;
  args.weights = weights;
  args.centre = centre;
  sum_and_merge<false>(device, args, nullptr, sums, totals, divide_eps);
}

}  // namespace pixelkernels::regions::cuda
