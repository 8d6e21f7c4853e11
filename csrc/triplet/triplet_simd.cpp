// The triplet kernels of one instruction set, PK_ISA; the build compiles this file once for each.
// Nothing from the standard library's templates may be used here: the linker could hand one set's
// copy to another.
//
// Channels come one after the other. The sampled pixels of a channel's plane lie in most of its
// cache lines, so it is read page by page, whatever row a pixel is for; the rows' arithmetic
// follows from what was gathered.
#include "common/tiles.h"
#include "triplet/triplet_cpu.h"

namespace pixelkernels {
namespace PK_ISA {
namespace {

// Some rows, and their entries.
struct Some {
  int64_t first, count, entry, entries;
  Some(const TripletRows& s, int64_t first)
      : first(first),
        count(s.rows - first < s.together ? s.rows - first : s.together),
        entry(first * s.sets),
        entries(count * s.sets) {}
};

// body(channel, some) in the order that suits the layout
template <class Body>
PK_INLINE void for_channels(const TripletRows& s, int64_t begin, int64_t end, const Body& body) {
  for (int64_t first = 0; first < s.rows; first += s.together)
    for (int64_t c = begin; c < end; ++c) body(c, Some(s, first));
}

template <class T, class A>
PK_INLINE void gather(const TripletRows& s, const Some& some, const T* plane, A* values) {
  const int32_t* slot = s.slot + some.entry;
  const int64_t* offset = s.offset + some.entry;
  for (int64_t e = 0; e < some.entries; ++e) values[slot[e]] = scalar(plane[offset[e]]);
}

template <class T, class A>
void distances(const TripletRows& s, int64_t begin, int64_t end, void* sums, void* scratch) {
  const Plane<T> plane(s.features, s.image);
  const A eps = static_cast<A>(s.eps);
  A* values = static_cast<A*>(scratch);
  for_channels(s, begin, end, [&](int64_t channel, const Some& some) {
    gather(s, some, plane.data + channel * plane.channel_stride, values);
    for (int p = 0; p < s.pairs; ++p) {
      const A* one = values + s.pair[p].one * some.count;
      const A* other = values + s.pair[p].other * some.count;
      A* sum = static_cast<A*>(sums) + p * s.rows + some.first;
      for (int64_t k = 0; k < some.count; ++k) {
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

// Some rows' part of one channel's gradient, from the channel `from` to the sums `to`.
template <class T, class A>
PK_INLINE void add(const TripletGradient& g, const Some& some, const T* from, A* to, A* values) {
  const TripletRows& s = g.rows;
  const A eps = static_cast<A>(s.eps);
  A* gradient = values + s.sets * s.together;
  gather(s, some, from, values);
  clear(gradient, some.entries);
  for (int p = 0; p < s.pairs; ++p) {
    const int64_t one = s.pair[p].one * some.count, other = s.pair[p].other * some.count;
    const A* factor = static_cast<const A*>(g.factor) + p * s.rows + some.first;
    for (int64_t k = 0; k < some.count; ++k) {
      const A part = factor[k] * (values[one + k] - values[other + k] + eps);
      gradient[one + k] += part;
      gradient[other + k] -= part;
    }
  }
  const int32_t* slot = s.slot + some.entry;
  const int64_t* target = g.target + some.entry;
  for (int64_t e = 0; e < some.entries; ++e) to[target[e]] += gradient[slot[e]];
}

template <class T>
void clear_pixels(const TripletGradient& g, int64_t begin, int64_t end) {
  const Plane<T> out(g.gradient, g.rows.image);
  for (int64_t i = begin; i < end; ++i)
    std::memset(out.data + out.offset(i), 0, sizeof(T) * g.channels);
}

// Sums as wide as the features are made in the gradient itself.
template <class A>
void gradient_in_place(const TripletGradient& g, int64_t begin, int64_t end, void* scratch) {
  const TripletRows& s = g.rows;
  const Plane<A> plane(s.features, s.image), out(g.gradient, s.image);
  if (out.channel_stride != 1)
    for (int64_t channel = begin; channel < end; ++channel) {
      A* to = out.data + channel * out.channel_stride;
      if (out.pixel_stride == 1 && out.row_length == s.pixels)
        clear(to, s.pixels);
      else
        for (int64_t i = 0; i < s.pixels; ++i) to[out.offset(i)] = 0;
    }
  for_channels(s, begin, end, [&](int64_t channel, const Some& some) {
    add(g, some, plane.data + channel * plane.channel_stride,
        out.data + channel * out.channel_stride, static_cast<A*>(scratch));
  });
}

template <class T, class A>
void gradient_by_plane(const TripletGradient& g, int64_t begin, int64_t end, void* scratch) {
  const TripletRows& s = g.rows;
  const Plane<T> plane(s.features, s.image), out(g.gradient, s.image);
  A* values = static_cast<A*>(scratch);
  A* sums = values + 2 * s.sets * s.together;
  for (int64_t channel = begin; channel < end; ++channel) {
    clear(sums, s.pixels);
    for_channels(s, channel, channel + 1, [&](int64_t, const Some& some) {
      add(g, some, plane.data + channel * plane.channel_stride, sums, values);
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
