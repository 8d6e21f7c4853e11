// The contrast of anchors with a bank: passes over the bank, in parts, and the gradient in it.
#pragma once

#include "similarity/simd/weighted.h"

namespace pixelkernels::similarity::PK_ISA {

// The scratch of a task, in values.
template <class A>
struct ContrastScratch {
  int64_t points, transposed, dots, rows;

  explicit ContrastScratch(const Contrast& c)
      : points(kMC * c.depth.padded()),
        transposed(kMC * tiles_of(c.depth.padded()) * kMR),
        dots(BlockScratch(c.depth).dots),
        rows(BlockScratch(c.depth).rows) {}
  // the points and products of a group, and per block the gradients and what each anchor keeps:
  // its largest similarity and two sums in double
  int64_t pass(const Contrast& c) const {
    const int64_t kept = kPixelBlock * (1 + 2 * sizeof(double) / sizeof(A));
    return points + dots + (c.gradient ? transposed : 0) +
           c.blocks_at_once * (kept + (c.gradient ? rows : 0));
  }
};

template <class A>
int64_t contrast_pass_scratch(const Contrast& c) {
  return ContrastScratch<A>(c).pass(c) * static_cast<int64_t>(sizeof(A));
}

template <class T, class A>
void pack_anchors(const Contrast& c, int64_t block) {
  const int64_t begin = block * kPixelBlock, left = c.anchors - begin;
  pack_pixels(Plane<T>(c.queries, 0), c.depth, begin, left < kPixelBlock ? left : kPixelBlock,
              panels_of<A>(kPixelBlock),
              static_cast<A*>(c.packed) + block * c.depth.padded() * kPixelBlock);
}

// Positions of a group of `count`, counted from its first: those from the least start to the
// greatest end of some anchors, and whether each anchor has all positions.
struct Span {
  int64_t from, to;
  bool all;
};

// The ranges [from, to) and own position of the anchors of a vector.
template <class V>
struct Ranges {
  Mask<V> from, to, own;
  Span span;
};

// One block of anchors, and a group of positions.
template <class A>
struct BlockPass {
  typedef Widest<A> V;
  static constexpr int64_t kAll = kLanesOf<A, V>, kVectors = kPixelBlock / kAll;
  static constexpr int64_t kPanels = kPixelBlock / kNR<A>;

  const Contrast& c;
  const Points& points;  // of the group
  int64_t block, first;  // anchors; the first position
  A *dots, *largest, *rows;
  double* sums;  // two per anchor

  int64_t anchors() const {
    const int64_t left = c.anchors - block * kPixelBlock;
    return left < kPixelBlock ? left : kPixelBlock;
  }

  // The ranges that the pass asks about: of the positives in the second pass, else of those that
  // are left out: a whole class, or the anchor itself. Lanes past the anchors repeat the last one.
  Ranges<V> ranges_of(int64_t vector) const {
    Ranges<V> r{};
    const int64_t last = block * kPixelBlock + anchors() - 1, count = points.count;
    r.span = {count, 0, true};
    for (int64_t i = 0; i < kAll; ++i) {
      int64_t at = block * kPixelBlock + vector * kAll + i;
      at = at < last ? at : last;
      const int64_t own = c.own[at] - first;
      const bool whole = c.negatives || c.log_sum;
      int64_t from = whole ? c.start[at] - first : own, to = whole ? c.end[at] - first : own + 1;
      from = from < 0 ? 0 : from;
      to = to > count ? count : to;
      if (from >= to) from = to = 0;
      r.from[i] = from;
      r.to[i] = to;
      r.own[i] = own >= 0 && own < count ? own : -1;
      if (from < to && from < r.span.from) r.span.from = from;
      if (to > r.span.to) r.span.to = to;
      r.span.all = r.span.all && from == 0 && to == count;
    }
    if (r.span.from > r.span.to) r.span.from = r.span.to;
    return r;
  }

  // Of the anchors of some vectors.
  Span span(const Ranges<V>* ranges, int64_t vectors) const {
    Span joint{points.count, 0, true};
    for (int64_t v = 0; v < vectors; ++v) {
      const Span own = ranges[v].span;
      if (own.from < own.to && own.from < joint.from) joint.from = own.from;
      if (own.to > joint.to) joint.to = own.to;
      joint.all = joint.all && own.all;
    }
    if (joint.from > joint.to) joint.from = joint.to;
    return joint;
  }

  Queries<A> queries(int64_t panel) const {
    const A* packed = static_cast<const A*>(c.packed) + block * c.depth.padded() * kPixelBlock;
    Queries<A> all = Queries<A>::packed(packed, c.depth, kPanels);
    all.data += panel * all.panel;
    return all;
  }

  void find_compared() const {
    Ranges<V> ranges[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) ranges[v] = ranges_of(v);
    if (span(ranges, kVectors).all) return;
    const int64_t tiles = tiles_of(points.count), next = rows_of(tiles);
    products(points, 0, tiles, queries(0), kPanels, dots);
    bool faded = false;
    A fade[kPixelBlock];
    for (int64_t v = 0; v < kVectors; ++v)
      faded =
          take_compared(v, ranges[v], vector_of(dots, v * kAll, next), fade + v * kAll) || faded;
    if (!c.gradient) return;
    if (faded) fade_rows(fade);
    add_weighted(points, tiles, 0, tiles, dots, next, kPanels, rows);
  }

  // As few panels at a time as the micro-kernel takes, because the positives of these are fewer.
  void find_positives() const {
    constexpr int64_t kSome = kPanelsAtOnce * kNR<A> / kAll;
    for (int64_t panel = 0; panel < kPanels; panel += kPanelsAtOnce) {
      const int64_t vector = panel * kNR<A> / kAll;
      Ranges<V> ranges[kSome];
      for (int64_t v = 0; v < kSome; ++v) ranges[v] = ranges_of(vector + v);
      const Span some = span(ranges, kSome);
      if (some.from == some.to) continue;
      const int64_t begin = some.from / kMR, tiles = tiles_of(some.to) - begin;
      const int64_t next = rows_of(tiles);
      products(points, begin, tiles, queries(panel), kPanelsAtOnce, dots);
      for (int64_t v = 0; v < kSome; ++v)
        take_positives(vector + v, ranges[v], begin * kMR, tiles * kMR,
                       vector_of(dots, v * kAll, next));
      if (c.gradient)
        add_weighted(points, tiles_of(points.count), begin, tiles, dots, next, kPanelsAtOnce,
                     rows + panel * kMR * kNR<A>);
    }
  }

  // The largest similarity so far, and e^{s - largest} in place of the products of the positions
  // outside of the ranges, else 0. Whether the largest changed, and the `fade` of what came before.
  bool take_compared(int64_t v, const Ranges<V>& r, A* row, A* fade) const {
    const V scale = V{} + static_cast<A>(c.scale), none = V{} - kInfinite;
    const int64_t count = points.count;
    V before, most = none;
    std::memcpy(&before, largest + v * kAll, sizeof before);
    const auto find = [&](int64_t from, int64_t to, bool cut) {
      for (int64_t p = from; p < to; ++p) {
        V s = load_product(row, p);
        if (cut) s = within(r, p) ? none : s;
        most = s > most ? s : most;
      }
    };
    find(0, r.span.from, false);
    find(r.span.from, r.span.to, true);
    find(r.span.to, count, false);
    most *= scale;
    most = most > before ? most : before;
    V sum = {};
    const auto exponentials = [&](int64_t from, int64_t to, bool cut) {
      for (int64_t p = from; p < to; ++p) {
        V e = exponential(scale * load_product(row, p) - most);
        if (cut) e = within(r, p) ? V{} : e;
        store_weight(row, p, e);
        sum += e;
      }
    };
    exponentials(0, r.span.from, false);
    exponentials(r.span.from, r.span.to, true);
    exponentials(r.span.to, count, false);
    clear(row, count, tiles_of(count) * kMR);
    const V factor = exponential(before - most);
    std::memcpy(fade, &factor, sizeof factor);
    std::memcpy(largest + v * kAll, &most, sizeof most);
    for (int64_t i = 0; i < kAll; ++i) {
      double& total = sums[v * kAll + i];
      total = total * factor[i] + sum[i];
    }
    return any(before < most);
  }

  // f' in place of the products of positives, else 0. `row` starts at position `begin`.
  void take_positives(int64_t v, const Ranges<V>& r, int64_t begin, int64_t count, A* row) const {
    const V scale = V{} + static_cast<A>(c.scale);
    const int64_t anchor = block * kPixelBlock + v * kAll, left = c.anchors - anchor;
    V log_sum = {}, losses = {}, slopes = {};
    for (int64_t i = 0; i < kAll && i < left; ++i)
      log_sum[i] = static_cast<const A*>(c.log_sum)[anchor + i];
    const bool none = r.span.from == r.span.to;
    const int64_t from = none ? 0 : r.span.from - begin, to = none ? 0 : r.span.to - begin;
    clear(row, 0, from);
    for (int64_t p = from; p < to; ++p) {
      const Mask<V> here = fill(Mask<V>{}, begin + p);
      const Mask<V> positive = within(r, begin + p) & (here != r.own);
      const V x = log_sum - scale * load_product(row, p);
      V loss = x, slope = V{} + 1;
      if (c.negatives) {
        const Softplus<V> about = softplus(x);
        loss = about.value;
        slope = about.sigmoid;
      }
      slope = positive ? slope : V{};
      losses += positive ? loss : V{};
      slopes += slope;
      store_weight(row, p, slope);
    }
    clear(row, to, count);
    for (int64_t i = 0; i < kAll; ++i) {
      sums[v * kAll + i] += losses[i];
      sums[kPixelBlock + v * kAll + i] += slopes[i];
    }
  }

 private:
  static constexpr A kInfinite = static_cast<A>(__builtin_inff());

  static PK_INLINE void clear(A* row, int64_t from, int64_t to) {
    for (int64_t p = from; p < to; ++p) store_weight(row, p, V{});
  }
  static PK_INLINE Mask<V> within(const Ranges<V>& r, int64_t p) {
    const Mask<V> here = fill(Mask<V>{}, p);
    return (here >= r.from) & (here < r.to);
  }
  void fade_rows(const A* fade) const {
    for (int64_t row_panel = 0; row_panel < tiles_of(c.depth.padded()); ++row_panel)
      for (int64_t i = 0; i < kPanels; ++i)
        for (int64_t r = 0; r < kMR; ++r) {
          A* at = rows + ((row_panel * kPanels + i) * kMR + r) * kNR<A>;
          for (int64_t k = 0; k < kNR<A>; k += kLanes)
            store(at + k, load(at + k) * load(fade + i * kNR<A> + k));
        }
  }
};

// The first blocks of a task with a part of the bank: each group is packed once for all blocks.
template <class T, class A>
void contrast_pass(const Contrast& c, int64_t first_block, int64_t part, void* scratch) {
  const ContrastScratch<A> sizes(c);
  const int64_t all = blocks_of(c.anchors) - first_block;
  const int64_t blocks = all < c.blocks_at_once ? all : c.blocks_at_once;
  Points points = c.points;
  double* sums = static_cast<double*>(scratch);
  A* largest = reinterpret_cast<A*>(sums + 2 * kPixelBlock * blocks);
  A* dots = largest + kPixelBlock * blocks;
  points.packed = dots + sizes.dots;
  A* rows = static_cast<A*>(points.packed) + sizes.points;
  if (c.gradient) {
    points.transposed = rows;
    rows += sizes.transposed;
    std::memset(rows, 0, sizeof(A) * sizes.rows * blocks);
  }
  std::memset(sums, 0, sizeof(double) * 2 * kPixelBlock * blocks);
  constexpr A kLowest = static_cast<A>(-3e38);
  for (int64_t i = 0; i < kPixelBlock * blocks; ++i) largest[i] = kLowest;
  const int64_t begin = part * c.step;
  const int64_t end = begin + c.step < c.entries ? begin + c.step : c.entries;
  for (int64_t first = begin; first < end; first += kMC) {
    points.order = c.points.order + first;
    points.count = end - first < kMC ? end - first : kMC;
    pack<T, A>(points, 0);
    for (int64_t b = 0; b < blocks; ++b) {
      const BlockPass<A> pass{c,
                              points,
                              first_block + b,
                              first,
                              dots,
                              largest + b * kPixelBlock,
                              rows + b * sizes.rows,
                              sums + 2 * b * kPixelBlock};
      if (c.log_sum)
        pass.find_positives();
      else
        pass.find_compared();
    }
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t anchor = (first_block + b) * kPixelBlock, left = c.anchors - anchor;
    const int64_t count = left < kPixelBlock ? left : kPixelBlock;
    const double* own = sums + 2 * b * kPixelBlock;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t to = part * c.all_anchors + anchor + i;
      const A most = largest[b * kPixelBlock + i];
      // nothing compared
      const bool none = most == kLowest;
      static_cast<A*>(c.first)[to] = c.log_sum ? static_cast<A>(own[i])
                                     : none    ? static_cast<A>(-__builtin_inff())
                                               : most;
      static_cast<A*>(c.second)[to] = static_cast<A>(own[c.log_sum ? kPixelBlock + i : i]);
    }
    if (!c.gradient) continue;
    A* out = static_cast<A*>(c.rows) + part * c.depth.channels * c.all_anchors;
    const Plane<A> plane(View{out, 0, c.all_anchors, 0, 1, c.all_anchors}, 0);
    store_block(plane, c.depth, anchor, count, panels_of<A>(kPixelBlock), rows + b * sizes.rows);
  }
}

// The weight of entries at `position`, a vector of them, with anchor i.
template <class A>
struct EntryWeights {
  typedef Widest<A> V;
  const Contrast& c;
  Mask<V> position;

  EntryWeights(const Contrast& c, int64_t begin, int64_t count)
      : c(c), position(fill(Mask<V>{}, -1)) {
    for (int64_t i = 0; i < kLanesOf<A, V> && i < count; ++i) position[i] = c.position[begin + i];
  }
  PK_INLINE V operator()(V product, int64_t i) const {
    const A *u = static_cast<const A*>(c.weights), *v = u + c.all_anchors;
    const Mask<V> own = position == fill(Mask<V>{}, c.own[i]);
    const Mask<V> same =
        (position >= fill(Mask<V>{}, c.start[i])) & (position < fill(Mask<V>{}, c.end[i]));
    const V t =
        exponential(static_cast<A>(c.scale) * product - static_cast<const A*>(c.log_sum)[i]);
    const V slope = c.negatives ? 1 / (1 + t) : V{} + 1;
    V weight = (c.negatives ? same : own) ? V{} : u[i] * t;
    weight -= (same & ~own) ? v[i] * slope : V{};
    return position >= 0 ? weight : V{};
  }
};

template <class T, class A>
void contrast_gradient(const Contrast& c, int64_t block, void* scratch) {
  gradient_of_block(c.points, Plane<T>(c.queries, 0), Plane<T>(c.grad_bank, 0), block,
                    c.queries.row_length, static_cast<A*>(scratch),
                    [&](int64_t at, int64_t count) { return EntryWeights<A>(c, at, count); });
}

}  // namespace pixelkernels::similarity::PK_ISA
