// The triplet kernels of one instruction set, PK_ISA; the build compiles this file once for each.
// Nothing from the standard library's templates may be used here: the linker could hand one set's
// copy to another.
//
// Channels come one after the other, and of a channel the pixels of each set: the sampled pixels of
// a plane are most of its cache lines, so the plane is as good as read in turn. Where channels lie
// side by side only some rows are gone through at a time, whose pixels then stay in the cache from
// channel to channel.
#include "common/tiles.h"
#include "triplet/triplet_cpu.h"

namespace pixelkernels {
namespace PK_ISA {
namespace {

// A channel's values at the pixels of some rows.
template <class A>
struct Values {
  A value[kMostSets][kRowsTogether];

  template <class T>
  void load(const TripletRows& s, const T* plane, int64_t first, int64_t count) {
    for (int set = 0; set < s.sets; ++set) {
      const int64_t* offset = s.offset[set] + first;
      for (int64_t k = 0; k < count; ++k) value[set][k] = scalar(plane[offset[k]]);
    }
  }
};

// body(first, count) for some rows at a time
template <class Body>
PK_INLINE void for_rows(const TripletRows& s, const Body& body) {
  for (int64_t first = 0; first < s.rows; first += kRowsTogether)
    body(first, s.rows - first < kRowsTogether ? s.rows - first : kRowsTogether);
}

// body(channel, first, count) in the order that suits the layout
template <class Body>
PK_INLINE void for_channels(const TripletRows& s, int64_t begin, int64_t end, const Body& body) {
  if (s.features.channel_stride == 1)
    for_rows(s, [&](int64_t first, int64_t count) {
      for (int64_t c = begin; c < end; ++c) body(c, first, count);
    });
  else
    for (int64_t c = begin; c < end; ++c)
      for_rows(s, [&](int64_t first, int64_t count) { body(c, first, count); });
}

template <class T, class A>
void distances(const TripletRows& s, int64_t begin, int64_t end, void* sums) {
  const Plane<T> plane(s.features, s.image);
  const A eps = static_cast<A>(s.eps);
  Values<A> values;
  for_channels(s, begin, end, [&](int64_t channel, int64_t first, int64_t count) {
    values.load(s, plane.data + channel * plane.channel_stride, first, count);
    for (int p = 0; p < s.pairs; ++p) {
      const A* one = values.value[s.pair[p].one];
      const A* other = values.value[s.pair[p].other];
      A* sum = static_cast<A*>(sums) + p * s.rows + first;
      for (int64_t k = 0; k < count; ++k) {
        const A difference = one[k] - other[k] + eps;
        sum[k] += difference * difference;
      }
    }
  });
}

template <class A>
PK_INLINE void clear(A* p, int64_t count) {
  std::memset(p, 0, sizeof(A) * count);
}

// One channel's gradient: rows [first, first + count) added to `plane`.
template <class A>
PK_INLINE void add(const TripletGradient& g, const Values<A>& values, int64_t first, int64_t count,
                   A* plane) {
  const TripletRows& s = g.rows;
  const A eps = static_cast<A>(s.eps);
  A gradient[kMostSets][kRowsTogether];
  for (int set = 0; set < s.sets; ++set) clear(gradient[set], count);
  for (int p = 0; p < s.pairs; ++p) {
    const SetPair pair = s.pair[p];
    const A* factor = static_cast<const A*>(g.factor) + p * s.rows + first;
    for (int64_t k = 0; k < count; ++k) {
      const A part = factor[k] * (values.value[pair.one][k] - values.value[pair.other][k] + eps);
      gradient[pair.one][k] += part;
      gradient[pair.other][k] -= part;
    }
  }
  for (int set = 0; set < s.sets; ++set) {
    const int64_t* target = g.target[set] + first;
    for (int64_t k = 0; k < count; ++k) plane[target[k]] += gradient[set][k];
  }
}

template <class T>
void clear_pixels(const TripletGradient& g, int64_t begin, int64_t end) {
  const Plane<T> out(g.gradient, g.rows.image);
  for (int64_t i = begin; i < end; ++i)
    std::memset(out.data + out.offset(i), 0, sizeof(T) * g.channels);
}

// Sums as wide as the features are made in the gradient itself.
template <class A>
void gradient_in_place(const TripletGradient& g, int64_t begin, int64_t end, void*) {
  const TripletRows& s = g.rows;
  const Plane<A> plane(s.features, s.image), out(g.gradient, s.image);
  Values<A> values;
  const auto rows = [&](int64_t channel, int64_t first, int64_t count) {
    values.load(s, plane.data + channel * plane.channel_stride, first, count);
    add(g, values, first, count, out.data + channel * out.channel_stride);
  };
  if (out.channel_stride == 1) return for_channels(s, begin, end, rows);
  for (int64_t channel = begin; channel < end; ++channel) {
    // a plane that has just been cleared is still in the cache
    A* to = out.data + channel * out.channel_stride;
    if (out.pixel_stride == 1 && out.row_length == s.pixels)
      clear(to, s.pixels);
    else
      for (int64_t i = 0; i < s.pixels; ++i) to[out.offset(i)] = 0;
    for_rows(s, [&](int64_t first, int64_t count) { rows(channel, first, count); });
  }
}

template <class T, class A>
void gradient_by_plane(const TripletGradient& g, int64_t begin, int64_t end, void* scratch) {
  const TripletRows& s = g.rows;
  const Plane<T> plane(s.features, s.image), out(g.gradient, s.image);
  A* sums = static_cast<A*>(scratch);
  Values<A> values;
  for (int64_t channel = begin; channel < end; ++channel) {
    clear(sums, s.pixels);
    for_rows(s, [&](int64_t first, int64_t count) {
      values.load(s, plane.data + channel * plane.channel_stride, first, count);
      add(g, values, first, count, sums);
    });
    T* to = out.data + channel * out.channel_stride;
    for (int64_t i = 0; i < s.pixels; ++i) store_scalar(to + out.offset(i), sums[i]);
  }
}

template <class A>
constexpr TripletKernels as_wide() {
  return {distances<A, A>, clear_pixels<A>, gradient_in_place<A>, false};
}
template <class T, class A>
constexpr TripletKernels wider() {
  return {distances<T, A>, clear_pixels<T>, gradient_by_plane<T, A>, true};
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
