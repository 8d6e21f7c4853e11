// A later pass of a distance transform. Pixel x of a line is nearest to a True pixel with the
// coordinate q on the line, its site: the first of the least cost. Sites do not decrease along a
// line. So the anchors, the first of every 32 pixels and the last of all, are solved level by
// level, each between the sites of those on both sides; then a warp tries what lies between the
// sites of two anchors for the 32 pixels there. Over a line these are hardly more candidates than
// pixels.
//
// A block reads a tile of lines before it writes, so a pass may work in place. Lines across memory
// have tiles of 8 neighbours, so that all 32 bytes of a sector are used.
#pragma once

#include <algorithm>

#include "distance/cuda/metrics.cuh"

namespace pixelkernels::distance::cuda {

constexpr int kLineWarps = 8;
constexpr int kTileLines = 8;
constexpr int kAccessesAhead = 8;  // loads of a thread in flight
// Of blocks that share a multiprocessor, if tiles are in global memory or costs are float64.
constexpr int kResidentBlocks = 2;

// Each of the planes has `across` lines of `length` pixels, which are `across` pixels apart.
struct Lines {
  int64_t planes;
  int length, across;
};

// Anchors are numbered from 1; site 0 is the first pixel.
__device__ inline int anchor_pixel(int anchor, int length) {
  return min((anchor - 1) * kWarp, length - 1);
}
__host__ __device__ inline int anchor_count(int length) { return (length + kWarp - 1) / kWarp + 1; }

// The memory of a tile: costs, then sites, then results of one turn and of the next, then changes
// of labels. All begin at multiples of 16 bytes.
template <class Cost, bool kAcross, bool kLabels>
struct Layout {
  int length;

  // whole groups of four costs, and what lines across memory add to spread them over the banks
  __host__ __device__ int padded_length() const { return (length + 3) / 4 * 4; }
  __host__ __device__ int cost_pitch() const {
    constexpr int banks = 128 / sizeof(Cost), skew = 16 / sizeof(Cost);
    return kAcross ? (length + banks - 1) / banks * banks + skew : padded_length();
  }
  __host__ __device__ int site_pitch() const { return (anchor_count(length) + 4) / 4 * 4; }
  __host__ __device__ int64_t change_pitch() const { return (int64_t{length} + 15) / 16 * 16; }
  __host__ __device__ static int turn_pitch(int warps_per_line) {
    return warps_per_line * kWarp + 4;
  }
  __host__ __device__ int64_t bytes(int lines) const {
    const int64_t turns = kAcross ? 2 * lines * turn_pitch(kLineWarps / lines) : 0;
    const int64_t changes = kLabels ? lines * change_pitch() : 0;
    return lines * (int64_t{cost_pitch()} * sizeof(Cost) + 4 * site_pitch()) + 4 * turns + changes;
  }
};

// The sites of a line's anchors, by its warps. `wait` is a barrier of theirs.
template <class Metric, class Wait>
__device__ inline void find_anchors(const Metric& metric, const typename Metric::Cost* costs,
                                    int length, int warp, int warps, int* sites, const Wait& wait) {
  const int lane = threadIdx.x, anchors = anchor_count(length);
  int apart = 1;
  while (apart <= anchors) apart *= 2;
  for (apart /= 2; apart > 0; apart /= 2) {
    for (int anchor = (2 * warp + 1) * apart; anchor <= anchors; anchor += 2 * warps * apart) {
      const int x = anchor_pixel(anchor, length), lowest = sites[anchor - apart];
      const int highest = anchor + apart <= anchors ? sites[anchor + apart] : length - 1;
      auto least = Metric::kMost;
      int site = lowest;
      for (int q = lowest + lane; q <= highest; q += kWarp) {
        const auto cost = metric.cost(costs[q], x, q);
        if (cost < least) least = cost, site = q;
      }
      site = first_of_least(least, site);
      if (lane == 0) sites[anchor] = site;
    }
    wait();
  }
}

// The steps from the lane's pixel in a part to another label along the line, kFarSteps or more
// without one. Where the label changes, `changes` is not 0. The warp reads the nearest parts that
// have a change.
__device__ inline int steps_to_label(const uint8_t* changes, int length, int part, bool border) {
  const int lane = threadIdx.x, x = part * kWarp + lane;
  const auto bits_of = [&](int p) {
    const int q = p * kWarp + lane;
    return __ballot_sync(kWholeWarp, q < length && changes[q] != 0);
  };
  const unsigned own = bits_of(part), up_to_here = kWholeWarp >> (kWarp - 1 - lane);
  int first = border ? 0 : kNoneAbove, end = border ? length : kNoneBelow;
  for (int p = part - 1; p >= 0; --p) {
    if (const unsigned bits = bits_of(p); bits != 0) {
      first = p * kWarp + kWarp - 1 - __clz(bits);
      break;
    }
  }
  for (int p = part + 1; p * kWarp < length; ++p) {
    if (const unsigned bits = bits_of(p); bits != 0) {
      end = p * kWarp + __ffs(bits) - 1;
      break;
    }
  }
  if ((own & up_to_here) != 0) first = part * kWarp + kWarp - 1 - __clz(own & up_to_here);
  if ((own & ~up_to_here) != 0) end = part * kWarp + __ffs(own & ~up_to_here) - 1;
  return min(x - first + 1, end - x);
}

// The result of the lane's pixel in a part of 32 pixels; if the pass asks for sites, the site, or
// -1 without a True pixel.
template <class Pass>
__device__ inline unsigned solve_part(const Pass& pass, const typename Pass::Metric::Cost* costs,
                                      const int* sites, const uint8_t* changes, int length,
                                      int part) {
  const auto& metric = pass.metric;
  const int x = part * kWarp + static_cast<int>(threadIdx.x), highest = sites[part + 2];
  int q = sites[part + 1] / 4 * 4, group = q;
  auto least = Pass::Metric::kMost;
#pragma unroll 2
  for (; q <= highest; q += 4) {
    const auto cost = metric.least_cost(costs + q, x, q);
    if constexpr (Pass::kSites) {
      if (cost < least) least = cost, group = q;
    } else {
      least = min(least, cost);
    }
  }
  if constexpr (Pass::kSites) {
    if (metric.unlifted(least, x) >= Pass::Metric::kNone) return ~0u;
    int site = group;
#pragma unroll
    for (int k = 3; k >= 0; --k)
      if (metric.cost(costs[group + k], x, group + k) == least) site = group + k;
    return site;
  } else if constexpr (Pass::kLabels) {
    return pass.result(least, x, steps_to_label(changes, length, part, pass.border));
  } else {
    return pass.result(least, x);
  }
}

// Left to choose, the compiler keeps more blocks resident than these kernels have registers for.
template <class Pass, bool kInShared>
constexpr int resident_blocks() {
  constexpr bool chosen = kInShared && sizeof(typename Pass::Metric::Cost) == 4;
  return chosen ? 0 : kResidentBlocks;
}

// A tile has `together` lines: neighbours in a plane if kAcross, or else planes of one line. The
// warps of a block share them; with a line of its own, a warp waits for no other unless kAcross.
// The memory of a tile is shared, or else that of the block in `tile_memory`.
//
//   Pass::read(i)             what the earlier passes left at pixel i
//   Pass::line(plane)         what square and write need to know
//   Pass::square(line, read)  the Square that this means
//   Pass::kSites              whether results are sites; if not, they are of
//   Pass::result(least, x)    32 bits, from a Cost; if Pass::kLabels with a third argument, the
//                             steps to another label along the line, up to Pass::border
//   Pass::changes(i)          if kLabels, whether the label changes at pixel i along the line
//   Pass::write(line, i, x, result)
template <bool kAcross, bool kInShared, class Pass>
__global__ void __launch_bounds__(kLineWarps* kWarp, (resident_blocks<Pass, kInShared>()))
    lines_kernel(const Pass pass, const Lines lines, const int together, const int64_t tiles,
                 const int64_t blocks, uint8_t* tile_memory) {
  using Cost = typename Pass::Metric::Cost;
  extern __shared__ uint4 shared[];
  const int warps = blockDim.y / together, own = threadIdx.y / warps, warp = threadIdx.y % warps;
  const int lane = threadIdx.x, thread = threadIdx.y * kWarp + lane;
  const int length = lines.length, parts = anchor_count(length) - 1;
  const auto wait = [&] {
    if (!kAcross && warps == 1)
      __syncwarp();
    else
      __syncthreads();
  };
  const Layout<Cost, kAcross, Pass::kLabels> layout = {length};
  uint8_t* memory = kInShared ? reinterpret_cast<uint8_t*>(shared)
                              : tile_memory + blockIdx.x * layout.bytes(together);
  Cost* const all_costs = reinterpret_cast<Cost*>(memory);
  int* const all_sites =
      reinterpret_cast<int*>(all_costs + int64_t{together} * layout.cost_pitch());
  unsigned* const turns =
      reinterpret_cast<unsigned*>(all_sites + int64_t{together} * layout.site_pitch());
  const int64_t turn_values = kAcross ? 2 * together * layout.turn_pitch(warps) : 0;
  uint8_t* const all_changes = reinterpret_cast<uint8_t*>(turns + turn_values);
  const uint8_t* const changes = all_changes + own * layout.change_pitch();
  const Cost* const costs = all_costs + own * layout.cost_pitch();
  int* const sites = all_sites + own * layout.site_pitch();

  // a thread reads, and writes if kAcross, every step-th pixel of this line, from the first on
  const int moved = kAcross ? thread % together : own;
  const int first = kAcross ? thread / together : warp * kWarp + lane;
  const int step = warps * kWarp;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += blocks) {
    int64_t plane = tile * together + own, begin = plane * length;
    bool inside = plane < lines.planes;
    if constexpr (kAcross) {
      const int64_t tiles_across = (lines.across + together - 1) / together;
      plane = tile / tiles_across;
      const int64_t column = tile % tiles_across * together + moved;
      begin = plane * length * lines.across + column;
      inside = column < lines.across;
    } else if (!inside) {
      return;
    }
    const int64_t apart = kAcross ? lines.across : 1;
    const auto line = pass.line(plane);
    Cost* const to = all_costs + moved * layout.cost_pitch();
    const auto copy = [&](int base, auto all_known) {
      typename Pass::Read values[kAccessesAhead];
#pragma unroll
      for (int k = 0; k < kAccessesAhead; ++k) {
        const int q = base + k * step;
        if (all_known || (q < length && inside)) values[k] = pass.read(begin + q * apart);
      }
#pragma unroll
      for (int k = 0; k < kAccessesAhead; ++k) {
        const int q = base + k * step;
        const bool known = all_known || (q < length && inside);
        const auto square = known ? pass.square(line, values[k]) : Pass::Metric::kNone;
        if (all_known || q < layout.padded_length()) to[q] = pass.metric.lifted(square, q);
      }
    };
    for (int base = first; base < layout.padded_length(); base += kAccessesAhead * step) {
      if (base + (kAccessesAhead - 1) * step < length && inside)
        copy(base, std::true_type());
      else
        copy(base, std::false_type());
    }
    if constexpr (Pass::kLabels) {
      uint8_t* const to_changes = all_changes + moved * layout.change_pitch();
      for (int q = first; q < length; q += step)
        to_changes[q] = inside && pass.changes(begin + q * apart) ? 1 : 0;
    }
    if (warp == 0 && lane == 0) sites[0] = 0;
    wait();
    find_anchors(pass.metric, costs, length, warp, warps, sites, wait);

    if constexpr (kAcross) {
      const int pitch = layout.turn_pitch(warps);
      for (int part = 0, turn = 0; part < parts; part += warps, turn ^= 1) {
        unsigned* const results = turns + turn * together * pitch;
        if (part + warp < parts)
          results[own * pitch + warp * kWarp + lane] =
              solve_part(pass, costs, sites, changes, length, part + warp);
        __syncthreads();
        const int x = part * kWarp + first;
        if (x < length && inside)
          pass.write(line, begin + x * apart, x, results[moved * pitch + first]);
      }
    } else {
      for (int part = warp; part < parts; part += warps) {
        const unsigned result = solve_part(pass, costs, sites, changes, length, part);
        const int x = part * kWarp + lane;
        if (x < length) pass.write(line, begin + x, x, result);
      }
    }
    if constexpr (kInShared) return;  // it is the only tile of the block
    __syncthreads();
  }
}

template <bool kAcross, class Pass>
void solve_lines(const Device& device, const Pass& pass, const Lines& lines) {
  const Layout<typename Pass::Metric::Cost, kAcross, Pass::kLabels> layout = {lines.length};
  const auto fits = [&](int n) { return layout.bytes(n) <= device.shared_memory(); };
  int together = 1, warps = 1;  // of a line
  if (kAcross) {
    together = kTileLines;
    while (together > 1 && !fits(together)) together /= 2;
    warps = kLineWarps / together;
  } else {
    // at most 1024 pixels per warp, fewer where too few warps would fill the device
    const auto worthwhile = [&] {
      return lines.length > 1024 * warps || lines.planes * warps < 16 * device.multiprocessors();
    };
    while (warps < kLineWarps && lines.length > 2 * kWarp * warps && worthwhile()) warps *= 2;
    if (warps == 1 && fits(1))
      together =
          static_cast<int>(std::min<int64_t>(kLineWarps, device.shared_memory() / layout.bytes(1)));
  }
  const dim3 threads(kWarp, static_cast<unsigned>(together * warps));
  const int64_t tiles =
      kAcross ? lines.planes * ceil_div(lines.across, together) : ceil_div(lines.planes, together);
  const int64_t bytes = layout.bytes(together);
  if (fits(together)) {
    launch(device, lines_kernel<kAcross, true, Pass>, tiles, threads, bytes, pass, lines, together,
           tiles, tiles, static_cast<uint8_t*>(nullptr));
  } else {
    const int64_t blocks = std::min<int64_t>(tiles, kResidentBlocks * device.multiprocessors());
    launch(device, lines_kernel<kAcross, false, Pass>, blocks, threads, 0, pass, lines, together,
           tiles, blocks, device.workspace<uint8_t>(blocks * bytes));
  }
}

}  // namespace pixelkernels::distance::cuda
