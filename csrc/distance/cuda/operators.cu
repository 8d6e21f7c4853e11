// The CUDA side of the operators on distances.
#include <algorithm>

#include "common/cuda_host.h"
#include "distance/cuda/kernels.cuh"

namespace pixelkernels::distance::cuda {
namespace {

int side(int64_t length) {
  STD_TORCH_CHECK(length < kLongestSide,
                  "pixelkernels: the CUDA kernels take sides of less than 2^29 pixels");
  return static_cast<int>(length);
}

Tensor click_maps_on_device(Tensor points, Tensor labels, int64_t height, int64_t width,
                            int64_t encoding, double radius, double truncate) {
  const Call call(points);
  ClickMaps maps = {};
  maps.points = reinterpret_cast<const float2*>(data<float>(points));
  maps.labels = data<int64_t>(labels);
  maps.batch = points.size(0);
  maps.clicks = points.size(1);
  maps.height = side(height);
  maps.width = side(width);
  maps.encoding = static_cast<Encoding>(encoding);
  maps.parameter = click_parameter(maps.encoding, radius, truncate);
  Tensor out = call.output({maps.batch, 2, height, width});
  if (out.numel() > 0) click_maps(call.device, maps, data<float>(out));
  return out;
}

Tensor distance_transform(Tensor mask, bool squared, double row_spacing, double column_spacing,
                          bool border) {
  const Call call(mask);
  const int64_t height = mask.size(1), width = mask.size(2);
  const Masks masks = {data<uint8_t>(mask), mask.size(0), side(height), side(width), border};
  const bool exact =
      row_spacing == 1.0 && column_spacing == 1.0 && std::max(height, width) <= kLongestExactSide;
  STD_TORCH_CHECK(exact || !squared,
                  "pixelkernels: squared distances take a spacing of 1 and sides up to 32767");
  Tensor out =
      call.output({masks.images, height, width}, squared ? ScalarType::Int : ScalarType::Float);
  if (out.numel() == 0) return out;
  if (exact)
    exact_transform(call.device, masks, squared, data<uint32_t>(out));
  else
    scaled_transform(call.device, masks, row_spacing, column_spacing, data<uint32_t>(out));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CUDA, m) {
  m.impl("click_maps", TORCH_BOX(&click_maps_on_device));
  m.impl("distance_transform", TORCH_BOX(&distance_transform));
}

}  // namespace pixelkernels::distance::cuda
