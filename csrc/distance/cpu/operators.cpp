// The CPU side of the distance operators.
#include <optional>
#include <tuple>

#include "common/outputs.h"
#include "distance/cpu/errors.h"

namespace pixelkernels::distance {
namespace {

const auto threads = [](int64_t n, int64_t work, const auto& body) { parallel(n, work, body); };
// the squares of a small sampling may be subnormal
const auto threads_with_subnormals = [](int64_t n, int64_t work, const auto& body) {
  torch::stable::parallel_for(0, n, grain_of(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
};

Tensor maps_of_clicks(Tensor points, Tensor labels, int64_t depth, int64_t height, int64_t width,
                      int64_t encoding, double radius, double truncate) {
  STD_TORCH_CHECK(points.is_contiguous() && points.scalar_type() == ScalarType::Float,
                  "pixelkernels: points must be contiguous, in float32");
  STD_TORCH_CHECK(labels.is_contiguous() && labels.scalar_type() == ScalarType::Long,
                  "pixelkernels: labels must be contiguous, in int64");
  const int axes = static_cast<int>(points.size(2));
  const int64_t images = points.size(0);
  std::vector<int64_t> shape{images, 2, height, width};
  if (axes == 3) shape.insert(shape.begin() + 2, depth);
  Tensor maps = output(points, shape, ScalarType::Float);
  const ClickMaps problem{data<float>(points),
                          data<int64_t>(labels),
                          axes,
                          points.size(1),
                          depth,
                          height,
                          width,
                          static_cast<Encoding>(encoding),
                          static_cast<float>(radius),
                          static_cast<float>(truncate),
                          data<float>(maps)};
  click_maps(problem, images, threads);
  return maps;
}

Space space_of_mask(const Tensor& mask) {
  STD_TORCH_CHECK(mask.is_contiguous() && mask.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the mask must be contiguous, in bool");
  return space_of(data<uint8_t>(mask), mask.sizes().data() + 1, mask.dim() == 4);
}

Tensor transform_of_mask(Tensor mask, bool squared, double depth_spacing, double row_spacing,
                         double column_spacing, bool border) {
  const Space space = space_of_mask(mask);
  Tensor distance = output(mask, mask.sizes(), squared ? ScalarType::Int : ScalarType::Float);
  distance_transform(space, mask.size(0), {depth_spacing, row_spacing, column_spacing}, squared,
                     border, false, data(distance), threads_with_subnormals);
  return distance;
}

Tensor transform_of_labels(Tensor labels, bool squared, double depth_spacing, double row_spacing,
                           double column_spacing, bool border, bool background) {
  Tensor changes = output(labels, labels.sizes(), ScalarType::Byte);
  Tensor distance = output(labels, labels.sizes(), squared ? ScalarType::Int : ScalarType::Float);
  const Space space =
      space_of(data<uint8_t>(changes), labels.sizes().data() + 1, labels.dim() == 4);
  const Labels problem{labels.data_ptr(), label_of(labels), space.depth,           space.height,
                       space.width,       background,       data<uint8_t>(changes)};
  label_distance(problem, space, labels.size(0), {depth_spacing, row_spacing, column_spacing},
                 squared, border, data(distance), threads_with_subnormals);
  return distance;
}

std::tuple<Tensor, Tensor> nearest_of_mask(Tensor mask, bool squared, double depth_spacing,
                                           double row_spacing, double column_spacing) {
  const Space space = space_of_mask(mask);
  std::vector<int64_t> shape(mask.sizes().begin(), mask.sizes().end());
  Tensor distance = output(mask, shape, squared ? ScalarType::Int : ScalarType::Float);
  shape.insert(shape.begin() + 1, space.volume ? 3 : 2);
  Tensor indices = output(mask, shape, ScalarType::Int);
  const bool wide = has_wide_words(space);
  const Tensor words = output(mask, {wide ? mask.numel() : 0}, ScalarType::Long);
  nearest_true(space, mask.size(0), {depth_spacing, row_spacing, column_spacing}, squared,
               past_caches(indices), wide ? data(words) : nullptr, data(distance),
               data<int32_t>(indices), threads_with_subnormals);
  return {distance, indices};
}

Tensor expand_labels(Tensor labels, double limit, bool squared, double depth_spacing,
                     double row_spacing, double column_spacing) {
  Tensor expanded = output_like(labels);
  Expansion s = {};
  // the mask is needed before the result is written
  s.expanded = data(expanded);
  static_cast<Space&>(s) =
      space_of(data<uint8_t>(expanded), labels.sizes().data() + 1, labels.dim() == 4);
  const Tensor words =
      output(labels, {labels.numel()}, has_wide_words(s) ? ScalarType::Long : ScalarType::Int);
  s.words = data(words);
  s.labels = labels.data_ptr();
  s.type = label_of(labels);
  s.limit = limit;
  s.squared = squared;
  parallel_ranges(labels.numel(), grain_of(1), [&](int64_t begin, int64_t end) {
    with_label(s.type, [&](auto like) {
      find_labelled<decltype(like)>(s.labels, begin, end, data<uint8_t>(expanded));
    });
  });
  nearest_true(s, labels.size(0), {depth_spacing, row_spacing, column_spacing},
               kernels().labels_of_rows, threads_with_subnormals);
  return expanded;
}

std::tuple<Tensor, Tensor> errors_of_masks(Tensor prediction, Tensor target,
                                           std::optional<Tensor> allowed,
                                           std::optional<Tensor> draws) {
  STD_TORCH_CHECK(prediction.is_contiguous() && prediction.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the prediction must be contiguous, in bool");
  STD_TORCH_CHECK(
      !allowed || (allowed->is_contiguous() && allowed->scalar_type() == ScalarType::Bool),
      "pixelkernels: what is allowed must be contiguous, in bool");
  STD_TORCH_CHECK(!draws || (draws->is_contiguous() && draws->scalar_type() == ScalarType::Long),
                  "pixelkernels: the draws must be contiguous, in int64");
  constexpr int64_t kIgnored = -1;
  const int64_t images = target.size(0), height = target.size(1), width = target.size(2);
  const int64_t pixels = pixels_at_a_time(images, height * width);
  Tensor kinds = output(target, {pixels}, ScalarType::Byte);
  Tensor rows = output(target, {pixels + kAnchorStep}, ScalarType::Short);
  Tensor depth = output(target, {images, 2}, ScalarType::Int);
  Tensor index = output(target, {images, 2}, ScalarType::Long);
  with_label(label_of(target), [&](auto like) {
    const Masks<decltype(like)> problem{data<uint8_t>(prediction),
                                        data<decltype(like)>(target),
                                        allowed ? data<uint8_t>(*allowed) : nullptr,
                                        images,
                                        height,
                                        width,
                                        kIgnored,
                                        draws ? data<int64_t>(*draws) : nullptr,
                                        data<uint8_t>(kinds),
                                        data<int16_t>(rows)};
    deepest_errors(problem, data<int32_t>(depth), data<int64_t>(index), threads);
  });
  return {depth, index};
}

Tensor pick_pixels(Tensor allowed, Tensor seeds, Tensor farthest, int64_t count,
                   int64_t squared_spacing) {
  STD_TORCH_CHECK(allowed.is_contiguous() && allowed.scalar_type() == ScalarType::Bool &&
                      farthest.is_contiguous() && farthest.scalar_type() == ScalarType::Bool,
                  "pixelkernels: what is allowed and farthest must be contiguous, in bool");
  STD_TORCH_CHECK(seeds.is_contiguous() && seeds.scalar_type() == ScalarType::Long,
                  "pixelkernels: the seeds must be contiguous, in int64");
  const int axes = static_cast<int>(allowed.dim()) - 1;
  const int64_t images = allowed.size(0), depth = axes == 3 ? allowed.size(1) : 1;
  const int64_t height = allowed.size(axes - 1), width = allowed.size(axes);
  Tensor left = output_like(allowed);
  Tensor ranks = output(allowed, allowed.sizes(), ScalarType::Int);
  Tensor points = output(allowed, {images, count, axes}, ScalarType::Long);
  std::copy_n(data<uint8_t>(allowed), allowed.numel(), data<uint8_t>(left));
  Picks problem{data<uint8_t>(left),
                data<int64_t>(seeds),
                data<uint8_t>(farthest),
                data<int32_t>(ranks),
                depth,
                height,
                width,
                count,
                static_cast<int32_t>(std::min<int64_t>(squared_spacing, INT32_MAX)),
                0,
                axes,
                data<int64_t>(points)};
  while (problem.reach < depth + height + width && problem.reach * problem.reach < squared_spacing)
    ++problem.reach;
  parallel(images, depth * height * width * (count + 1),
           [&](int64_t image) { kernels().pick(problem, image); });
  return points;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("click_maps", TORCH_BOX(&maps_of_clicks));
  m.impl("distance_transform", TORCH_BOX(&transform_of_mask));
  m.impl("label_distance", TORCH_BOX(&transform_of_labels));
  m.impl("nearest_true", TORCH_BOX(&nearest_of_mask));
  m.impl("expand_labels", TORCH_BOX(&expand_labels));
  m.impl("deepest_errors", TORCH_BOX(&errors_of_masks));
  m.impl("pick_pixels", TORCH_BOX(&pick_pixels));
}

}  // namespace pixelkernels::distance
