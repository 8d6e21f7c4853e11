// The triplet kernels of one instruction set, PK_ISA; the build compiles this file once for each.
// Nothing from the standard library's templates may be used here: the linker could hand one set's
// copy to another.
//
// Where the channels lie in planes they come one after the other: the sampled pixels lie in most of
// a plane's cache lines, so it is read page by page, whatever row a pixel is for; the rows'
// arithmetic follows from what was gathered. Where they lie side by side it is row after row.
#include "common/tiles.h"
#include "triplet/triplet_cpu.h"

namespace pixelkernels {
namespace PK_ISA {
namespace {

// Rows ahead whose pixels are fetched.
constexpr int64_t kAhead = 4;

template <class T, class A>
PK_INLINE void gather(const TripletRows& s, const T* plane, A* values) {
  for (int64_t e = 0; e < s.sets * s.rows; ++e) values[s.slot[e]] = scalar(plane[s.offset[e]]);
}

template <class T, class A>
void distances(const TripletRows& s, int64_t begin, int64_t end, void* sums, void* scratch) {
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

// The channels of one row's pixels in an image.
template <class T>
struct Pixels {
  T* at[kMostSets];

  Pixels(const TripletRows& s, const Plane<T>& plane, const int64_t* offset, int64_t row) {
    for (int set = 0; set < s.sets; ++set) at[set] = plane.data + offset[set * s.rows + row];
  }
};

template <class T>
PK_INLINE void fetch_ahead(const TripletRows& s, const Plane<T>& plane, int64_t row, int64_t begin,
                           int64_t end) {
  if (row + kAhead >= s.rows) return;
  const Pixels<T> next(s, plane, s.offset, row + kAhead);
  for (int set = 0; set < s.sets; ++set)
    for (int64_t c = begin; c < end; c += 64 / sizeof(T)) __builtin_prefetch(next.at[set] + c);
}

// One vector of channels, the last one filled up with zeros.
template <class T>
PK_INLINE Vec<Accumulate<T>> load_some(const T* p, int64_t count) {
  if (count >= kLanes) return load(p);
  T padded[kLanes] = {};
  std::memcpy(padded, p, sizeof(T) * count);
  return load(padded);
}
template <class A>
PK_INLINE void store_some(A* p, Vec<A> values, int64_t count) {
  if (count >= kLanes) return store(p, values);
  std::memcpy(p, &values, sizeof(A) * count);
}

template <class T, class A>
void distances_by_pixel(const TripletRows& s, int64_t begin, int64_t end, void* sums) {
  const Plane<T> plane(s.features, s.image);
  const Vec<A> eps = splat(static_cast<A>(s.eps));
  for (int64_t r = begin; r < end; ++r) {
    fetch_ahead(s, plane, r, 0, s.channels);
    const Pixels<T> pixels(s, plane, s.offset, r);
    Vec<A> sum[kMostPairs] = {};
    for (int64_t c = 0; c < s.channels; c += kLanes) {
      const int64_t count = s.channels - c;
      const Vec<A> added = count >= kLanes ? eps : load_some(&eps[0], count);
      Vec<A> value[kMostSets];
      for (int set = 0; set < s.sets; ++set) value[set] = load_some(pixels.at[set] + c, count);
      for (int p = 0; p < s.pairs; ++p) {
        const Vec<A> difference = value[s.pair[p].one] - value[s.pair[p].other] + added;
        sum[p] += difference * difference;
      }
    }
    for (int p = 0; p < s.pairs; ++p) static_cast<A*>(sums)[p * s.rows + r] = sum_lanes(sum[p]);
  }
}

// One channel's part of the gradient, from the channel `from` to the sums `to`.
template <class T, class A>
PK_INLINE void add(const TripletGradient& g, const T* from, A* to, A* values) {
  const TripletRows& s = g.rows;
  const A eps = static_cast<A>(s.eps);
  A* gradient = values + s.sets * s.rows;
  gather(s, from, values);
  clear(gradient, s.sets * s.rows);
  for (int p = 0; p < s.pairs; ++p) {
    const int64_t one = s.pair[p].one * s.rows, other = s.pair[p].other * s.rows;
    const A* factor = static_cast<const A*>(g.factor) + p * s.rows;
    for (int64_t r = 0; r < s.rows; ++r) {
      const A part = factor[r] * (values[one + r] - values[other + r] + eps);
      gradient[one + r] += part;
      gradient[other + r] -= part;
    }
  }
  for (int64_t e = 0; e < s.sets * s.rows; ++e) to[g.target[e]] += gradient[s.slot[e]];
}

template <class T>
void clear_pixels(const TripletGradient& g, int64_t begin, int64_t end) {
  const Plane<T> out(g.gradient, g.rows.image);
  for (int64_t i = begin; i < end; ++i) clear(out.data + out.offset(i), g.rows.channels);
}

template <class A>
void gradient_by_pixel(const TripletGradient& g, int64_t begin, int64_t end) {
  const TripletRows& s = g.rows;
  const Plane<A> plane(s.features, s.image), out(g.gradient, s.image);
  const Vec<A> eps = splat(static_cast<A>(s.eps));
  for (int64_t r = 0; r < s.rows; ++r) {
    fetch_ahead(s, plane, r, begin, end);
    const Pixels<A> from(s, plane, s.offset, r), to(s, out, g.target, r);
    for (int64_t c = begin; c < end; c += kLanes) {
      const int64_t count = end - c;
      Vec<A> value[kMostSets], gradient[kMostSets] = {};
      for (int set = 0; set < s.sets; ++set) value[set] = load_some(from.at[set] + c, count);
      for (int p = 0; p < s.pairs; ++p) {
        const int one = s.pair[p].one, other = s.pair[p].other;
        const A factor = static_cast<const A*>(g.factor)[p * s.rows + r];
        const Vec<A> part = factor * (value[one] - value[other] + eps);
        gradient[one] += part;
        gradient[other] -= part;
      }
      // one after the other: a row may have a pixel twice
      for (int set = 0; set < s.sets; ++set) {
        A* sum = to.at[set] + c;
        store_some(sum, load_some(sum, count) + gradient[set], count);
      }
    }
  }
}

// Sums as wide as the features are made in the gradient itself.
template <class A>
void gradient_in_place(const TripletGradient& g, int64_t begin, int64_t end, void* scratch) {
  const TripletRows& s = g.rows;
  const Plane<A> plane(s.features, s.image), out(g.gradient, s.image);
  for (int64_t channel = begin; channel < end; ++channel) {
    A* to = out.data + channel * out.channel_stride;
    if (out.pixel_stride == 1 && out.row_length == s.pixels)
      clear(to, s.pixels);
    else
      for (int64_t i = 0; i < s.pixels; ++i) to[out.offset(i)] = 0;
    add(g, plane.data + channel * plane.channel_stride, to, static_cast<A*>(scratch));
  }
}

template <class T, class A>
void gradient_by_plane(const TripletGradient& g, int64_t begin, int64_t end, void* scratch) {
  const TripletRows& s = g.rows;
  const Plane<T> plane(s.features, s.image), out(g.gradient, s.image);
  A* values = static_cast<A*>(scratch);
  A* sums = values + 2 * s.sets * s.rows;
  for (int64_t channel = begin; channel < end; ++channel) {
    clear(sums, s.pixels);
    add(g, plane.data + channel * plane.channel_stride, sums, values);
    T* to = out.data + channel * out.channel_stride;
    for (int64_t i = 0; i < s.pixels; ++i) store_scalar(to + out.offset(i), sums[i]);
  }
}

template <class A>
constexpr TripletKernels as_wide() {
  return {distances<A, A>,      distances_by_pixel<A, A>, clear_pixels<A>,
          gradient_by_pixel<A>, gradient_in_place<A>,     false};
}
template <class T, class A>
constexpr TripletKernels wider() {
  return {distances<T, A>, distances_by_pixel<T, A>, nullptr,
          nullptr,         gradient_by_plane<T, A>,  true};
}

}  // namespace

const TripletKernels& triplet_kernels(Element element) {
  static constexpr TripletKernels half = wider<Half, float>(), bfloat16 = wider<BFloat16, float>(),
                                  single = as_wide<float>(), twice = as_wide<double>();
  switch (element) {
    case Element::kHalf:
      return half;
    case Element::kBFloat16:
      return bfloat16;
    case Element::kFloat:
      return single;
    default:
      return twice;
  }
}

}  // namespace PK_ISA
}  // namespace pixelkernels
