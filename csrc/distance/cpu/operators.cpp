// The CPU side of the distance operators.
#include <numeric>
#include <optional>
#include <tuple>

#include "common/outputs.h"
#include "distance/cpu/problem.h"

namespace pixelkernels::distance {
namespace {

const auto threads = [](int64_t n, int64_t work, const auto& body) { parallel(n, work, body); };

Tensor maps_of_clicks(Tensor points, Tensor labels, int64_t height, int64_t width, int64_t encoding,
                      double radius, double truncate) {
  STD_TORCH_CHECK(points.is_contiguous() && points.scalar_type() == ScalarType::Float,
                  "pixelkernels: points must be contiguous, in float32");
  STD_TORCH_CHECK(labels.is_contiguous() && labels.scalar_type() == ScalarType::Long,
                  "pixelkernels: labels must be contiguous, in int64");
  Tensor maps = output(points, {points.size(0), 2, height, width}, ScalarType::Float);
  click_maps(data<float>(points), data<int64_t>(labels), points.size(0), points.size(1), height,
             width, encoding, radius, truncate, data<float>(maps), threads);
  return maps;
}

Tensor transform_of_mask(Tensor mask, bool squared, double row_spacing, double column_spacing,
                         bool border) {
  STD_TORCH_CHECK(mask.is_contiguous() && mask.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the mask must be contiguous, in bool");
  const int64_t images = mask.size(0), height = mask.size(1), width = mask.size(2);
  Tensor distance =
      output(mask, {images, height, width}, squared ? ScalarType::Int : ScalarType::Float);
  distance_transform(data<bool>(mask), images, height, width, squared, row_spacing, column_spacing,
                     border, data(distance), threads);
  return distance;
}

// 1 for a missed pixel of the object, 2 for a pixel wrongly predicted, 0 for a correct one.
template <class L>
void fill_kinds(const uint8_t* prediction, const L* target, int64_t pixels, int64_t ignore_label,
                uint8_t* kinds) {
  const bool ignores = ignore_label == static_cast<L>(ignore_label);
  const L ignored = static_cast<L>(ignore_label);
  for (int64_t i = 0; i < pixels; ++i) {
    const uint8_t is_object = target[i] == 1, ignore = ignores & (target[i] == ignored);
    const uint8_t error = (is_object ^ prediction[i]) & ~ignore;
    kinds[i] = error + (error & ~is_object);
  }
}

// The errors of a batch of contiguous images.
class SomeErrors {
 public:
  SomeErrors(const Errors& errors, int64_t images)
      : errors_(errors), images_(images), pieces_((errors.height + kRowBlock - 1) / kRowBlock) {}

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
    parallel(images_, kRowBlock * errors_.width, [&](int64_t i) {
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
    for_pieces(images_, errors_.height, kRowBlock, errors_.width, threads,
               [&](int64_t image, int64_t begin, int64_t end) {
                 std::vector<uint32_t> scratch(row_scratch(errors_.width));
                 body(image, begin, end, scratch.data());
               });
  }

  const Errors& errors_;
  int64_t images_, pieces_;
};

std::tuple<Tensor, Tensor> deepest_errors(Tensor prediction, Tensor target,
                                          std::optional<Tensor> allowed, int64_t ignore_label,
                                          std::optional<Tensor> draws) {
  STD_TORCH_CHECK(prediction.is_contiguous() && prediction.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the prediction must be contiguous, in bool");
  STD_TORCH_CHECK(
      !allowed || (allowed->is_contiguous() && allowed->scalar_type() == ScalarType::Bool),
      "pixelkernels: what is allowed must be contiguous, in bool");
  STD_TORCH_CHECK(!draws || (draws->is_contiguous() && draws->scalar_type() == ScalarType::Long),
                  "pixelkernels: the draws must be contiguous, in int64");
  constexpr int64_t kCachedPixels = 1 << 20;  // pixels whose distances fit the caches
  const int64_t images = target.size(0), height = target.size(1), width = target.size(2);
  const int64_t pixels = height * width;
  const int64_t most = std::min(images, std::max<int64_t>(1, kCachedPixels / (pixels + 1)));
  Tensor kinds = output(target, {most, height, width}, ScalarType::Byte);
  Tensor rows = output(target, {most * pixels + kAnchorStep}, ScalarType::Short);
  Tensor depth = output(target, {images, 2}, ScalarType::Int);
  Tensor index = output(target, {images, 2}, ScalarType::Long);
  const SquaresTable<uint32_t> distances(width + 2, 1);
  for (int64_t first = 0; first < images; first += most) {
    const int64_t some = std::min(most, images - first), before = first * pixels;
    for_pieces(1, some * height, kRowBlock, width, threads,
               [&](int64_t, int64_t begin, int64_t end) {
                 const int64_t own = begin * width;
                 with_label(label_of(target), [&](auto like) {
                   fill_kinds(data<uint8_t>(prediction) + before + own,
                              data<decltype(like)>(target) + before + own, (end - begin) * width,
                              ignore_label, data<uint8_t>(kinds) + own);
                 });
               });
    const Errors errors{data<uint8_t>(kinds),
                        allowed ? data<uint8_t>(*allowed) + before : nullptr,
                        height,
                        width,
                        distances.middle(),
                        data<int16_t>(rows)};
    for_pieces(some, width, kColumnBlock, height, threads,
               [&](int64_t image, int64_t begin, int64_t end) {
                 kernels().error_columns(errors, image, begin, end);
               });
    const SomeErrors found(errors, some);
    std::vector<Deepest> deepest = found.deepest();
    if (draws) found.draw(data<int64_t>(*draws) + first, deepest);
    for (int64_t i = 0; i < 2 * some; ++i) {
      data<int32_t>(depth)[2 * first + i] = static_cast<int32_t>(deepest[i].depth);
      data<int64_t>(index)[2 * first + i] = deepest[i].index;
    }
  }
  return {depth, index};
}

Tensor pick_pixels(Tensor allowed, Tensor order, Tensor farthest, int64_t count,
                   int64_t squared_spacing) {
  STD_TORCH_CHECK(allowed.is_contiguous() && allowed.scalar_type() == ScalarType::Bool &&
                      farthest.is_contiguous() && farthest.scalar_type() == ScalarType::Bool,
                  "pixelkernels: what is allowed and farthest must be contiguous, in bool");
  STD_TORCH_CHECK(order.is_contiguous() && order.scalar_type() == ScalarType::Int,
                  "pixelkernels: the order must be contiguous, in int32");
  const int64_t images = allowed.size(0), height = allowed.size(1), width = allowed.size(2);
  Tensor left = output_like(allowed), gaps = output_like(order);
  Tensor points = output(order, {images, count, 2}, ScalarType::Long);
  std::copy_n(data<uint8_t>(allowed), allowed.numel(), data<uint8_t>(left));
  Picks problem{data<uint8_t>(left),
                data<int32_t>(order),
                data<uint8_t>(farthest),
                data<int32_t>(gaps),
                height,
                width,
                count,
                static_cast<int32_t>(std::min<int64_t>(squared_spacing, INT32_MAX)),
                0,
                data<int64_t>(points)};
  while (problem.reach < height + width && problem.reach * problem.reach < squared_spacing)
    ++problem.reach;
  parallel(images, height * width * (count + 1),
           [&](int64_t image) { kernels().pick(problem, image); });
  return points;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("click_maps", TORCH_BOX(&maps_of_clicks));
  m.impl("distance_transform", TORCH_BOX(&transform_of_mask));
  m.impl("deepest_errors", TORCH_BOX(&deepest_errors));
  m.impl("pick_pixels", TORCH_BOX(&pick_pixels));
}

}  // namespace pixelkernels::distance
