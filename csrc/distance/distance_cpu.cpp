// The CPU side of the distance operators.
#include <optional>
#include <tuple>

#include "distance/distance_host.h"

namespace pixelkernels {
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

// 1 where the object was missed, 2 where something else was predicted, 0 where nothing is wrong.
template <class L>
void fill_kinds(const bool* prediction, const L* target, int64_t pixels, int64_t ignore_label,
                uint8_t* kinds) {
  const bool ignores = ignore_label == static_cast<L>(ignore_label);
  const L ignored = static_cast<L>(ignore_label);
  for (int64_t i = 0; i < pixels; ++i) {
    const bool is_object = target[i] == 1, counts = !ignores || target[i] != ignored;
    kinds[i] = (is_object != prediction[i] && counts) * (is_object ? 1 : 2);
  }
}

std::tuple<Tensor, Tensor> deepest_errors(Tensor prediction, Tensor target,
                                          std::optional<Tensor> allowed, int64_t ignore_label) {
  STD_TORCH_CHECK(prediction.is_contiguous() && prediction.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the prediction must be contiguous, in bool");
  STD_TORCH_CHECK(
      !allowed || (allowed->is_contiguous() && allowed->scalar_type() == ScalarType::Bool),
      "pixelkernels: what is allowed must be contiguous, in bool");
  const int64_t images = target.size(0), height = target.size(1), width = target.size(2);
  Tensor kinds = output(target, {images, height, width}, ScalarType::Byte);
  for_pieces(1, images * height, kRows, width, threads, [&](int64_t, int64_t begin, int64_t end) {
    const int64_t first = begin * width, pixels = (end - begin) * width;
    with_label(label_of(target), [&](auto like) {
      fill_kinds(data<bool>(prediction) + first, data<decltype(like)>(target) + first, pixels,
                 ignore_label, data<uint8_t>(kinds) + first);
    });
  });
  const int64_t pieces = (height + kRows - 1) / kRows;
  Tensor squares = output(target, {images, height, width}, ScalarType::Int);
  const SquaresTable<uint32_t> distances(width + 2, 1);
  const Errors problem{data<uint8_t>(kinds),
                       allowed ? data<uint8_t>(*allowed) : nullptr,
                       height,
                       width,
                       distances.middle(),
                       data<uint32_t>(squares)};
  for_pieces(images, width, kColumns, height, threads,
             [&](int64_t image, int64_t begin, int64_t end) {
               distance_kernels().error_columns(problem, image, begin, end);
             });
  std::vector<Deepest> found(2 * images * pieces);
  for_pieces(images, height, kRows, width, threads, [&](int64_t image, int64_t begin, int64_t end) {
    std::vector<uint32_t> scratch(row_scratch(width));
    Deepest* deepest = found.data() + 2 * (image * pieces + begin / kRows);
    distance_kernels().error_rows(problem, image, begin, end, scratch.data(), deepest);
  });
  Tensor depth = output(target, {images, 2}, ScalarType::Int);
  Tensor place = output(target, {images, 2}, ScalarType::Long);
  for (int64_t i = 0; i < 2 * images; ++i) {
    Deepest best{};
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const Deepest& one = found[2 * (i / 2 * pieces + piece) + i % 2];
      if (one.depth > best.depth) best = one;
    }
    data<int32_t>(depth)[i] = static_cast<int32_t>(best.depth);
    data<int64_t>(place)[i] = best.place;
  }
  return {depth, place};
}

Tensor pick_pixels(Tensor allowed, Tensor order, Tensor farthest, int64_t count, int64_t apart) {
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
                static_cast<int32_t>(std::min<int64_t>(apart, INT32_MAX)),
                0,
                data<int64_t>(points)};
  while (problem.reach < height + width && problem.reach * problem.reach < apart) ++problem.reach;
  parallel(images, height * width * (count + 1),
           [&](int64_t image) { distance_kernels().pick(problem, image); });
  return points;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("click_maps", TORCH_BOX(&maps_of_clicks));
  m.impl("distance_transform", TORCH_BOX(&transform_of_mask));
  m.impl("deepest_errors", TORCH_BOX(&deepest_errors));
  m.impl("pick_pixels", TORCH_BOX(&pick_pixels));
}

}  // namespace pixelkernels
