// The transform of labels: where they change, and the steps from each pixel to another label along
// an axis.
#pragma once

#include "distance/simd/line.h"

namespace pixelkernels::distance::PK_ISA {

template <class L>
PK_INLINE void changes_of_line(const L* own, const L* before, const L* above, uint8_t nothing,
                               int64_t width, uint8_t* to) {
  for (int64_t x = 0; x < width; ++x) {
    const uint8_t deep = own[x] != before[x] ? kAlongDepth : 0;
    const uint8_t down = own[x] != above[x] ? kAlongRows : 0;
    to[x] = deep | down | (own[x] == 0 ? nothing : 0);
  }
  for (int64_t x = 1; x < width; ++x) to[x] |= own[x] != own[x - 1] ? kAlongColumns : 0;
}

// The changes in one of the lines along the columns.
inline void find_changes(const Labels& s, int64_t line) {
  const int64_t width = s.width, slice = line / s.height;
  const int64_t apart_rows = line % s.height == 0 ? 0 : width;  // or a line is compared with itself
  const int64_t apart_depths = slice % s.depth == 0 ? 0 : s.height * width;
  with_label(s.type, [&](auto like) {
    const auto* own = static_cast<const decltype(like)*>(s.labels) + line * width;
    changes_of_line(own, own - apart_depths, own - apart_rows,
                    s.background ? uint8_t(0) : kBackground, width, s.changes + line * width);
  });
}

// The squares of up to kColumnBlock lines that are `apart` in memory are at most those of the steps
// to another label, and 0 where the distance is. If kFirst, they are these. `forward` is memory for
// a value of each pixel, or the squares themselves.
template <class A, bool kFirst>
PK_INLINE void bound_lines(const uint8_t* changes, uint8_t along, bool border, float spacing,
                           int64_t length, int64_t apart, int64_t n, uint32_t* forward,
                           int64_t apart_forward, A* squares) {
  constexpr int kVectors = kColumnBlock / kLanes;
  const U32 start = border ? U32{} : U32{} + kNowhere, bit = U32{} + along;
  U32 steps[kVectors];
  for (int v = 0; v < kVectors; ++v) steps[v] = start;
  for (int64_t r = 0; r < length; ++r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t first = v * kLanes, some = n - first < kLanes ? n - first : kLanes;
      const U32 here = load_bytes(changes + r * apart + first, some);
      steps[v] = (here & bit) != 0 ? U32{} + 1 : steps[v] + 1;
      std::memcpy(forward + r * apart_forward + first, &steps[v], some * sizeof(uint32_t));
    }
  }
  for (int v = 0; v < kVectors; ++v) steps[v] = start + 1;
  for (int64_t r = length - 1; r >= 0; --r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t first = v * kLanes, some = n - first < kLanes ? n - first : kLanes;
      const U32 here = load_bytes(changes + r * apart + first, some);
      U32 least = {};
      std::memcpy(&least, forward + r * apart_forward + first, some * sizeof(uint32_t));
      least = steps[v] < least ? steps[v] : least;
      steps[v] = (here & bit) != 0 ? U32{} + 1 : steps[v] + 1;
      A* at = squares + r * apart + first;
      Vec<A> bound = square(least, spacing, A());
      if constexpr (!kFirst) {
        Vec<A> best = {};
        std::memcpy(&best, at, some * sizeof(A));
        bound = best < bound ? best : bound;
      }
      bound = (here & kBackground) != 0 ? Vec<A>{} : bound;
      std::memcpy(at, &bound, some * sizeof(A));
    }
  }
}

// The largest of each lane and those before it.
PK_INLINE I32 largest_so_far(I32 v) {
  I32 w = __builtin_shufflevector(v, v, 0, 0, 1, 2, 3, 4, 5, 6);
  v = w > v ? w : v;
  w = __builtin_shufflevector(v, v, 0, 1, 0, 1, 2, 3, 4, 5);
  v = w > v ? w : v;
  w = __builtin_shufflevector(v, v, 0, 1, 2, 3, 0, 1, 2, 3);
  return w > v ? w : v;
}

PK_INLINE I32 reversed(I32 v) { return __builtin_shufflevector(v, v, 7, 6, 5, 4, 3, 2, 1, 0); }

// Those of kLanes pixels that have the bit, or of fewer at the end of a line.
struct SomeChanges {
  U32 bits;
  bool any;

  PK_INLINE SomeChanges(const uint8_t* changes, int64_t n, uint8_t along) {
    uint64_t bytes = 0;
    n >= kLanes ? std::memcpy(&bytes, changes, kLanes) : std::memcpy(&bytes, changes, n);
    bits = load_bytes(reinterpret_cast<const uint8_t*>(&bytes), kLanes);
    any = (bytes & along * 0x0101010101010101u) != 0;
  }
};

// The same as bound_lines for one line of adjacent pixels. `last` is memory for it; what is behind
// the line's end in the squares is overwritten.
template <class A>
PK_INLINE void bound_line(const uint8_t* changes, uint8_t along, bool border, float spacing,
                          int64_t length, int32_t* last, A* squares) {
  const I32 lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  const int32_t none = kNowhere;
  I32 change = I32{} + (border ? 0 : -none);
  for (int64_t x = 0; x < length; x += kLanes) {
    const SomeChanges here(changes + x, length - x, along);
    const I32 position = lanes + static_cast<int32_t>(x);
    if (here.any) change = largest_so_far((here.bits & along) != 0 ? position : change);
    std::memcpy(last + x, &change, sizeof change);
    change = __builtin_shufflevector(change, change, 7, 7, 7, 7, 7, 7, 7, 7);
  }
  // the next one after a pixel, as a negative number, so that it is the largest
  change = I32{} - static_cast<int32_t>(border ? length : 2 * int64_t{none} - 1);
  for (int64_t x = (length - 1) / kLanes * kLanes; x >= 0; x -= kLanes) {
    const SomeChanges after(changes + x + 1, length - x - 1, along);
    const I32 here = lanes + static_cast<int32_t>(x);
    if (after.any)
      change = reversed(largest_so_far(reversed((after.bits & along) != 0 ? -here - 1 : change)));
    I32 before;
    std::memcpy(&before, last + x, sizeof before);
    const U32 left = (U32)(here - before) + 1, right = (U32)(-change - here);
    const Vec<A> bound = square(left < right ? left : right, spacing, A());
    Vec<A> best = load(squares + x);
    best = best < bound ? best : bound;
    const SomeChanges own(changes + x, length - x, kBackground);
    store(squares + x, (own.bits & kBackground) != 0 ? Vec<A>{} : best);
    change = __builtin_shufflevector(change, change, 0, 0, 0, 0, 0, 0, 0, 0);
  }
}

}  // namespace pixelkernels::distance::PK_ISA
