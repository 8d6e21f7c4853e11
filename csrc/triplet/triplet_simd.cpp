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

template <class T>
bool is_flat(const Plane<T>& plane, int64_t pixels) {
  return plane.pixel_stride == 1 && plane.row_length == pixels;
}

// A channel's values at the pixels of some rows.
template <class A>
struct Values {
  A value[kMostSets][kRowsTogether];

  template <class T>
  void load(const TripletRows& s, const Plane<T>& plane, int64_t channel, int64_t first,
            int64_t count) {
    const T* from = plane.data + channel * plane.channel_stride;
    for (int set = 0; set < s.sets; ++set) {
      const int64_t* pixel = s.pixel[set] + first;
      if (is_flat(plane, s.pixels))
        for (int64_t k = 0; k < count; ++k) value[set][k] = scalar(from[pixel[k]]);
      else
        for (int64_t k = 0; k < count; ++k) value[set][k] = scalar(from[plane.offset(pixel[k])]);
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
    values.load(s, plane, channel, first, count);
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

// One channel's gradient: rows [first, first + count) added to `plane`, whose pixel i lies at
// at(i).
template <class A, class At>
PK_INLINE void add(const TripletGradient& g, const Values<A>& values, int64_t first, int64_t count,
                   A* plane, const At& at) {
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
  for (int set = 0; set < s.sets; ++set)
    for (int64_t k = 0; k < count; ++k) plane[at(s.pixel[set][first + k])] += gradient[set][k];
}

// Features that are not as wide as the sums have a plane of their own for these.
template <class T, class A>
struct Direct {
  static constexpr bool kIs = false;
};
template <class A>
struct Direct<A, A> {
  static constexpr bool kIs = true;
};

template <class A>
void clear_channels(const Plane<A>& out, int64_t pixels, int64_t begin, int64_t end) {
  if (out.channel_stride == 1) {
    for (int64_t i = 0; i < pixels; ++i) clear(out.data + out.offset(i) + begin, end - begin);
    return;
  }
  for (int64_t channel = begin; channel < end; ++channel) {
    A* to = out.data + channel * out.channel_stride;
    if (is_flat(out, pixels))
      clear(to, pixels);
    else
      for (int64_t i = 0; i < pixels; ++i) to[out.offset(i)] = 0;
  }
}

template <class A>
void gradient_in_place(const TripletGradient& g, int64_t begin, int64_t end) {
  const TripletRows& s = g.rows;
  const Plane<A> plane(s.features, s.image), out(g.gradient, s.image);
  const bool together = s.features.channel_stride == 1;
  if (together) clear_channels(out, s.pixels, begin, end);
  Values<A> values;
  const auto rows = [&](int64_t channel, int64_t first, int64_t count) {
    A* to = out.data + channel * out.channel_stride;
    values.load(s, plane, channel, first, count);
    if (is_flat(out, s.pixels))
      add(g, values, first, count, to, [](int64_t i) { return i; });
    else
      add(g, values, first, count, to, [&](int64_t i) { return out.offset(i); });
  };
  if (together) return for_channels(s, begin, end, rows);
  // a plane that has just been cleared is still in the cache
  for (int64_t channel = begin; channel < end; ++channel) {
    clear_channels(out, s.pixels, channel, channel + 1);
    for_channels(s, channel, channel + 1, rows);
  }
}

template <class T, class A>
void gradient_by_plane(const TripletGradient& g, int64_t begin, int64_t end, A* sums) {
  const TripletRows& s = g.rows;
  const Plane<T> plane(s.features, s.image), out(g.gradient, s.image);
  Values<A> values;
  for (int64_t channel = begin; channel < end; ++channel) {
    clear(sums, s.pixels);
    for_rows(s, [&](int64_t first, int64_t count) {
      values.load(s, plane, channel, first, count);
      add(g, values, first, count, sums, [](int64_t i) { return i; });
    });
    T* to = out.data + channel * out.channel_stride;
    for (int64_t i = 0; i < s.pixels; ++i) store_scalar(to + out.offset(i), sums[i]);
  }
}

template <class T, class A>
void gradient(const TripletGradient& g, int64_t begin, int64_t end, void* scratch) {
  if constexpr (Direct<T, A>::kIs)
    gradient_in_place<A>(g, begin, end);
  else
    gradient_by_plane<T, A>(g, begin, end, static_cast<A*>(scratch));
}

template <class T, class A>
int64_t gradient_scratch(const TripletGradient& g) {
  return Direct<T, A>::kIs ? 0 : g.rows.pixels * static_cast<int64_t>(sizeof(A));
}

template <class T>
constexpr TripletKernels kernels_of() {
  using A = Accumulate<T>;
  return {distances<T, A>, gradient<T, A>, gradient_scratch<T, A>};
}

}  // namespace

const TripletKernels& triplet_kernels(Element element) {
  static constexpr TripletKernels half = kernels_of<Half>(), bfloat16 = kernels_of<BFloat16>(),
                                  single = kernels_of<float>(), twice = kernels_of<double>();
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
