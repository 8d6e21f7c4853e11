// The blocked matrix product of this family, and the packing of both sides.
#pragma once

#include "common/tiles.h"
#include "similarity/split.h"

namespace pixelkernels::similarity::PK_ISA {

using namespace pixelkernels::PK_ISA;

// The micro-kernel accumulates MR rows of NR values: 12 of the 16 registers of AVX2, and enough
// independent sums to hide the latency of a multiply-add. AVX-512 has 32 registers of a whole row,
// so it takes two micro-panels of both sides: a value that is loaded once is multiplied twice.
#if defined(__AVX512F__)
constexpr int kPanelsAtOnce = 2;
#else
constexpr int kPanelsAtOnce = 1;
#endif
template <class A>
constexpr int kNRVectors = sizeof(A) == 4 ? 2 : 1;
template <class A>
constexpr int kNR = kNRVectors<A> * kLanes;

template <class A>
constexpr int64_t panels_of(int64_t pixels) {
  return (pixels + kNR<A> - 1) / kNR<A>;
}

// Micro-panels of the left and the right side.
template <int kLeft, int kRight>
struct AtOnce {
  static constexpr int kRows = kLeft * kMR, kPanels = kRight;
};

// body(tile, panel, AtOnce) for all pairs, as many at once as fit the registers.
template <class Body>
PK_INLINE void take_panels(int64_t tiles, int64_t panels, const Body& body) {
  const auto with_panels = [&](int64_t panel, auto right) {
    constexpr int kRight = decltype(right)::kPanels;
    int64_t tile = 0;
    for (; tile + kPanelsAtOnce <= tiles; tile += kPanelsAtOnce)
      body(tile, panel, AtOnce<kPanelsAtOnce, kRight>{});
    for (; tile < tiles; ++tile) body(tile, panel, AtOnce<1, kRight>{});
  };
  int64_t panel = 0;
  for (; panel + kPanelsAtOnce <= panels; panel += kPanelsAtOnce)
    with_panels(panel, AtOnce<1, kPanelsAtOnce>{});
  for (; panel < panels; ++panel) with_panels(panel, AtOnce<1, 1>{});
}

template <int kPanels, int kRows, class A>
using Sums = Vec<A>[kPanels][kRows][kNRVectors<A>];

// sums[p][r] += sum_t left(t, r) right_pt, where right_pt is the row of NR values at
// right + p next_right + t step. The micro-panels of the left side are `next` apart.
template <int kStep, int kRow, int kPanels, int kRows, class A>
PK_INLINE void micro_kernel(const A* left, int64_t next, const A* right, int64_t next_right,
                            int64_t depth, Vec<A> (&sums)[kPanels][kRows][kNRVectors<A>],
                            int64_t step = kNR<A>) {
#if defined(__AVX512F__)
  // a register holds a row of a panel
  typedef A Row __attribute__((vector_size(kNR<A> * sizeof(A))));
  Row rows[kPanels][kRows];
  std::memcpy(rows, sums, sizeof rows);
  for (int64_t t = 0; t < depth; ++t) {
    Row panel[kPanels];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p)
      std::memcpy(&panel[p], right + p * next_right + t * step, sizeof panel[p]);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const A factor = left[r / kMR * next + t * kStep + r % kMR * kRow];
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) rows[p][r] += factor * panel[p];
    }
  }
  std::memcpy(sums, rows, sizeof rows);
#else
  static_assert(kRows <= kMR && kPanels == 1, "more rows than registers");
  for (int64_t t = 0; t < depth; ++t) {
    Vec<A> panel[kNRVectors<A>];
#pragma GCC unroll 2
    for (int v = 0; v < kNRVectors<A>; ++v) panel[v] = load(right + t * step + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Vec<A> factor = splat(left[t * kStep + r * kRow]);
#pragma GCC unroll 2
      for (int v = 0; v < kNRVectors<A>; ++v) sums[0][r][v] += factor * panel[v];
    }
  }
#endif
}

// Long sums are built from short ones, which keeps the rounding small.
template <int kRows, class A>
PK_INLINE void add_rows(A* p, int64_t next, const Vec<A> (&rows)[kRows][kNRVectors<A>]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kNRVectors<A>; ++v) {
      A* at = p + r / kMR * next + r % kMR * kNR<A> + v * kLanes;
      store(at, load(at) + rows[r][v]);
    }
}

template <int kRows, class A>
PK_INLINE void store_rows(A* p, const Vec<A> (&rows)[kRows][kNRVectors<A>]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kNRVectors<A>; ++v) store(p + (r * kNRVectors<A> + v) * kLanes, rows[r][v]);
}

// Query pixels: packed, or in place where no padding is needed.
template <class A>
struct Queries {
  const A* data;
  int64_t slice, panel, step;          // distances; `step`: of channels
  const split::Term* split = nullptr;  // or the packed ones, split
  int64_t terms = 0;

  static Queries packed(const A* data, const Depth& depth, int64_t panels) {
    return {data, panels * depth.kc * kNR<A>, depth.kc * kNR<A>, kNR<A>};
  }
  static Queries in_place(const A* data, const Depth& depth, int64_t channel_stride) {
    return {data, depth.kc * channel_stride, kNR<A>, channel_stride};
  }
  const A* at(int64_t s, int64_t p) const { return data + s * slice + p * panel; }

  // Splits packed pixels where the points are split. `scratch` has split::scores_bytes.
  void split_into(char* scratch, const Matching& m, int64_t panels) {
    if constexpr (split::kAvailable<A>) {
      if (m.points.split == nullptr) return;
      split::Term* out = reinterpret_cast<split::Term*>(scratch);
      terms = split::terms_of(m.element);
      const bool good =
          split::split_pixels(data, m.points.depth, panels, terms, normalises(m.metric), out);
      split = good ? out : nullptr;
    }
  }
};

// dots [panels][rows_of(tiles)][NR] of tiles [first, first + tiles) of points with all panels.
template <class A>
void products(const Points& points, int64_t first, int64_t tiles, const Queries<A>& query,
              int64_t panels, A* dots) {
  const Depth& depth = points.depth;
  const int64_t all = tiles_of(points.count), next = rows_of(tiles) * kNR<A>;
  if constexpr (split::kAvailable<A>)
    if (query.split)
      return split::products(points, first, tiles, query.split, query.terms, panels, dots);
  if (depth.slices == 0) std::memset(dots, 0, sizeof(A) * panels * next);
  for (int64_t slice = 0; slice < depth.slices; ++slice) {
    const A* left = static_cast<const A*>(points.packed) + (slice * all + first) * depth.kc * kMR;
    take_panels(tiles, panels, [&](int64_t tile, int64_t panel, auto at_once) {
      constexpr int kPanels = decltype(at_once)::kPanels;
      Sums<kPanels, decltype(at_once)::kRows, A> sums = {};
      const int64_t each = depth.kc * kMR;
      micro_kernel<kMR, 1>(left + tile * each, each, query.at(slice, panel), query.panel, depth.kc,
                           sums, query.step);
      for (int p = 0; p < kPanels; ++p) {
        A* to = dots + (panel + p) * next + tile * kMR * kNR<A>;
        if (slice)
          add_rows(to, kMR * kNR<A>, sums[p]);
        else
          store_rows(to, sums[p]);
      }
    });
  }
}

// dots [panels][rows_of(1)][NR] of the first `kRows` of a tile of points with queries in place and,
// with `squares`, |q|^2. It takes a few channels at a time over all panels, so that the hardware
// prefetcher follows each channel. The sums have the bits of those of packed queries.
template <int kRows, class A>
void multiply_in_place(const Points& points, const Queries<A>& query, int64_t panels, bool squares,
                       A* square, A* dots) {
  constexpr int64_t kChannels = 8;  // divides KC
  const Depth& depth = points.depth;
  const int64_t next = rows_of(1) * kNR<A>;
  if (depth.slices == 0) clear(dots, panels * next);
  if (depth.slices == 0) clear(square, panels * kNR<A>);
  for (int64_t slice = 0; slice < depth.slices; ++slice) {
    const A* left = static_cast<const A*>(points.packed) + slice * depth.kc * kMR;
    // the sums of a further slice, kept apart in rows that are free
    A* sums = slice ? dots + kMR * kNR<A> : dots;
    for (int64_t d = 0; d < depth.kc; d += kChannels)
      for (int64_t panel = 0; panel < panels; ++panel) {
        const A* right = query.at(slice, panel) + d * query.step;
        A* at = sums + panel * next;
        Sums<1, kRows, A> rows = {};
        Vec<A> own[kNRVectors<A>] = {};
        if (d) std::memcpy(rows, at, sizeof rows);
        micro_kernel<kMR, 1>(left + d * kMR, 0, right, 0, kChannels, rows, query.step);
        store_rows(at, rows[0]);
        if (!squares) continue;
        A* of_panel = slice ? at + kMR * kNR<A> : square + panel * kNR<A>;
        if (d) std::memcpy(own, of_panel, sizeof own);
        for (int64_t i = 0; i < kChannels; ++i)
          for (int v = 0; v < kNRVectors<A>; ++v) {
            const Vec<A> x = load(right + i * query.step + v * kLanes);
            own[v] += x * x;
          }
        std::memcpy(of_panel, own, sizeof own);
      }
    for (int64_t panel = 0; slice && panel < panels; ++panel) {
      A* at = dots + panel * next;
      for (int64_t i = 0; i < kRows * kNR<A>; ++i) at[i] += at[kMR * kNR<A> + i];
      for (int64_t i = 0; squares && i < kNR<A>; ++i)
        square[panel * kNR<A> + i] += at[2 * kMR * kNR<A> + i];
    }
  }
}

// A block has a few cache lines of each channel, too short for the hardware prefetcher.
template <class T>
PK_INLINE void fetch_block(const Plane<T>& plane, int64_t channel, int64_t channels,
                           int64_t pixel) {
  for (int64_t c = channel; c < channel + channels; ++c)
    for (int64_t i = 0; i < kPixelBlock; i += 64 / static_cast<int64_t>(sizeof(T)))
      __builtin_prefetch(plane.data + c * plane.channel_stride + pixel + i, 0, 2);
}

// Packs query pixels [begin, begin + pixels) into `panels` panels, padded with 0.
template <class T, class A>
void pack_pixels(const Plane<T>& plane, const Depth& depth, int64_t begin, int64_t pixels,
                 int64_t panels, A* packed) {
  Offsets offsets;
  offsets.fill(plane, begin, static_cast<int>(pixels));
  for (int64_t channel = 0; channel < depth.padded(); channel += kLanes) {
    const int64_t left = depth.channels - channel;
    const int channels = left < 0 ? 0 : left < kLanes ? static_cast<int>(left) : kLanes;
    // KC is a multiple of the lanes
    A* slice = packed + (channel / depth.kc * panels * depth.kc + channel % depth.kc) * kNR<A>;
    if (plane.pixel_stride == 1) fetch_block(plane, channel, channels, begin + kPixelBlock);
    for (int64_t t = 0; t < panels * kNRVectors<A>; ++t) {
      Vec<A> rows[kLanes] = {};
      const int64_t pixel = t * kLanes;
      if (pixel < pixels && channels > 0)
        load_tile<TileRows::kChannels>(plane, offsets.start[t], begin + pixel,
                                       static_cast<int>(pixels - pixel), channel, channels, rows);
      A* out = slice + t / kNRVectors<A> * depth.kc * kNR<A> + t % kNRVectors<A> * kLanes;
#pragma GCC unroll 8
      for (int c = 0; c < kLanes; ++c) store(out + c * kNR<A>, rows[c]);
    }
  }
}

// |q|^2, not fused into the packing, so that the bits are the same for all strides.
template <class A>
void square_pixels(const Depth& depth, int64_t panels, const Queries<A>& query, A* square) {
  std::memset(square, 0, sizeof(A) * panels * kNR<A>);
  for (int64_t slice = 0; slice < depth.slices; ++slice)
    for (int64_t panel = 0; panel < panels; ++panel) {
      Vec<A> sums[kNRVectors<A>] = {};
      const A* from = query.at(slice, panel);
      for (int64_t d = 0; d < depth.kc; ++d, from += query.step)
        for (int v = 0; v < kNRVectors<A>; ++v) {
          const Vec<A> x = load(from + v * kLanes);
          sums[v] += x * x;
        }
      for (int v = 0; v < kNRVectors<A>; ++v) {
        A* out = square + panel * kNR<A> + v * kLanes;
        store(out, load(out) + sums[v]);
      }
    }
}

template <class T>
PK_INLINE const T* address_of(const Points& points, const Plane<T>& plane, int64_t p) {
  return plane.data + plane.offset(points.order[p]);
}

template <class T, class A>
void squares(const Points& points, void* square, int64_t begin, int64_t end) {
  const Plane<T> plane(points.features, points.image);
  for (int64_t first = begin; first < end; first += kMC) {
    const int64_t n = end - first < kMC ? end - first : kMC;
    double sums[kMC] = {};
    const T* address[kMC];
    for (int64_t i = 0; i < n; ++i) address[i] = address_of(points, plane, first + i);
    for (int64_t d = 0; d < points.depth.channels; ++d)
      for (int64_t i = 0; i < n; ++i) {
        const double x = scalar(address[i][d * plane.channel_stride]);
        sums[i] += x * x;
      }
    for (int64_t i = 0; i < n; ++i) static_cast<A*>(square)[first + i] = static_cast<A>(sums[i]);
  }
}

template <class T, class A>
void means(const Points& points, const int64_t* offsets, int64_t classes, void* out, int64_t begin,
           int64_t end) {
  const Plane<T> plane(points.features, points.image);
  const A* factor = static_cast<const A*>(points.factor);
  for (int64_t c = 0; c < classes; ++c) {
    A* row = static_cast<A*>(out) + c * points.depth.channels;
    for (int64_t d = begin; d < end; ++d) {
      double sum = 0;
      for (int64_t p = offsets[c]; p < offsets[c + 1]; ++p) {
        const double x = scalar(*(address_of(points, plane, p) + d * plane.channel_stride));
        sum += factor ? x * factor[p] : x;
      }
      const int64_t n = offsets[c + 1] - offsets[c];
      row[d] = static_cast<A>(sum / static_cast<double>(n ? n : 1));
    }
  }
}

// The points of a group, where their channels are adjacent: null past the last point.
template <class T, class A>
struct Rows {
  const T* address[kMC];
  A times[kMC];
  int64_t channels;

  // eight channels of point i, those past the last one 0
  PK_INLINE Vec<A> at(int64_t i, int64_t d) const {
    const int64_t left = channels - d;
    if (address[i] == nullptr || left <= 0) return Vec<A>{};
    return times[i] * (left < kLanes ? load_some(address[i] + d, left) : load(address[i] + d));
  }
};

// Whole vectors overlap what is stored next. Another thread may own what follows the last one.
template <class A>
PK_INLINE void store_mr(A* to, Vec<A> x, bool last) {
  if (last)
    std::memcpy(to, &x, sizeof(A) * kMR);
  else
    store(to, x);
}

template <class T, class A>
void pack_rows(const Points& points, const Rows<T, A>& rows, int64_t begin, int64_t n) {
  const Depth& depth = points.depth;
  const int64_t tiles = tiles_of(points.count);
  for (int64_t p = 0; p < n; p += kMR)
    for (int64_t d = 0; d < depth.padded(); d += kLanes) {
      Vec<A> some[kLanes] = {};
      for (int r = 0; r < kMR; ++r) some[r] = rows.at(p + r, d);
      transpose(some);
      const int64_t row = (d / depth.kc * tiles + (begin + p) / kMR) * depth.kc + d % depth.kc;
      A* to = static_cast<A*>(points.packed) + row * kMR;
      const bool last = d % depth.kc == depth.kc - kLanes;
      for (int c = 0; c < kLanes; ++c) store_mr(to + c * kMR, some[c], last && c == kLanes - 1);
    }
  if (!points.transposed) return;
  for (int64_t d = 0; d < depth.padded(); d += kMR) {
    A* to = static_cast<A*>(points.transposed) + (d / kMR * tiles * kMR + begin) * kMR;
    for (int64_t i = 0; i < n; ++i) store_mr(to + i * kMR, rows.at(i, d), i == n - 1);
  }
}

template <class T, class A>
void pack(const Points& points, int64_t group) {
  const Plane<T> plane(points.features, points.image);
  const Depth& depth = points.depth;
  const int64_t tiles = tiles_of(points.count), begin = group * kMC;
  const int64_t left = tiles * kMR - begin;
  const int64_t n = left < kMC ? left : kMC;
  const A* factor = static_cast<const A*>(points.factor);
  Rows<T, A> rows;
  rows.channels = depth.channels;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t p = begin + i;
    rows.address[i] = p < points.count ? address_of(points, plane, p) : nullptr;
    rows.times[i] = factor && p < points.count ? factor[p] : 1;
  }
  if (plane.channel_stride == 1) return pack_rows(points, rows, begin, n);
  for (int64_t d = 0; d < depth.padded(); ++d) {
    A* packed =
        static_cast<A*>(points.packed) + (d / depth.kc * tiles * depth.kc + d % depth.kc) * kMR;
    A* transposed = static_cast<A*>(points.transposed);
    if (transposed) transposed += (d / kMR * tiles * kMR) * kMR + d % kMR;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t p = begin + i;
      const bool there = rows.address[i] && d < depth.channels;
      const A x = there ? rows.times[i] * scalar(rows.address[i][d * plane.channel_stride]) : A(0);
      packed[p / kMR * depth.kc * kMR + p % kMR] = x;
      if (transposed) transposed[p * kMR] = x;
    }
  }
  // padding of the last MR channels
  if (points.transposed)
    for (int64_t d = depth.padded(); d % kMR; ++d)
      for (int64_t i = 0; i < n; ++i)
        static_cast<A*>(points.transposed)[(d / kMR * tiles * kMR + begin + i) * kMR + d % kMR] = 0;
}

}  // namespace pixelkernels::similarity::PK_ISA
