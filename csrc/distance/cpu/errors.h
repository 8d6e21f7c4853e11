// The host side of next_click: the errors of a prediction, and the deepest pixel of each kind.
#pragma once

#include <numeric>

#include "distance/cpu/problem.h"

namespace pixelkernels::distance {

// Contiguous masks [images, height, width].
template <class L>
struct Masks {
  const uint8_t* prediction;
  const L* target;
  const uint8_t* allowed;  // or null
  int64_t images, height, width;
  int64_t ignore_index;
  const int64_t* draws;  // or null
  uint8_t* kinds;        // scratch: pixels_at_a_time
  int16_t* rows;         // scratch: kAnchorStep more
};

// Pixels of the images handled together: their distances fit the caches.
inline int64_t pixels_at_a_time(int64_t images, int64_t pixels) {
  constexpr int64_t kCachedPixels = 1 << 20;
  return std::min(images, std::max<int64_t>(1, kCachedPixels / (pixels + 1))) * pixels;
}

// 1 for a missed pixel of the object, 2 for a pixel wrongly predicted, 0 for a correct one.
template <class L>
void fill_kinds(const uint8_t* prediction, const L* target, int64_t pixels, int64_t ignore_index,
                uint8_t* kinds) {
  const bool ignores = ignore_index == static_cast<L>(ignore_index);
  const L ignored = static_cast<L>(ignore_index);
  for (int64_t i = 0; i < pixels; ++i) {
    const uint8_t is_object = target[i] != 0, ignore = ignores & (target[i] == ignored);
    const uint8_t error = (is_object ^ prediction[i]) & ~ignore;
    kinds[i] = error + (error & ~is_object);
  }
}

// The errors of a batch of contiguous images.
template <class Loop>
class SomeErrors {
 public:
  SomeErrors(const Errors& errors, int64_t images, const Loop& loop)
      : errors_(errors),
        images_(images),
        pieces_((errors.height + kRowBlock - 1) / kRowBlock),
        loop_(loop) {}

  // The deepest pixel of each image and kind, [images, 2].
  std::vector<Deepest> deepest() const {
    std::vector<Deepest> found(2 * images_ * pieces_), best(2 * images_);
    std::vector<uint32_t> most(2 * images_);
    for_rows([&](int64_t image, int64_t begin, int64_t end, void* scratch) {
      Deepest* own = found.data() + 2 * (image * pieces_ + begin / kRowBlock);
      kernels().error_rows(errors_, image, begin, end, scratch, own, most.data() + 2 * image);
    });
    for (int64_t i = 0; i < 2 * images_; ++i)
      for (int64_t piece = 0; piece < pieces_; ++piece) {
        const Deepest& one = found[2 * (i / 2 * pieces_ + piece) + i % 2];
        if (one.depth > best[i].depth) best[i] = one;
      }
    return best;
  }

  // For each image, one of the pixels deeper than half of the deepest: draw modulo their number.
  void draw(const int64_t* draws, std::vector<Deepest>& deepest) const {
    std::vector<Inner> inner(images_);
    for (int64_t i = 0; i < images_; ++i) {
      const bool missed = deepest[2 * i].depth > deepest[2 * i + 1].depth;
      inner[i] = {static_cast<uint8_t>(missed ? 1 : 2), deepest[2 * i + !missed].depth / 4, -1};
    }
    std::vector<int64_t> counts(images_ * pieces_);
    for_rows([&](int64_t image, int64_t begin, int64_t end, void* scratch) {
      counts[image * pieces_ + begin / kRowBlock] =
          kernels().inner_rows(errors_, image, begin, end, scratch, inner[image], nullptr);
    });
    loop_(images_, kRowBlock * errors_.width, [&](int64_t i) {
      const int64_t* count = counts.data() + i * pieces_;
      const int64_t all = std::accumulate(count, count + pieces_, int64_t(0));
      if (all == 0) return;
      inner[i].chosen = draws[i] % all;
      int64_t piece = 0;
      for (; inner[i].chosen >= count[piece]; ++piece) inner[i].chosen -= count[piece];
      std::vector<uint32_t> scratch(row_scratch(errors_.width));
      const int64_t begin = piece * kRowBlock, end = std::min(begin + kRowBlock, errors_.height);
      kernels().inner_rows(errors_, i, begin, end, scratch.data(), inner[i],
                           &deepest[2 * i + inner[i].kind - 1].index);
    });
  }

 private:
  template <class Body>
  void for_rows(const Body& body) const {
    for_pieces(images_, errors_.height, kRowBlock, errors_.width, loop_,
               [&](int64_t image, int64_t begin, int64_t end) {
                 std::vector<uint32_t> scratch(row_scratch(errors_.width));
                 body(image, begin, end, scratch.data());
               });
  }

  const Errors& errors_;
  int64_t images_, pieces_;
  const Loop& loop_;
};

// depth and index [images, 2], as the operator of this name describes them.
template <class L, class Loop>
void deepest_errors(const Masks<L>& s, int32_t* depth, int64_t* index, const Loop& loop) {
  const int64_t pixels = s.height * s.width;
  if (pixels == 0) {
    std::fill_n(depth, 2 * s.images, 0);
    std::fill_n(index, 2 * s.images, 0);
    return;
  }
  const int64_t most = pixels_at_a_time(s.images, pixels) / pixels;
  const SquaresTable<uint32_t> distances(s.width + 2, 1);
  for (int64_t first = 0; first < s.images; first += most) {
    const int64_t some = std::min(most, s.images - first), before = first * pixels;
    for_pieces(1, some * s.height, kRowBlock, s.width, loop,
               [&](int64_t, int64_t begin, int64_t end) {
                 const int64_t own = begin * s.width;
                 fill_kinds(s.prediction + before + own, s.target + before + own,
                            (end - begin) * s.width, s.ignore_index, s.kinds + own);
               });
    const Errors errors{
        s.kinds, s.allowed ? s.allowed + before : nullptr, s.height, s.width, distances.middle(),
        s.rows};
    for_pieces(some, s.width, kColumnBlock, s.height, loop,
               [&](int64_t image, int64_t begin, int64_t end) {
                 kernels().error_columns(errors, image, begin, end);
               });
    const SomeErrors<Loop> found(errors, some, loop);
    std::vector<Deepest> deepest = found.deepest();
    if (s.draws) found.draw(s.draws + first, deepest);
    for (int64_t i = 0; i < 2 * some; ++i) {
      depth[2 * first + i] = static_cast<int32_t>(deepest[i].depth);
      index[2 * first + i] = deepest[i].index;
    }
  }
}

}  // namespace pixelkernels::distance
