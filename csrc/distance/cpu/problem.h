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
void click_maps(const float* points, const int64_t* labels, int64_t images, int64_t clicks,
                int64_t height, int64_t width, int64_t encoding, double radius, double truncate,
                float* out, const Loop& loop) {
  if (height * width == 0) return;
  const ClickMaps s{points,
                    labels,
                    clicks,
                    height,
                    width,
                    static_cast<Encoding>(encoding),
                    static_cast<float>(radius),
                    static_cast<float>(truncate),
                    out};
  for_pieces(2 * images, height, kClickTileRows, width, loop,
             [&](int64_t map, int64_t begin, int64_t end) {
               std::vector<float> scratch(5 * (clicks + kClickPad));
               kernels().click_rows(s, map, begin, end, scratch.data());
             });
}

// The squares of distances between the columns of a row, from -width - 8 to width + 8 columns.
template <class A>
class SquaresTable {
 public:
  SquaresTable(int64_t width, A spacing)
      : reach_(width + 8), squares_(2 * reach_ + 2 * kAnchorStep) {
    for (int64_t d = 0; d <= reach_; ++d) {
      const A apart = static_cast<A>(d) * spacing;
      squares_[reach_ + d] = squares_[reach_ - d] = apart * apart;
    }
  }
  const A* middle() const { return squares_.data() + reach_; }

 private:
  int64_t reach_;
  std::vector<A> squares_;
};

template <class A, class Loop>
void transform(Transform s, int64_t images, const Loop& loop) {
  const SquaresTable<A> squares(s.width, static_cast<A>(s.column_spacing));
  s.squares = squares.middle();
  for_pieces(
      images, s.width, kColumnBlock, s.height, loop,
      [&](int64_t image, int64_t begin, int64_t end) { kernels().columns(s, image, begin, end); });
  for_pieces(images, s.height, kRowBlock, s.width, loop,
             [&](int64_t image, int64_t begin, int64_t end) {
               std::vector<A> scratch(row_scratch(s.width));
               kernels().rows(s, image, begin, end, scratch.data());
             });
}

template <class Loop>
void distance_transform(const bool* mask, int64_t images, int64_t height, int64_t width,
                        bool squared, double row_spacing, double column_spacing, bool border,
                        void* out, const Loop& loop) {
  if (images * height * width == 0) return;
  const bool whole = row_spacing == 1 && column_spacing == 1 && height <= kLongestExactSide &&
                     width <= kLongestExactSide;
  const Transform s{reinterpret_cast<const uint8_t*>(mask),
                    height,
                    width,
                    static_cast<float>(row_spacing),
                    static_cast<float>(column_spacing),
                    whole,
                    squared,
                    border,
                    nullptr,
                    out};
  whole ? transform<uint32_t>(s, images, loop) : transform<float>(s, images, loop);
}

}  // namespace pixelkernels::distance
