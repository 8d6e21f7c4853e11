// The nearest True pixels. Between the passes the coordinates are those within the axes so far.
#pragma once

#include "distance/simd/transform.h"

namespace pixelkernels::distance::PK_ISA {

// The True pixel before the first and after the last: so far that no distance to them is least.
constexpr int32_t kBefore = -(1 << 30), kAfter = 3 << 29;

PK_INLINE I32 load_words(const int32_t* from, int64_t n) {
  I32 words = {};
  std::memcpy(&words, from, n * sizeof *from);
  return words;
}
PK_INLINE I32 load_words(const int64_t* from, int64_t n) {
  I64 words = {};
  std::memcpy(&words, from, n * sizeof *from);
  return __builtin_convertvector(words, I32);
}
PK_INLINE void store_words(I32 words, int64_t n, int32_t* to) {
  std::memcpy(to, &words, n * sizeof *to);
}
PK_INLINE void store_words(I32 words, int64_t n, int64_t* to) {
  const I64 wide = __builtin_convertvector(words, I64);
  std::memcpy(to, &wide, n * sizeof *to);
}

// W is the type of words.
template <class W>
PK_INLINE void nearest_of_some_lines(const Nearest& s, int64_t mask, int64_t begin, int64_t n) {
  constexpr int kVectors = kColumnBlock / kLanes;
  const int64_t length = s.length(), lines = s.lines();
  const int64_t first = mask * length * lines + begin;
  const uint8_t* from = s.mask + first;
  W* out = static_cast<W*>(s.words) + first;
  I32 site[kVectors];
  for (int v = 0; v < kVectors; ++v) site[v] = I32{} + kBefore;
  for (int64_t r = 0; r < length; ++r) {
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      const U32 is_true = load_bytes(from + r * lines + v * kLanes, some);
      site[v] = is_true != 0 ? I32{} + static_cast<int32_t>(r) : site[v];
      store_words(site[v], some, out + r * lines + v * kLanes);
    }
  }
  for (int v = 0; v < kVectors; ++v) site[v] = I32{} + kAfter;
  for (int64_t r = length - 1; r >= 0; --r) {
    const I32 here = I32{} + static_cast<int32_t>(r);
    for (int v = 0; v < kVectors && v * kLanes < n; ++v) {
      const int64_t some = n - v * kLanes < kLanes ? n - v * kLanes : kLanes;
      W* at = out + r * lines + v * kLanes;
      const I32 before = load_words(at, some);
      site[v] = before == here ? here : site[v];
      const I32 nearest = here - before <= site[v] - here ? before : site[v];
      store_words(nearest < 0 ? I32{} - 1 : nearest, some, at);
    }
  }
}

template <class W>
void nearest_of_first_axis(const Nearest& s, int64_t mask, int64_t begin, int64_t end) {
  // a constant trip count lets the compiler keep the vectors in registers
  end - begin == kColumnBlock ? nearest_of_some_lines<W>(s, mask, begin, kColumnBlock)
                              : nearest_of_some_lines<W>(s, mask, begin, end - begin);
}

// g[q] = the squared distances to the pixels of the coordinates `sites` from the position `here`,
// or kNone for the coordinate -1; added to g if `adds`.
PK_INLINE void add_squares(const int32_t* sites, int64_t here, int64_t length, const uint32_t*,
                           bool adds, uint32_t* g) {
  for (int64_t q = 0; q < length; ++q) {
    const uint32_t steps = static_cast<uint32_t>(sites[q]) - static_cast<uint32_t>(here);
    const uint32_t square = sites[q] < 0 ? kFarSquare : steps * steps + (adds ? g[q] : 0);
    g[q] = square;
  }
}
PK_INLINE void add_squares(const int32_t* sites, int64_t here, int64_t length,
                           const double* squares, bool adds, double* g) {
  for (int64_t q = 0; q < length; ++q)
    g[q] = sites[q] < 0 ? Squares<double>::kNone : squares[sites[q] - here] + (adds ? g[q] : 0);
}

PK_INLINE void write(const double* squares, int64_t width, bool, void* out) {
  for (int64_t i = 0; i < width; ++i)
    static_cast<float*>(out)[i] = static_cast<float>(__builtin_sqrt(squares[i]));
}

template <class W>
constexpr int kHalfWord = 4 * sizeof(W);  // bits

template <class A, class W>
void nearest_of_columns(const Nearest& s, int64_t slice, int64_t begin, int64_t end,
                        void* scratch) {
  const int64_t pitch = padded(s.height), n = end - begin;
  A *g = static_cast<A*>(scratch), *best = g + pitch;
  int32_t* sites = reinterpret_cast<int32_t*>(best + pitch);
  int32_t *depths = sites + pitch, *nearest = depths + pitch;
  W* words = reinterpret_cast<W*>(nearest + pitch);
  Line<A> line{g, static_cast<const A*>(s.row_squares), sites, s.height};
  W* tile = static_cast<W*>(s.words) + slice * s.height * s.width + begin;
  read_tile(tile, s.width, s.height, n, words);
  depths[-1] = -1;  // where there is none
  for (int64_t c = 0; c < n; ++c) {
    W* own = words + c * pitch;
    for (int64_t q = 0; q < s.height; ++q) depths[q] = static_cast<int32_t>(own[q]);
    add_squares(depths, slice % s.depth, s.height, static_cast<const A*>(s.first_squares), false,
                g);
    line.solve(best, nearest);
    for (int64_t x = 0; x < s.height; ++x)
      own[x] = static_cast<W>(depths[nearest[x]]) * (W(1) << kHalfWord<W>) | nearest[x];
  }
  write_tile(words, s.width, s.height, n, tile);
}

// The coordinates in words, on the first axis and of volumes on that of the rows.
template <class W>
PK_INLINE void unpack(const W* words, int64_t n, bool volume, int32_t* first, int32_t* second) {
  for (int64_t q = 0; q < n; ++q)
    first[q] = static_cast<int32_t>(volume ? words[q] >> kHalfWord<W> : words[q]);
  for (int64_t q = 0; volume && q < n; ++q)
    second[q] = words[q] < 0 ? -1 : static_cast<int32_t>(words[q] & ((W(1) << kHalfWord<W>)-1));
}

// body(r, words of the row, nearest columns, squares, memory) for the rows of a slice. The word
// where there is none is at -1. The memory is for two lines of coordinates.
template <class A, class W, class Body>
PK_INLINE void for_rows(const Nearest& s, int64_t slice, int64_t begin, int64_t end, void* scratch,
                        const Body& body) {
  const int64_t pitch = padded(s.width);
  A *g = static_cast<A*>(scratch), *best = g + pitch;
  W* words = reinterpret_cast<W*>(best + pitch) + kAnchorStep;
  int32_t* sites = reinterpret_cast<int32_t*>(words + pitch);
  int32_t *first = sites + pitch, *second = first + pitch, *nearest = second + pitch;
  Line<A> line{g, static_cast<const A*>(s.column_squares), sites, s.width};
  words[-1] = -1;
  for (int64_t r = begin; r < end; ++r) {
    std::memcpy(words, static_cast<const W*>(s.words) + (slice * s.height + r) * s.width,
                sizeof(W) * s.width);
    unpack(words, s.width, s.volume, first, second);
    add_squares(first, s.volume ? slice % s.depth : r, s.width,
                static_cast<const A*>(s.first_squares), false, g);
    if (s.volume) add_squares(second, r, s.width, static_cast<const A*>(s.row_squares), true, g);
    line.solve(best, nearest);
    body(r, words, nearest, best, first);
  }
}

// T has 4 bytes.
template <class T>
PK_INLINE void store_row(const T* row, int64_t width, bool past_caches, T* out) {
  store_all(reinterpret_cast<float*>(out), reinterpret_cast<const float*>(row), width, past_caches);
}

template <class A, class W>
void nearest_of_rows(const Nearest& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  const int64_t pitch = padded(s.width), plane = s.depth * s.height * s.width;
  const int axes = s.volume ? 3 : 2;
  for_rows<A, W>(s, slice, begin, end, scratch,
                 [&](int64_t r, const W* words, const int32_t* nearest, A* best, int32_t* memory) {
                   const int64_t row = (slice * s.height + r) * s.width;
                   int32_t* out = s.indices + slice / s.depth * (axes - 1) * plane + row;
                   auto* found =
                       static_cast<W*>(scratch);  // the line's squares are not needed any more
                   for (int64_t x = 0; x < s.width; ++x) found[x] = words[nearest[x]];
                   unpack(found, s.width, s.volume, memory, memory + pitch);
                   store_row(memory, s.width, s.past_caches, out);
                   if (s.volume) store_row(memory + pitch, s.width, s.past_caches, out + plane);
                   store_row(nearest, s.width, s.past_caches, out + (axes - 1) * plane);
                   write(best, s.width, s.squared, static_cast<float*>(s.distance) + row);
                 });
  fence();
}

template <class A>
PK_INLINE bool is_within(A square, bool squared, double limit) {
  if (squared) return square <= limit;
  const double root = __builtin_sqrt(static_cast<double>(square));
  return static_cast<float>(root) <= static_cast<float>(limit);
}

// L is the type of the labels.
template <class A, class W, class L>
PK_INLINE void some_labels_of_rows(const Expansion& s, int64_t slice, int64_t begin, int64_t end,
                                   void* scratch) {
  const L* labels =
      static_cast<const L*>(s.labels) + slice / s.depth * s.depth * s.height * s.width;
  for_rows<A, W>(s, slice, begin, end, scratch,
                 [&](int64_t r, const W* words, const int32_t* nearest, A* best, int32_t*) {
                   L* out = static_cast<L*>(s.expanded) + (slice * s.height + r) * s.width;
                   for (int64_t x = 0; x < s.width; ++x) {
                     out[x] = 0;
                     const int32_t q = nearest[x];
                     if (q < 0 || !is_within(best[x], s.squared, s.limit)) continue;
                     int32_t first, second = 0;
                     unpack(words + q, 1, s.volume, &first, &second);
                     const int64_t line = s.volume ? first * s.height + second : first;
                     out[x] = labels[line * s.width + q];
                   }
                 });
}

template <class A, class W>
void labels_of_rows(const Expansion& s, int64_t slice, int64_t begin, int64_t end, void* scratch) {
  with_label(s.type, [&](auto like) {
    some_labels_of_rows<A, W, decltype(like)>(s, slice, begin, end, scratch);
  });
}

}  // namespace pixelkernels::distance::PK_ISA
