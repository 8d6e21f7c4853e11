// The CPU side of the triplet hinges and of their gradient.
#include <numeric>
#include <tuple>

#include "triplet/cpu/problem.h"

namespace pixelkernels::triplet {
namespace {

// The factors in a mean over the rows of an image, then over the images with a row; `present` has
// the number of rows in each block of each image.
template <class A>
void fill_weights(const std::vector<int64_t>& present, int64_t images, A* weights) {
  const int64_t blocks = images ? static_cast<int64_t>(present.size()) / images : 0;
  std::vector<int64_t> rows(images);
  for (int64_t b = 0; b < images; ++b) {
    const auto first = present.begin() + b * blocks;
    rows[b] = std::accumulate(first, first + blocks, int64_t{0});
  }
  const int64_t used = images - std::count(rows.begin(), rows.end(), 0);
  for (int64_t b = 0; b < images; ++b)
    weights[b] = rows[b] ? static_cast<A>(1.0 / static_cast<double>(rows[b] * used)) : A(0);
}

void refuse_pixels_past_the_last(const Sets& sets, int64_t pixels) {
  const char* const names[] = {"anchor", "positive", "negative", "fourth"};
  for (int set = 0; set < sets.count(); ++set)
    for (int64_t image = 0; image < sets.images(); ++image) {
      const int64_t* listed = sets.of(set, image);
      const int64_t largest = *std::max_element(listed, listed + sets.rows());
      if (largest >= pixels)
        refuse(names[set], ": expected pixels below ", pixels, ", got ", largest);
    }
}

std::tuple<Tensor, Tensor, Tensor> triplet_hinges(Tensor features, Tensor first, Tensor second,
                                                  Tensor third, std::optional<Tensor> fourth,
                                                  double margin, bool squared, double eps) {
  const Sets sets{first, second, third, fourth};
  const Element element = element_of(features);
  const Kernels& run = kernels()[element];
  const int64_t images = sets.images(), hinges = sets.hinges(), all = sets.rows();
  const int64_t blocks = (all + kRowBlock - 1) / kRowBlock;
  const ScalarType type = accumulate_type(element);
  Tensor result = output(features, {images, hinges, all}, type);
  Tensor distances = output(features, {images, 2 * hinges, all}, type);
  Tensor weights = output(features, {images}, type);
  std::vector<int64_t> present(images * blocks);
  // body(begin, end) returns how many of those rows are present
  const auto count_block = [&](int64_t image, int64_t block, const auto& body) {
    const int64_t begin = block * kRowBlock, end = std::min(begin + kRowBlock, all);
    present[image * blocks + block] = body(begin, end);
  };
  with_value(element, [&](auto zero) {
    using A = decltype(zero);
    const auto hinges_of = [&](int64_t b) {
      return Hinges{rows_of(features, sets, b, squared, eps), margin, squared,
                    data<A>(distances) + b * 2 * hinges * all, data<A>(result) + b * hinges * all};
    };
    if (side_by_side(view_of(features))) {
      const int64_t work = sets.count() * features.size(1) * kRowBlock;
      parallel(images * blocks, work, [&](int64_t i) {
        const Hinges h = hinges_of(i / blocks);
        count_block(i / blocks, i % blocks,
                    [&](int64_t begin, int64_t end) { return run.hinges_by_pixel(h, begin, end); });
      });
    } else {
      for_images(features, [&](int64_t b) {
        Hinges h = hinges_of(b);
        Rows& rows = h.rows;
        const std::vector<int64_t> offset = offsets_of(rows);
        rows.offset = offset.data();
        const int64_t each = rows.pairs * all, groups = groups_of(rows);
        std::vector<A> sums(groups * each, A(0));
        for_groups(rows, [&](int64_t group, int64_t begin, int64_t end) {
          std::vector<A> scratch(rows.sets * all);
          run.distances(rows, begin, end, sums.data() + group * each, scratch.data());
        });
        parallel(blocks, groups * rows.pairs * kRowBlock, [&](int64_t i) {
          count_block(b, i, [&](int64_t begin, int64_t end) {
            return run.finish(h, begin, end, sums.data(), groups);
          });
        });
      });
    }
    // an absent row may be one with an index past the last pixel
    if (std::accumulate(present.begin(), present.end(), int64_t{0}) < images * all)
      refuse_pixels_past_the_last(sets, features.size(2) * features.size(3));
    fill_weights(present, images, data<A>(weights));
  });
  return {result, distances, weights};
}

Tensor triplet_hinges_backward(Tensor grad_hinges, Tensor features, Tensor first, Tensor second,
                               Tensor third, std::optional<Tensor> fourth, Tensor distances,
                               double margin, bool squared, double eps) {
  const Sets sets{first, second, third, fourth};
  const Element element = element_of(features);
  const Kernels& run = kernels()[element];
  const int64_t hinges = sets.hinges();
  Tensor gradient = output_like(features);
  const View view = view_of(gradient);
  const bool by_pixel = side_by_side(view_of(features)) && side_by_side(view);
  with_value(element, [&](auto zero) {
    using A = decltype(zero);
    for_images(features, [&](int64_t b) {
      const int64_t channels = std::max<int64_t>(features.size(1), 1);
      const int64_t together =
          by_pixel ? std::max<int64_t>(kPageValues / channels, 1) : kPagePixels;
      Rows rows = rows_of(features, sets, b, squared, eps);
      const Entries entries(rows, together);
      entries.enter(rows, together);
      const std::vector<int64_t> offset = by_pixel ? std::vector<int64_t>() : offsets_of(rows);
      rows.offset = offset.data();
      const A* distance = data<A>(distances) + b * rows.pairs * rows.rows;
      const A* grad = data<A>(grad_hinges) + b * hinges * rows.rows;
      std::vector<A> factor(rows.pairs * rows.rows);
      for (int p = 0; p < rows.pairs; ++p)
        for (int64_t r = 0; r < rows.rows; ++r) {
          const A* own = distance + p / 2 * 2 * rows.rows + r;
          const bool active = own[0] - own[rows.rows] + static_cast<A>(margin) >= 0;
          const A mine = p % 2 ? own[rows.rows] : own[0];
          const A rise = squared ? A(2) : mine == 0 ? A(0) : 1 / mine;
          const A slope = active ? grad[p / 2 * rows.rows + r] : A(0);
          factor[p * rows.rows + r] = p % 2 ? -slope * rise : slope * rise;
        }
      const Gradient g{rows, factor.data(), view, past_caches(gradient)};
      if (by_pixel) {
        const int64_t page = rows.page_pixels * rows.channels;
        parallel((entries.pages() + kPageBlock - 1) / kPageBlock, kPageBlock * page,
                 [&](int64_t i) {
                   const int64_t begin = i * kPageBlock;
                   const int64_t end = std::min(begin + kPageBlock, entries.pages());
                   std::vector<A> scratch(page);
                   run.gradient_by_pixel(g, begin, end, scratch.data());
                 });
        return;
      }
      for_groups(rows, [&](int64_t, int64_t begin, int64_t end) {
        std::vector<A> scratch(2 * rows.sets * rows.rows + kPagePixels);
        run.gradient(g, begin, end, scratch.data());
      });
    });
  });
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("triplet_hinges", TORCH_BOX(&triplet_hinges));
  m.impl("triplet_hinges_backward", TORCH_BOX(&triplet_hinges_backward));
}

}  // namespace pixelkernels::triplet
