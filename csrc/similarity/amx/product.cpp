// The products on AMX, compiled for machines with AMX alone. As in the kernels, templates of the
// standard library may not be used here.
#include <immintrin.h>

#include <cstring>

#include "similarity/split.h"

namespace pixelkernels::similarity::split {
namespace {

typedef float Row __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));

// The largest value of a vector must lie between the least of its side and kMost. Then no sum of
// products overflows, and the products that AMX flushes to 0, those below 2^-126, are below the
// rounding.
constexpr uint32_t bits_of_power(uint32_t exponent) { return (127 + exponent) << 23; }
constexpr uint32_t kLeastOne = bits_of_power(-30), kLeastOther = bits_of_power(-70);
constexpr uint32_t kMost = bits_of_power(58);

// A vector with a NaN gives NaN in every product, whatever its other values are. The remainder of
// an infinite value is NaN, so an infinite vector does, too, where that is right.
constexpr uint32_t kInfinite = 0x7f800000u;

inline bool fits(uint32_t largest, uint32_t least, bool infinite_is_nan = false) {
  return largest == 0 || (largest >= least && largest < kMost) || largest > kInfinite ||
         (infinite_is_nan && largest == kInfinite);
}

inline Bits magnitude(Row x) { return (Bits)x & 0x7fffffffu; }
inline Bits larger(Bits a, Bits b) { return a > b ? a : b; }

// The next term of x, in the upper halves; x keeps the remainder.
inline Bits take_term(Row& x) {
  const Bits bits = (Bits)x;
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  // rounding may overflow the bits of a NaN
  const Bits term = x == x ? rounded : Bits{} + 0x7fc00000u;
  x -= (Row)term;
  return term;
}

// The terms of 16 pairs: [terms][16][2], `next` apart.
inline void store_pairs(Row first, Row second, int64_t terms, Term* out, int64_t next) {
  for (int64_t term = 0; term < terms; ++term) {
    const Bits pairs = (take_term(first) >> 16) | take_term(second);
    std::memcpy(out + term * next, &pairs, sizeof pairs);
  }
}

// The left side, `rows` rows of depth tiles values(row, tile, Row[2]).
template <class Values>
bool split_left(int64_t rows, int64_t deep, int64_t terms, Term* to, uint32_t least,
                const Values& values, bool infinite_is_nan = false) {
  bool good = true;
  for (int64_t row = 0; row < rows; ++row) {
    Term* out = to + row / kTileRows * deep * terms * kTileTerms + row % kTileRows * kTileDepth;
    Bits largest = {};
    for (int64_t t = 0; t < deep; ++t, out += terms * kTileTerms) {
      Row half[2] = {};
      values(row, t, half);
      largest = larger(largest, larger(magnitude(half[0]), magnitude(half[1])));
      store_pairs(half[0], half[1], terms, out, kTileTerms);
    }
    uint32_t most = 0;
    for (int i = 0; i < 16; ++i) most = largest[i] > most ? largest[i] : most;
    good = good && fits(most, least, infinite_is_nan);
  }
  return good;
}

// The right side: panels of `count` rows at row(panel, i).
template <class At>
bool split_right(int64_t panels, int64_t count, int64_t terms, Term* out, uint32_t least,
                 const At& row, bool infinite_is_nan = false) {
  bool good = true;
  for (int64_t panel = 0; panel < panels; ++panel) {
    Bits largest = {};
    for (int64_t t = 0; t < depth_tiles(count); ++t, out += terms * kTileTerms)
      for (int64_t i = 0; i < kTileDepth / 2; ++i) {
        Row pair[2] = {};
        for (int64_t half = 0; half < 2; ++half) {
          const int64_t at = t * kTileDepth + half * kTileDepth / 2 + i;
          if (at < count) std::memcpy(&pair[half], row(panel, at), sizeof(Row));
        }
        largest = larger(largest, larger(magnitude(pair[0]), magnitude(pair[1])));
        store_pairs(pair[0], pair[1], terms, out + i * 2 * kTileColumns, kTileTerms);
      }
    for (int i = 0; i < kTileColumns; ++i) good = good && fits(largest[i], least, infinite_is_nan);
  }
  return good;
}

// The tile registers: four sums, of two row tiles with two panels, and two tiles of each side.
struct alignas(64) Configuration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  constexpr Configuration() {
    for (int tile = 0; tile < 8; ++tile) {
      row_bytes[tile] = kTileDepth * sizeof(Term);
      rows[tile] = kTileRows;
    }
  }
};
constexpr Configuration kConfiguration;

// The compiler does not know the memory that the tile instructions use.
inline void settle_memory() { __asm__ volatile("" ::: "memory"); }

constexpr int64_t kStride = kTileDepth * sizeof(Term);

// Two adjacent row tiles or panels, or a single one.
struct Pair {
  const Term *first, *second;
  int64_t terms;
  bool two;
};

// One side of a product and its number of row tiles or panels.
struct Side {
  const Term* data;
  int64_t count, terms, next;
  Side(const void* data, int64_t count, int64_t terms, int64_t deep)
      : data(static_cast<const Term*>(data)),
        count(count),
        terms(terms),
        next(deep * terms * kTileTerms) {}
  Pair at(int64_t i) const {
    const bool two = i + 1 < count;
    return {data + i * next, data + (i + two) * next, terms, two};
  }
};

inline void load_left(const Pair& left, int64_t term, int64_t t) {
  const int64_t at = (t * left.terms + term) * kTileTerms;
  _tile_loadd(4, left.first + at, kStride);
  if (left.two) _tile_loadd(5, left.second + at, kStride);
}
inline void load_right(const Pair& right, int64_t term, int64_t t) {
  const int64_t at = (t * right.terms + term) * kTileTerms;
  _tile_loadd(6, right.first + at, kStride);
  _tile_loadd(7, right.second + at, kStride);
}
// of what was loaded last
inline void add_products(const Pair& left) {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if (!left.two) return;
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// Prefetches the next row tiles of the left side, a part per depth tile.
struct Ahead {
  const Term* data;
  int64_t each, next_depth, next_row;
  void fetch(int64_t t) const {
    constexpr int64_t kLine = 64 / sizeof(Term);
    for (int64_t i = t * next_depth; i < t * next_depth + each; i += kLine) {
      _mm_prefetch(data + i, _MM_HINT_T1);
      _mm_prefetch(data + next_row + i, _MM_HINT_T1);
    }
  }
};

// The four sums over depth tiles [begin, end). The products of the first terms come last, because
// the others are smaller by 2^-8 and more. Consecutive products share a side.
inline void sum_products(const Pair& left, const Pair& right, int64_t begin, int64_t end,
                         const Ahead& ahead) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t t = begin; t < end; ++t) {
    ahead.fetch(t - begin);
    if (left.terms > 1) load_right(right, 0, t);
    for (int64_t term = left.terms - 1; term > 0; --term) {
      load_left(left, term, t);
      add_products(left);
    }
    if (right.terms == 1) continue;
    load_right(right, 1, t);
    if (left.terms > 1) add_products(left);
    load_left(left, 0, t);
    add_products(left);
    if (right.terms == 2) continue;
    load_right(right, 2, t);
    add_products(left);
  }
  for (int64_t t = begin; t < end; ++t) {
    load_left(left, 0, t);
    load_right(right, 0, t);
    add_products(left);
  }
}

constexpr int64_t kTileSums = kTileRows * kTileColumns;

// A single tile leaves the registers of its neighbour untouched.
inline void store_sums(const Pair& left, const Pair& right, float* to, int64_t next_panel) {
  constexpr int64_t kStride = kTileColumns * sizeof(float);
  _tile_stored(0, to, kStride);
  if (right.two) _tile_stored(1, to + next_panel, kStride);
  if (left.two) _tile_stored(2, to + kTileSums, kStride);
  if (left.two && right.two) _tile_stored(3, to + next_panel + kTileSums, kStride);
}

// Adds the sums over depth tiles [begin, end) to the `rows` rows at(row), counted from the first of
// the pair; the second panel's are `next_panel` further.
template <class At>
inline void add_sums(const Pair& left, const Pair& right, int64_t begin, int64_t end, int64_t rows,
                     int64_t next_panel, const At& at, const Ahead& ahead = {}) {
  alignas(64) float sums[2][2 * kTileSums];
  sum_products(left, right, begin, end, ahead);
  store_sums(left, right, sums[0], 2 * kTileSums);
  settle_memory();
  for (int64_t row = 0; row < rows && row < (1 + left.two) * kTileRows; ++row) {
    float* to = at(row);
    for (int64_t panel = 0; panel <= right.two; ++panel, to += next_panel) {
      Row there, more;
      std::memcpy(&there, to, sizeof there);
      std::memcpy(&more, sums[panel] + row * kTileColumns, sizeof more);
      there += more;
      std::memcpy(to, &there, sizeof there);
    }
  }
}

// body() with the tiles configured
template <class Body>
inline void with_tiles(const Body& body) {
  settle_memory();
  _tile_loadconfig(&kConfiguration);
  body();
  _tile_release();
  settle_memory();
}

// body(left pair, its first row tile, right pair, its first panel)
template <class Body>
inline void for_pairs(const Side& left, const Side& right, const Body& body) {
  with_tiles([&] {
    for (int64_t panel = 0; panel < right.count; panel += 2)
      for (int64_t row = 0; row < left.count; row += 2)
        body(left.at(row), row, right.at(panel), panel);
  });
}

}  // namespace

bool split_points(const Points& points, int64_t group, bool infinite_is_nan) {
  const Depth& depth = points.depth;
  const int64_t tiles = tiles_of(points.count), terms = points.terms;
  const int64_t begin = group * kMC, left = tiles * kMR - begin;
  const int64_t count = left < kMC ? left : kMC;
  const int64_t deep = depth_tiles(depth.channels);
  Term* split = static_cast<Term*>(points.split) +
                (begin - points.split_from) / kTileRows * deep * terms * kTileTerms;
  return split_left(
      row_tiles(count) * kTileRows, deep, terms, split, kLeastOne,
      [&](int64_t p, int64_t t, Row* half) {
        if (p >= count) return;
        constexpr int64_t kEight = 8;  // divides KC
        const int64_t tile = (begin + p) / kMR;
        float values[kTileDepth] = {};
        for (int64_t i = 0; i < kTileDepth && t * kTileDepth + i < depth.padded(); i += kEight) {
          const int64_t d = t * kTileDepth + i, slice = d / depth.kc;
          const int64_t row = (slice * tiles + tile) * depth.kc + d % depth.kc;
          const float* from =
              static_cast<const float*>(points.packed) + row * kMR + (begin + p) % kMR;
          for (int64_t k = 0; k < kEight; ++k) values[i + k] = from[k * kMR];
        }
        std::memcpy(half, values, sizeof values);
      },
      infinite_is_nan);
}

bool split_transposed(const Points& points, int64_t group, Term* out) {
  const Depth& depth = points.depth;
  const int64_t tiles = tiles_of(points.count), begin = group * kMC;
  const int64_t rows = row_tiles(depth.channels) * kTileRows;
  return split_left(rows, depth_tiles(kMC), points.terms, out, kLeastOne,
                    [&](int64_t d, int64_t t, Row* half) {
                      if (d >= depth.padded()) return;
                      const int64_t slice = d / depth.kc * tiles * depth.kc + d % depth.kc;
                      const float* channel = static_cast<const float*>(points.packed) + slice * kMR;
                      float values[kTileDepth] = {};
                      for (int64_t i = 0; i < kTileDepth; ++i) {
                        const int64_t p = begin + t * kTileDepth + i;
                        if (p < tiles * kMR)
                          values[i] = channel[p / kMR * depth.kc * kMR + p % kMR];
                      }
                      std::memcpy(half, values, sizeof values);
                    });
}

bool split_pixels(const float* packed, const Depth& depth, int64_t panels, int64_t terms,
                  bool infinite_is_nan, Term* split) {
  return split_right(
      panels, depth.padded(), terms, split, kLeastOther,
      [&](int64_t panel, int64_t d) {
        return packed + ((d / depth.kc * panels + panel) * depth.kc + d % depth.kc) * kTileColumns;
      },
      infinite_is_nan);
}

bool split_queries(const float* transposed, int64_t pieces, Term* split) {
  return split_right(pieces, kPixelBlock, kTerms, split, kLeastOne, [&](int64_t piece, int64_t i) {
    return transposed + (piece * kPixelBlock + i) * kTileColumns;
  });
}

bool split_weights(const float* weights, int64_t next_panel, int64_t panels, int64_t points,
                   Term* split) {
  return split_right(panels, points, kTerms, split, kLeastOther, [&](int64_t panel, int64_t i) {
    return weights + panel * next_panel + i * kTileColumns;
  });
}

void products(const Points& points, int64_t first, int64_t tiles, const Term* query, int64_t terms,
              int64_t panels, float* dots) {
  const int64_t deep = depth_tiles(points.depth.channels), rows = row_tiles(tiles * kMR);
  const Term* split = static_cast<const Term*>(points.split) + (first * kMR - points.split_from) /
                                                                   kTileRows * deep * points.terms *
                                                                   kTileTerms;
  const Side left_side(split, rows, points.terms, deep), right_side(query, panels, terms, deep);
  constexpr int64_t kTogether = 16;  // depth tiles of two row tiles, with those of two panels
  const int64_t pairs = (panels + 1) / 2, depth_terms = points.terms * kTileTerms;
  const int64_t each = (depth_terms + pairs - 1) / pairs, apart = rows * kTileSums;
  with_tiles([&] {
    for (int64_t row = 0; row < rows; row += 2)
      for (int64_t t = 0; t < deep; t += kTogether) {
        const Pair left = left_side.at(row);
        const int64_t end = deep < t + kTogether ? deep : t + kTogether;
        const Term* coming = left.first + (end < deep ? end * depth_terms : 2 * left_side.next);
        for (int64_t panel = 0; panel < panels; panel += 2) {
          const Pair right = right_side.at(panel);
          const Ahead ahead{coming + panel / 2 * each, each, depth_terms, left_side.next};
          float* out = dots + panel * apart + row * kTileSums;
          if (t == 0) {
            sum_products(left, right, 0, end, ahead);
            store_sums(left, right, out, apart);
          } else {
            add_sums(
                left, right, t, end, 2 * kTileRows, apart,
                [&](int64_t r) { return out + r * kTileColumns; }, ahead);
          }
        }
      }
  });
}

void add_to_queries(const Points& points, const Term* transposed, int64_t tiles,
                    const Term* weights, int64_t panels, float* query) {
  const int64_t together = depth_tiles(kMC), deep = depth_tiles(tiles * kMR);
  const int64_t channels = row_tiles(points.depth.channels);
  for_pairs(Side(transposed, channels, points.terms, together), Side(weights, panels, kTerms, deep),
            [&](const Pair& left, int64_t row, const Pair& right, int64_t panel) {
              const int64_t channel = row * kTileRows, rows = points.depth.padded() - channel;
              add_sums(left, right, 0, deep, rows, kMR * kTileColumns, [&](int64_t r) {
                const int64_t d = channel + r;
                return query + ((d / kMR * panels + panel) * kMR + d % kMR) * kTileColumns;
              });
            });
}

bool add_to_points(const float* weights, int64_t next_panel, int64_t tiles, const Term* queries,
                   int64_t pieces, Term* scratch, float* sums) {
  const int64_t deep = depth_tiles(kPixelBlock), rows = tiles * kMR;
  const bool good = split_left(
      row_tiles(rows) * kTileRows, deep, kTerms, scratch, kLeastOther,
      [&](int64_t r, int64_t t, Row* half) {
        for (int64_t i = 0; i < 2 && r < rows; ++i)
          std::memcpy(half + i, weights + (2 * t + i) * next_panel + r * kTileColumns, sizeof(Row));
      });
  if (!good) return false;
  for_pairs(Side(scratch, row_tiles(rows), kTerms, deep), Side(queries, pieces, kTerms, deep),
            [&](const Pair& left, int64_t row, const Pair& right, int64_t piece) {
              const int64_t first = row * kTileRows;
              add_sums(left, right, 0, deep, rows - first, kMR * kTileColumns, [&](int64_t r) {
                const int64_t i = first + r;
                return sums + ((i / kMR * pieces + piece) * kMR + i % kMR) * kTileColumns;
              });
            });
  return true;
}

}  // namespace pixelkernels::similarity::split
