// The triplet kernels of one instruction set.
//
// Planar features are processed channel by channel: first the pixels are gathered, in listed order,
// because a regular order makes the hardware prefetch all lines between them; then follows the
// arithmetic of the rows. Interleaved features are processed row by row. Either way the gradient is
// written page by page, each cache line once, because the sums of a page stay in the cache.
#include "triplet/kernels.h"

#include <cmath>

#include "common/tiles.h"

namespace pixelkernels::triplet::PK_ISA {
namespace {

using namespace pixelkernels::PK_ISA;

// The distance of prefetching, in rows.
constexpr int64_t kPrefetchRows = 4;

template <class T, class A>
PK_INLINE void gather(const Rows& s, const T* plane, A* values) {
  for (int64_t i = 0; i < s.sets * s.rows; ++i) values[i] = scalar(plane[s.offset[i]]);
}

template <class T, class A>
void distances(const Rows& s, int64_t begin, int64_t end, void* sums, void* scratch) {
  const Plane<T> plane(s.features, s.image);
  const A eps = static_cast<A>(s.eps);
  A* values = static_cast<A*>(scratch);
  for (int64_t channel = begin; channel < end; ++channel) {
    gather(s, plane.data + channel * plane.channel_stride, values);
    for (int p = 0; p < s.pairs; ++p) {
      const A* one = values + s.pair[p].one * s.rows;
      const A* other = values + s.pair[p].other * s.rows;
      A* sum = static_cast<A*>(sums) + p * s.rows;
      for (int64_t r = 0; r < s.rows; ++r) {
        const A difference = one[r] - other[r] + eps;
        sum[r] += difference * difference;
      }
    }
  }
}

// The channels of a row's pixels, if the row is present.
template <class T>
struct Pixels {
  T* at[kMaxSets];
  bool there = true;

  PK_INLINE Pixels(const Rows& s, const Plane<T>& plane, int64_t row, int sets) {
#pragma GCC unroll 4
    for (int set = 0; set < sets; ++set) {
      const int64_t pixel = s.listed[set][row];
      const bool exists = s.within(pixel);
      there = there && exists;
      at[set] = plane.data + plane.offset(exists ? pixel : 0);
    }
  }
};

template <class T>
PK_INLINE void fetch(const Rows& s, const Plane<T>& plane, int64_t row) {
  const Pixels<T> pixels(s, plane, row, s.sets);
  for (int set = 0; set < s.sets; ++set)
    for (int64_t c = 0; c < s.channels; c += 64 / sizeof(T)) __builtin_prefetch(pixels.at[set] + c);
}

// sum[pair] += the squared differences of value[set]
template <int kSets, class V>
PK_INLINE void add_squares(const V* value, V eps, V* sum) {
  constexpr const SetPair* kPairs = kSets == 3 ? kThreeSets : kFourSets;
#pragma GCC unroll 4
  for (int p = 0; p < 2 * (kSets - 2); ++p) {
    const V difference = value[kPairs[p].one] - value[kPairs[p].other] + eps;
    sum[p] += difference * difference;
  }
}

// A cache line of values: read in one load where registers are as long.
template <class A>
struct LineOf {
  typedef A type __attribute__((vector_size(64)));
};

// The sums over `lines` cache lines, lanes added up to Vec<A>.
template <int kSets, class A>
PK_INLINE void squares_of_lines(A* const* at, int64_t lines, A eps, Vec<A>* sum) {
  using Line = typename LineOf<A>::type;
  constexpr int kValues = 64 / sizeof(A), kPairs = 2 * (kSets - 2);
  Line lane_sums[kPairs] = {}, value[kSets];
  for (int64_t c = 0; c < lines * kValues; c += kValues) {
#pragma GCC unroll 4
    for (int set = 0; set < kSets; ++set) std::memcpy(&value[set], at[set] + c, sizeof(Line));
    add_squares<kSets>(value, eps - Line{}, lane_sums);
  }
#pragma GCC unroll 4
  for (int p = 0; p < kPairs; ++p) {
    Vec<A> parts[kValues / kLanes];
    std::memcpy(parts, &lane_sums[p], sizeof(Line));
    for (const Vec<A>& part : parts) sum[p] += part;
  }
}

template <class A>
PK_INLINE Vec<A> root(Vec<A> v) {
  A x[kLanes];
  store(x, v);
  for (int i = 0; i < kLanes; ++i) x[i] = std::sqrt(x[i]);
  return load(x);
}

// Writes the outputs of up to eight rows; returns how many of the rows are present.
template <class A>
PK_INLINE int64_t write_rows(const Hinges& h, int64_t first, int64_t count, const A present[kLanes],
                             Vec<A>* squares) {
  const Rows& s = h.rows;
  const Vec<A> there = load(present);
  for (int p = 0; p < s.pairs; ++p) {
    squares[p] = there == 0 ? Vec<A>{} : h.squared ? squares[p] : root<A>(squares[p]);
    store_some(static_cast<A*>(h.distances) + p * s.rows + first, squares[p], count);
  }
  for (int p = 0; p < s.pairs; p += 2) {
    const Vec<A> over = squares[p] - squares[p + 1] + static_cast<A>(h.margin);
    // NaN propagates
    const Vec<A> hinge = over < 0 ? Vec<A>{} : over;
    store_some(static_cast<A*>(h.hinges) + p / 2 * s.rows + first, there == 0 ? Vec<A>{} : hinge,
               count);
  }
  return static_cast<int64_t>(sum_lanes(there));
}

template <class A>
int64_t finish(const Hinges& h, int64_t begin, int64_t end, const void* sums, int64_t parts) {
  const Rows& s = h.rows;
  int64_t present = 0;
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    Vec<A> squares[kMaxPairs];
    for (int p = 0; p < s.pairs; ++p) {
      Vec<double> sum = {};
      for (int64_t part = 0; part < parts; ++part) {
        const A* from = static_cast<const A*>(sums) + (part * s.pairs + p) * s.rows + first;
        sum += __builtin_convertvector(load_some(from, count), Vec<double>);
      }
      squares[p] = __builtin_convertvector(sum, Vec<A>);
    }
    A there[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) there[i] = s.present(first + i);
    present += write_rows(h, first, count, there, squares);
  }
  return present;
}

// Eight rows at a time, because adding up the lanes of eight sums takes little more than of one,
// and the fewer instructions a row takes, the more rows the core can load ahead.
template <int kSets, class T, class A>
int64_t hinges_of_rows(const Hinges& h, int64_t begin, int64_t end) {
  constexpr int kPairs = 2 * (kSets - 2);
  const Rows& s = h.rows;
  const Plane<T> plane(s.features, s.image);
  const A eps = static_cast<A>(s.eps);
  int64_t present = 0;
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t count = end - first < kLanes ? end - first : kLanes;
    Vec<A> by_row[kPairs][kLanes] = {};
    A there[kLanes] = {};
    for (int64_t i = 0; i < count; ++i) {
      const Pixels<T> pixels(s, plane, first + i, kSets);
      if (!pixels.there) continue;
      there[i] = 1;
      Vec<A> sum[kPairs] = {};
      int64_t c = 0;
      if constexpr (sizeof(T) == sizeof(A)) {
        constexpr int64_t kValues = 64 / sizeof(A);
        const int64_t lines = s.channels / kValues;
        squares_of_lines<kSets, A>(pixels.at, lines, eps, sum);
        c = lines * kValues;
      }
      for (; c < s.channels; c += kLanes) {
        const int64_t left = s.channels - c;
        Vec<A> value[kSets];
#pragma GCC unroll 4
        for (int set = 0; set < kSets; ++set) value[set] = load_some(pixels.at[set] + c, left);
        add_squares<kSets>(value, left < kLanes ? first_lanes(splat(eps), left) : splat(eps), sum);
      }
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) by_row[p][i] = sum[p];
    }
    Vec<A> squares[kPairs];
#pragma GCC unroll 4
    for (int p = 0; p < kPairs; ++p) {
      transpose(by_row[p]);
      squares[p] = sum_rows(by_row[p]);
    }
    present += write_rows(h, first, count, there, squares);
  }
  return present;
}

template <class T, class A>
int64_t hinges_by_pixel(const Hinges& h, int64_t begin, int64_t end) {
  return h.rows.sets == 3 ? hinges_of_rows<3, T, A>(h, begin, end)
                          : hinges_of_rows<4, T, A>(h, begin, end);
}

// One channel of the gradient, per slot, from the channel's features.
template <class T, class A>
PK_INLINE void slopes(const Gradient& g, const T* from, A* values, A* slope) {
  const Rows& s = g.rows;
  const A eps = static_cast<A>(s.eps);
  gather(s, from, values);
  clear(slope, s.sets * s.rows);
  for (int p = 0; p < s.pairs; ++p) {
    const int64_t one = s.pair[p].one * s.rows, other = s.pair[p].other * s.rows;
    const A* factor = static_cast<const A*>(g.factor) + p * s.rows;
    for (int64_t r = 0; r < s.rows; ++r) {
      const A part = factor[r] * (values[one + r] - values[other + r] + eps);
      slope[one + r] += part;
      slope[other + r] -= part;
    }
  }
}

// sums += the gradient at the pixel of one set of a row
template <class T, class A>
PK_INLINE void add_slope(const Gradient& g, const Plane<T>& plane, int64_t set, int64_t row,
                         A* sums) {
  const Rows& s = g.rows;
  const Vec<A> eps = splat(static_cast<A>(s.eps));
  const Pixels<T> pixels(s, plane, row, s.sets);
  for (int64_t c = 0; c < s.channels; c += kLanes) {
    const int64_t count = s.channels - c;
    Vec<A> value[kMaxSets], slope = {};
    for (int i = 0; i < s.sets; ++i) value[i] = load_some(pixels.at[i] + c, count);
    for (int p = 0; p < s.pairs; ++p) {
      const int one = s.pair[p].one, other = s.pair[p].other;
      const A factor = static_cast<const A*>(g.factor)[p * s.rows + row];
      const Vec<A> part = factor * (value[one] - value[other] + eps);
      slope += one == set ? part : Vec<A>{};
      slope -= other == set ? part : Vec<A>{};
    }
    store_some(sums + c, load_some(sums + c, count) + slope, count);
  }
}

template <class T, class A>
void gradient_by_pixel(const Gradient& g, int64_t begin, int64_t end, void* scratch) {
  const Rows& s = g.rows;
  const Plane<T> plane(s.features, s.image), out(g.gradient, s.image);
  const bool straight = out.pixel_stride == s.channels && out.row_length == s.pixels;
  A* sums = static_cast<A*>(scratch);
  for (int64_t page = begin; page < end; ++page) {
    const int64_t first = page * s.page_pixels, left = s.pixels - first;
    const int64_t pixels = left < s.page_pixels ? left : s.page_pixels;
    clear(sums, pixels * s.channels);
    for (int64_t e = s.page[page]; e < s.page[page + 1]; ++e) {
      if (e + kPrefetchRows < s.page[end]) fetch(s, plane, s.slot[e + kPrefetchRows] % s.rows);
      add_slope(g, plane, s.slot[e] / s.rows, s.slot[e] % s.rows,
                sums + (s.pixel[e] - first) * s.channels);
    }
    if (straight)
      store_all(out.data + first * s.channels, sums, pixels * s.channels, g.past_caches);
    else
      for (int64_t i = 0; i < pixels; ++i)
        store_all(out.data + out.offset(first + i), sums + i * s.channels, s.channels, false);
  }
  fence();
}

template <class T, class A>
void gradient_by_plane(const Gradient& g, int64_t begin, int64_t end, void* scratch) {
  const Rows& s = g.rows;
  const Plane<T> plane(s.features, s.image), out(g.gradient, s.image);
  const bool straight = out.pixel_stride == 1 && out.row_length == s.pixels;
  A* values = static_cast<A*>(scratch);
  A *slope = values + s.sets * s.rows, *sums = slope + s.sets * s.rows;
  for (int64_t channel = begin; channel < end; ++channel) {
    const T* from = plane.data + channel * plane.channel_stride;
    slopes(g, from, values, slope);
    // prefetch the next channel while this one is written
    const T* next = channel + 1 < end ? from + plane.channel_stride : from;
    T* to = out.data + channel * out.channel_stride;
    const int64_t* entry = s.page;
    for (int64_t first = 0; first < s.pixels; first += s.page_pixels, ++entry) {
      const int64_t left = s.pixels - first, pixels = left < s.page_pixels ? left : s.page_pixels;
      clear(sums, pixels);
      for (int64_t e = entry[0]; e < entry[1]; ++e) {
        __builtin_prefetch(next + s.offset[s.slot[e]], 0, 2);
        sums[s.pixel[e] - first] += slope[s.slot[e]];
      }
      if (straight)
        store_all(to + first, sums, pixels, g.past_caches);
      else
        for (int64_t i = 0; i < pixels; ++i) store_scalar(to + out.offset(first + i), sums[i]);
    }
  }
  fence();
}

template <class T>
constexpr Kernels kernels_of() {
  using A = Accumulate<T>;
  return {distances<T, A>, finish<A>, hinges_by_pixel<T, A>, gradient_by_plane<T, A>,
          gradient_by_pixel<T, A>};
}

}  // namespace

constexpr PerElement<Kernels> kKernels{
    {kernels_of<Half>(), kernels_of<BFloat16>(), kernels_of<float>(), kernels_of<double>()}};

}  // namespace pixelkernels::triplet::PK_ISA
