// The triplet kernels of one instruction set.
//
// Planar features are processed channel by channel: first the pixels are gathered, in listed order,
// because a regular order makes the hardware prefetch all lines between them; then follows the
// arithmetic of the rows. Interleaved features are processed row by row. Either way the gradient is
// written page by page, each cache line once, because the sums of a page stay in the cache.
#include "triplet/kernels.h"

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

  Pixels(const Rows& s, const Plane<T>& plane, int64_t row) {
    for (int set = 0; set < s.sets; ++set) {
      const int64_t pixel = s.listed[set * s.rows + row];
      there = there && pixel >= 0;
      at[set] = plane.data + plane.offset(pixel < 0 ? 0 : pixel);
    }
  }
};

template <class T>
PK_INLINE void fetch(const Rows& s, const Plane<T>& plane, int64_t row) {
  const Pixels<T> pixels(s, plane, row);
  for (int set = 0; set < s.sets; ++set)
    for (int64_t c = 0; c < s.channels; c += 64 / sizeof(T)) __builtin_prefetch(pixels.at[set] + c);
}

// sum[pair] += the squared differences in one vector of channels, or in `count` < kLanes of them
template <int kSets, class T, class A>
PK_INLINE void add_squares(const Pixels<T>& pixels, int64_t c, int64_t count, Vec<A> eps,
                           Vec<A> sum[kMaxPairs]) {
  constexpr const SetPair* kPairs = kSets == 3 ? kThreeSets : kFourSets;
  Vec<A> value[kSets];
#pragma GCC unroll 4
  for (int set = 0; set < kSets; ++set) value[set] = load_some(pixels.at[set] + c, count);
#pragma GCC unroll 4
  for (int p = 0; p < 2 * (kSets - 2); ++p) {
    const Vec<A> difference = value[kPairs[p].one] - value[kPairs[p].other] + eps;
    sum[p] += difference * difference;
  }
}

template <int kSets, class T, class A>
void distances_of_rows(const Rows& s, int64_t begin, int64_t end, A* sums) {
  const Plane<T> plane(s.features, s.image);
  const Vec<A> eps = splat(static_cast<A>(s.eps));
  const int64_t whole = s.channels / kLanes * kLanes, rest = s.channels - whole;
  for (int64_t r = begin; r < end; ++r) {
    if (r + kPrefetchRows < s.rows) fetch(s, plane, r + kPrefetchRows);
    const Pixels<T> pixels(s, plane, r);
    Vec<A> sum[kMaxPairs] = {};
    if (pixels.there) {
      for (int64_t c = 0; c < whole; c += kLanes)
        add_squares<kSets, T, A>(pixels, c, kLanes, eps, sum);
      if (rest) add_squares<kSets, T, A>(pixels, whole, rest, load_some(&eps[0], rest), sum);
    }
#pragma GCC unroll 4
    for (int p = 0; p < 2 * (kSets - 2); ++p) sums[p * s.rows + r] = sum_lanes(sum[p]);
  }
}

template <class T, class A>
void distances_by_pixel(const Rows& s, int64_t begin, int64_t end, void* sums) {
  if (s.sets == 3)
    distances_of_rows<3, T>(s, begin, end, static_cast<A*>(sums));
  else
    distances_of_rows<4, T>(s, begin, end, static_cast<A*>(sums));
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
  const Pixels<T> pixels(s, plane, row);
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
  return {distances<T, A>, distances_by_pixel<T, A>, gradient_by_plane<T, A>,
          gradient_by_pixel<T, A>};
}

}  // namespace

constexpr PerElement<Kernels> kKernels{
    {kernels_of<Half>(), kernels_of<BFloat16>(), kernels_of<float>(), kernels_of<double>()}};

}  // namespace pixelkernels::triplet::PK_ISA
