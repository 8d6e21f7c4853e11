// The CPU side of the distance operators.
#include "distance/distance_host.h"

namespace pixelkernels {
namespace {

const auto threads = [](int64_t n, int64_t work, const auto& body) { parallel(n, work, body); };

Tensor click_maps(Tensor points, Tensor labels, int64_t height, int64_t width, int64_t encoding,
                  double radius, double truncate) {
  STD_TORCH_CHECK(points.is_contiguous() && points.scalar_type() == ScalarType::Float,
                  "pixelkernels: points must be contiguous, in float32");
  STD_TORCH_CHECK(labels.is_contiguous() && labels.scalar_type() == ScalarType::Long,
                  "pixelkernels: labels must be contiguous, in int64");
  Tensor maps = output(points, {points.size(0), 2, height, width}, ScalarType::Float);
  const ClickMaps problem{data<float>(points),
                          data<int64_t>(labels),
                          points.size(1),
                          height,
                          width,
                          static_cast<Encoding>(encoding),
                          static_cast<float>(radius),
                          static_cast<float>(truncate),
                          data<float>(maps)};
  run(problem, points.size(0), threads);
  return maps;
}

Tensor distance_transform(Tensor mask, bool squared, double row_spacing, double column_spacing,
                          bool border) {
  STD_TORCH_CHECK(mask.is_contiguous() && mask.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the mask must be contiguous, in bool");
  const int64_t images = mask.size(0), height = mask.size(1), width = mask.size(2);
  Tensor distance =
      output(mask, {images, height, width}, squared ? ScalarType::Int : ScalarType::Float);
  Transform problem{};
  problem.mask = data<uint8_t>(mask);
  problem.height = height;
  problem.width = width;
  problem.row_spacing = static_cast<float>(row_spacing);
  problem.column_spacing = static_cast<float>(column_spacing);
  problem.squared = squared;
  problem.border = border;
  problem.out = data(distance);
  run(problem, images, threads);
  return distance;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("click_maps", TORCH_BOX(&click_maps));
  m.impl("distance_transform", TORCH_BOX(&distance_transform));
}

}  // namespace pixelkernels
