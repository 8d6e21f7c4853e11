// The matrix product that everything here is made of, and the packing of its sides.
#pragma once

#include "common/tiles.h"
#include "similarity/amx/product.h"

namespace pixelkernels::similarity::PK_ISA {

using namespace pixelkernels::PK_ISA;

// A tile of the result is 6 rows of kPanelVectors vectors: 12 of the 16 registers that AVX2 has,
// and enough sums at a time to hide the latency of a multiplication. AVX-512, whose 32 registers
// hold a row each, takes two tiles.
#if defined(__AVX512F__)
constexpr int64_t kTilesAtOnce = 2;
#else
constexpr int64_t kTilesAtOnce = 1;
#endif
template <class A>
constexpr int kPanelVectors = sizeof(A) == 4 ? 2 : 1;
template <class A>
constexpr int kPanel = kPanelVectors<A> * kLanes;

template <class A>
constexpr int64_t panels_of(int64_t pixels) {
  return (pixels + kPanel<A> - 1) / kPanel<A>;
}

template <int kTiles>
struct TilesAtOnce {
  static constexpr int kRows = kTiles * kPointTile;
};

// body(tile, TilesAtOnce) for all of tiles [begin, end), as many at once as registers hold.
template <class Body>
PK_INLINE void take_tiles(int64_t begin, int64_t end, const Body& body) {
  for (; begin + kTilesAtOnce <= end; begin += kTilesAtOnce)
    body(begin, TilesAtOnce<kTilesAtOnce>{});
  for (; begin < end; ++begin) body(begin, TilesAtOnce<1>{});
}

// rows[r] += sum_t left(t, r) right_t, with right_t the panel at right + t step. The next tile's
// rows begin `next` further.
template <int kStep, int kRow, int kRows, class A>
PK_INLINE void multiply(const A* left, int64_t next, const A* right, int64_t depth,
                        Vec<A> (&rows)[kRows][kPanelVectors<A>], int64_t step = kPanel<A>) {
#if defined(__AVX512F__)
  // a register holds a row of a panel
  typedef A Row __attribute__((vector_size(kPanel<A> * sizeof(A))));
  Row sums[kRows];
  std::memcpy(sums, rows, sizeof sums);
  for (int64_t t = 0; t < depth; ++t) {
    Row panel;
    std::memcpy(&panel, right + t * step, sizeof panel);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r)
      sums[r] += left[r / kPointTile * next + t * kStep + r % kPointTile * kRow] * panel;
  }
  std::memcpy(rows, sums, sizeof sums);
#else
  static_assert(kRows == kPointTile, "more rows than registers");
  for (int64_t t = 0; t < depth; ++t) {
    Vec<A> panel[kPanelVectors<A>];
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors<A>; ++v) panel[v] = load(right + t * step + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < kPointTile; ++r) {
      const Vec<A> factor = splat(left[t * kStep + r * kRow]);
#pragma GCC unroll 2
      for (int v = 0; v < kPanelVectors<A>; ++v) rows[r][v] += factor * panel[v];
    }
  }
#endif
}

// Sums that grow long are made of short ones, which keeps their rounding small.
template <int kRows, class A>
PK_INLINE void add_rows(A* p, int64_t next, const Vec<A> (&rows)[kRows][kPanelVectors<A>]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors<A>; ++v) {
      A* at = p + r / kPointTile * next + r % kPointTile * kPanel<A> + v * kLanes;
      store(at, load(at) + rows[r][v]);
    }
}

template <int kRows, class A>
PK_INLINE void store_rows(A* p, const Vec<A> (&rows)[kRows][kPanelVectors<A>]) {
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kPanelVectors<A>; ++v)
      store(p + (r * kPanelVectors<A> + v) * kLanes, rows[r][v]);
}

// Query pixels: packed, or where they lie if nothing has to be filled up.
template <class A>
struct Queries {
  const A* data;
  int64_t slab, panel, step;         // from one to the next; `step`: in depth
  const amx::Term* split = nullptr;  // or packed ones as amx::products wants them
  int64_t terms = 0;

  static Queries packed(const A* data, const Depth& depth, int64_t panels) {
    return {data, panels * depth.slab * kPanel<A>, depth.slab * kPanel<A>, kPanel<A>};
  }
  static Queries in_place(const A* data, const Depth& depth, int64_t channel_stride) {
    return {data, depth.slab * channel_stride, kPanel<A>, channel_stride};
  }
  const A* at(int64_t s, int64_t p) const { return data + s * slab + p * panel; }

  // Packed ones are split too where the points are; `room` has amx::scores_bytes.
  void split_into(char* room, const Matching& m, int64_t panels) {
#if defined(PK_AMX) && defined(__AVX512F__)
    if constexpr (sizeof(A) == sizeof(float)) {
      if (m.points.split == nullptr) return;
      amx::Term* out = reinterpret_cast<amx::Term*>(room);
      terms = amx::terms_of(m.element);
      split = amx::split_pixels(data, m.points.depth, panels, terms, out) ? out : nullptr;
    }
#endif
  }
};

// dots [panels][rows_of(tiles)][kPanel] of `tiles` tiles of points, from `first` on, with `panels`
// panels of queries.
template <class A>
void products(const Points& points, int64_t first, int64_t tiles, const Queries<A>& query,
              int64_t panels, A* dots) {
  const Depth& depth = points.depth;
  const int64_t all = tiles_of(points.count), next = rows_of(tiles) * kPanel<A>;
#if defined(PK_AMX) && defined(__AVX512F__)
  if constexpr (sizeof(A) == sizeof(float))
    if (query.split)
      return amx::products(points, first, tiles, query.split, query.terms, panels, dots);
#endif
  if (depth.slabs == 0) std::memset(dots, 0, sizeof(A) * panels * next);
  for (int64_t slab = 0; slab < depth.slabs; ++slab) {
    const A* left =
        static_cast<const A*>(points.packed) + (slab * all + first) * depth.slab * kPointTile;
    for (int64_t panel = 0; panel < panels; ++panel) {
      const A* right = query.at(slab, panel);
      A* out = dots + panel * next;
      take_tiles(0, tiles, [&](int64_t tile, auto at_once) {
        Vec<A> rows[decltype(at_once)::kRows][kPanelVectors<A>] = {};
        const int64_t each = depth.slab * kPointTile;
        multiply<kPointTile, 1>(left + tile * each, each, right, depth.slab, rows, query.step);
        A* to = out + tile * kPointTile * kPanel<A>;
        if (slab)
          add_rows(to, kPointTile * kPanel<A>, rows);
        else
          store_rows(to, rows);
      });
    }
  }
}

// dots [panels][rows_of(1)][kPanel] and, with `squares`, |q|^2, of a single tile of points with
// queries in place. Some channels at a time, so that each is read as far as the hardware sees what
// is coming. The sums are those of packed queries, bit by bit.
template <class A>
void multiply_in_place(const Points& points, const Queries<A>& query, int64_t panels, bool squares,
                       A* square, A* dots) {
  constexpr int64_t kChannels = 8;  // of one slab
  const Depth& depth = points.depth;
  const int64_t next = rows_of(1) * kPanel<A>;
  if (depth.slabs == 0) clear(dots, panels * next);
  if (depth.slabs == 0) clear(square, panels * kPanel<A>);
  for (int64_t slab = 0; slab < depth.slabs; ++slab) {
    const A* left = static_cast<const A*>(points.packed) + slab * depth.slab * kPointTile;
    // of a further slab on their own at first, in the rows that are left
    A* sums = slab ? dots + kPointTile * kPanel<A> : dots;
    for (int64_t d = 0; d < depth.slab; d += kChannels)
      for (int64_t panel = 0; panel < panels; ++panel) {
        const A* right = query.at(slab, panel) + d * query.step;
        A* at = sums + panel * next;
        Vec<A> rows[kPointTile][kPanelVectors<A>] = {}, own[kPanelVectors<A>] = {};
        if (d) std::memcpy(rows, at, sizeof rows);
        multiply<kPointTile, 1>(left + d * kPointTile, 0, right, kChannels, rows, query.step);
        store_rows(at, rows);
        if (!squares) continue;
        A* of_panel = slab ? at + kPointTile * kPanel<A> : square + panel * kPanel<A>;
        if (d) std::memcpy(own, of_panel, sizeof own);
        for (int64_t i = 0; i < kChannels; ++i)
          for (int v = 0; v < kPanelVectors<A>; ++v) {
            const Vec<A> x = load(right + i * query.step + v * kLanes);
            own[v] += x * x;
          }
        std::memcpy(of_panel, own, sizeof own);
      }
    for (int64_t panel = 0; slab && panel < panels; ++panel) {
      A* at = dots + panel * next;
      for (int64_t i = 0; i < kPointTile * kPanel<A>; ++i) at[i] += at[kPointTile * kPanel<A> + i];
      for (int64_t i = 0; squares && i < kPanel<A>; ++i)
        square[panel * kPanel<A> + i] += at[2 * kPointTile * kPanel<A> + i];
    }
  }
}

// Of each channel a block has a few cache lines only, which no hardware sees coming.
template <class T>
PK_INLINE void fetch_block(const Plane<T>& plane, int64_t channel, int64_t channels,
                           int64_t pixel) {
  for (int64_t c = channel; c < channel + channels; ++c)
    for (int64_t i = 0; i < kPixelBlock; i += 64 / static_cast<int64_t>(sizeof(T)))
      __builtin_prefetch(plane.data + c * plane.channel_stride + pixel + i, 0, 2);
}

// Query pixels [begin, begin + pixels) into `panels` panels, filled up with 0.
template <class T, class A>
void pack_pixels(const Plane<T>& plane, const Depth& depth, int64_t begin, int64_t pixels,
                 int64_t panels, A* packed) {
  Offsets offsets;
  offsets.fill(plane, begin, static_cast<int>(pixels));
  for (int64_t channel = 0; channel < depth.padded(); channel += kLanes) {
    const int64_t left = depth.channels - channel;
    const int channels = left < 0 ? 0 : left < kLanes ? static_cast<int>(left) : kLanes;
    // a slab is a multiple of the lanes
    A* slab =
        packed + (channel / depth.slab * panels * depth.slab + channel % depth.slab) * kPanel<A>;
    if (plane.pixel_stride == 1) fetch_block(plane, channel, channels, begin + kPixelBlock);
    for (int64_t t = 0; t < panels * kPanelVectors<A>; ++t) {
      Vec<A> rows[kLanes] = {};
      const int64_t pixel = t * kLanes;
      if (pixel < pixels && channels > 0)
        load_tile<TileRows::kChannels>(plane, offsets.start[t], begin + pixel,
                                       static_cast<int>(pixels - pixel), channel, channels, rows);
      A* out = slab + t / kPanelVectors<A> * depth.slab * kPanel<A> + t % kPanelVectors<A> * kLanes;
#pragma GCC unroll 8
      for (int c = 0; c < kLanes; ++c) store(out + c * kPanel<A>, rows[c]);
    }
  }
}

// |q|^2: apart from the packing, so that it is rounded alike for all strides.
template <class A>
void square_pixels(const Depth& depth, int64_t panels, const Queries<A>& query, A* square) {
  std::memset(square, 0, sizeof(A) * panels * kPanel<A>);
  for (int64_t slab = 0; slab < depth.slabs; ++slab)
    for (int64_t panel = 0; panel < panels; ++panel) {
      Vec<A> sums[kPanelVectors<A>] = {};
      const A* from = query.at(slab, panel);
      for (int64_t d = 0; d < depth.slab; ++d, from += query.step)
        for (int v = 0; v < kPanelVectors<A>; ++v) {
          const Vec<A> x = load(from + v * kLanes);
          sums[v] += x * x;
        }
      for (int v = 0; v < kPanelVectors<A>; ++v) {
        A* out = square + panel * kPanel<A> + v * kLanes;
        store(out, load(out) + sums[v]);
      }
    }
}

template <class T>
PK_INLINE const T* place_of(const Points& points, const Plane<T>& plane, int64_t p) {
  return plane.data + plane.offset(points.order[p]);
}

template <class T, class A>
void squares(const Points& points, void* square, int64_t begin, int64_t end) {
  const Plane<T> plane(points.features, points.image);
  for (int64_t first = begin; first < end; first += kGroupPoints) {
    const int64_t n = end - first < kGroupPoints ? end - first : kGroupPoints;
    double sums[kGroupPoints] = {};
    const T* place[kGroupPoints];
    for (int64_t i = 0; i < n; ++i) place[i] = place_of(points, plane, first + i);
    for (int64_t d = 0; d < points.depth.channels; ++d)
      for (int64_t i = 0; i < n; ++i) {
        const double x = scalar(place[i][d * plane.channel_stride]);
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
        const double x = scalar(*(place_of(points, plane, p) + d * plane.channel_stride));
        sum += factor ? x * factor[p] : x;
      }
      const int64_t n = offsets[c + 1] - offsets[c];
      row[d] = static_cast<A>(sum / static_cast<double>(n ? n : 1));
    }
  }
}

template <class T, class A>
void pack(const Points& points, int64_t group) {
  const Plane<T> plane(points.features, points.image);
  const Depth& depth = points.depth;
  const int64_t tiles = tiles_of(points.count), begin = group * kGroupPoints;
  const int64_t left = tiles * kPointTile - begin;
  const int64_t n = left < kGroupPoints ? left : kGroupPoints;
  const A* factor = static_cast<const A*>(points.factor);
  const T* place[kGroupPoints];
  A times[kGroupPoints];
  for (int64_t i = 0; i < n; ++i) {
    const int64_t p = begin + i;
    place[i] = p < points.count ? place_of(points, plane, p) : nullptr;
    times[i] = factor && p < points.count ? factor[p] : 1;
  }
  for (int64_t d = 0; d < depth.padded(); ++d) {
    A* packed = static_cast<A*>(points.packed) +
                (d / depth.slab * tiles * depth.slab + d % depth.slab) * kPointTile;
    A* across = static_cast<A*>(points.across);
    if (across) across += (d / kPointTile * tiles * kPointTile) * kPointTile + d % kPointTile;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t p = begin + i;
      const bool there = place[i] && d < depth.channels;
      const A x = there ? times[i] * scalar(place[i][d * plane.channel_stride]) : A(0);
      packed[p / kPointTile * depth.slab * kPointTile + p % kPointTile] = x;
      if (across) across[p * kPointTile] = x;
    }
  }
  // the rest of the last six channels
  if (points.across)
    for (int64_t d = depth.padded(); d % kPointTile; ++d)
      for (int64_t i = 0; i < n; ++i)
        static_cast<A*>(
            points.across)[(d / kPointTile * tiles * kPointTile + begin + i) * kPointTile +
                           d % kPointTile] = 0;
}

}  // namespace pixelkernels::similarity::PK_ISA
