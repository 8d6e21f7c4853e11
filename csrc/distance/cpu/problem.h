// Cuts the distance problems into tasks and runs the kernels of the best instruction set over them.
// Loop(n, work, body) calls body(i) for i in [0, n): on torch's threads, or on the caller's alone.
#pragma once

#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "distance/kernels.h"

namespace pixelkernels::distance {

constexpr int64_t kRowBlock = 16;  // rows of one task

// body(image, begin, end) for pieces of [0, length) of at most `step`, for every image
template <class Loop, class Body>
void for_pieces(int64_t images, int64_t length, int64_t step, int64_t work, const Loop& loop,
                const Body& body) {
  const int64_t pieces = (length + step - 1) / step;
  loop(images * pieces, work * step, [&](int64_t i) {
    const int64_t begin = i % pieces * step;
    body(i / pieces, begin, std::min(begin + step, length));
  });
}

template <class Loop>
void click_maps(const ClickMaps& s, int64_t images, const Loop& loop) {
  if (s.height * s.width == 0) return;
  for_pieces(2 * images * s.depth, s.height, kClickTileRows, s.width, loop,
             [&](int64_t slice, int64_t begin, int64_t end) {
               std::vector<float> scratch(7 * (s.clicks + kClickPad));
               kernels().click_rows(s, slice, begin, end, scratch.data());
             });
}

// The squares of distances along a line of `width` pixels, from -width - 8 to width + 8 pixels.
template <class A>
class SquaresTable {
 public:
  SquaresTable(int64_t width, double spacing)
      : reach_(width + 8), squares_(2 * reach_ + 2 * kAnchorStep) {
    for (int64_t d = 0; d <= reach_; ++d) {
      const A apart = static_cast<A>(d) * static_cast<A>(spacing);
      squares_[reach_ + d] = squares_[reach_ - d] = apart * apart;
    }
  }
  const A* middle() const { return squares_.data() + reach_; }

 private:
  int64_t reach_;
  std::vector<A> squares_;
};

// The spacing of the pixels; of images the depth's is 1.
struct Spacing {
  double depth, row, column;
};

// Whether squared distances are integers that fit.
inline bool are_whole(const Space& s, const Spacing& spacing) {
  const int longest = s.volume ? kLongestExactVolumeSide : kLongestExactSide;
  return spacing.depth == 1 && spacing.row == 1 && spacing.column == 1 &&
         std::max({s.depth, s.height, s.width}) <= longest;
}

// An image has the shape [H, W] and a depth of 1.
inline Space space_of(const uint8_t* mask, const int64_t* shape, bool volume) {
  Space s = {};
  s.mask = mask;
  s.volume = volume;
  s.depth = volume ? *shape++ : 1;
  s.height = shape[0];
  s.width = shape[1];
  return s;
}

// One axis after the other. A is the type of the squares.
template <class A, class Problem, class First, class Columns, class Rows, class Loop>
void for_axes(const Problem& s, int64_t masks, const First& first, const Columns& columns,
              const Rows& rows, const Loop& loop) {
  for_pieces(masks, s.lines(), kColumnBlock, s.length(), loop,
             [&](int64_t mask, int64_t begin, int64_t end) { first(s, mask, begin, end); });
  const int64_t slices = masks * s.depth;
  if (s.volume)
    for_pieces(slices, s.width, kTileColumns, s.height, loop,
               [&](int64_t slice, int64_t begin, int64_t end) {
                 std::vector<A> scratch(tile_scratch(s.height));
                 columns(s, slice, begin, end, scratch.data());
               });
  for_pieces(slices, s.height, kRowBlock, s.width, loop,
             [&](int64_t slice, int64_t begin, int64_t end) {
               std::vector<A> scratch(row_scratch(s.width));
               rows(s, slice, begin, end, scratch.data());
             });
}

template <class A, class Loop>
void transform(Transform s, int64_t masks, const Spacing& spacing, const Loop& loop) {
  const SquaresTable<A> rows(s.height, spacing.row), columns(s.width, spacing.column);
  s.row_squares = rows.middle();
  s.column_squares = columns.middle();
  for_axes<A>(s, masks, kernels().first_axis, kernels().columns, kernels().rows, loop);
}

// out: 4 bytes per pixel; `labels`: the mask is of changes
template <class Loop>
void distance_transform(const Space& space, int64_t masks, const Spacing& spacing, bool squared,
                        bool border, bool labels, void* out, const Loop& loop) {
  if (masks * space.depth * space.height * space.width == 0) return;
  Transform s = {space};
  s.depth_spacing = static_cast<float>(spacing.depth);
  s.row_spacing = static_cast<float>(spacing.row);
  s.column_spacing = static_cast<float>(spacing.column);
  s.whole = are_whole(space, spacing);
  s.squared = squared;
  s.border = border;
  s.labels = labels;
  s.out = out;
  s.whole ? transform<uint32_t>(s, masks, spacing, loop)
          : transform<float>(s, masks, spacing, loop);
}

// The distances of labels; the mask of `space`, of their shape, is where their changes will be.
template <class Loop>
void label_distance(const Labels& labels, const Space& space, int64_t masks, const Spacing& spacing,
                    bool squared, bool border, void* out, const Loop& loop) {
  loop(masks * space.depth * space.height, space.width,
       [&](int64_t line) { kernels().find_changes(labels, line); });
  distance_transform(space, masks, spacing, squared, border, true, out, loop);
}

template <class A, class Problem, class Rows, class Loop>
void nearest(Problem s, int64_t masks, const Spacing& spacing, const Rows& last, const Loop& loop) {
  const SquaresTable<A> depths(s.depth, spacing.depth), rows(s.height, spacing.row),
      columns(s.width, spacing.column);
  s.first_squares = s.volume ? depths.middle() : rows.middle();
  s.row_squares = rows.middle();
  s.column_squares = columns.middle();
  for_axes<A>(s, masks, kernels().nearest_of_first_axis, kernels().nearest_of_columns, last, loop);
}

// The last pass gives the result.
template <class Problem, class Rows, class Loop>
void nearest_true(Problem s, int64_t masks, const Spacing& spacing, const Rows& last,
                  const Loop& loop) {
  if (masks * s.depth * s.height * s.width == 0) return;
  s.whole = are_whole(s, spacing);
  s.whole ? nearest<uint32_t>(s, masks, spacing, last, loop)
          : nearest<double>(s, masks, spacing, last, loop);
}

// distance: 4 bytes per pixel; indices [masks, axes, ...]; wide_words: memory for them, if needed
template <class Loop>
void nearest_true(const Space& space, int64_t masks, const Spacing& spacing, bool squared,
                  bool past_caches, void* wide_words, void* distance, int32_t* indices,
                  const Loop& loop) {
  Nearest s = {space};
  s.squared = squared;
  s.past_caches = past_caches;
  s.words = wide_words ? wide_words : distance;
  s.distance = distance;
  s.indices = indices;
  nearest_true(s, masks, spacing, kernels().nearest_of_rows, loop);
}

// Whether pixels have a label, for labels of this type.
template <class L>
void find_labelled(const void* labels, int64_t begin, int64_t end, uint8_t* found) {
  for (int64_t i = begin; i < end; ++i) found[i] = static_cast<const L*>(labels)[i] != 0;
}

}  // namespace pixelkernels::distance
