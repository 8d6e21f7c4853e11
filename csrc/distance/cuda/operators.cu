// The CUDA side of the operators on distances.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "common/cuda_host.h"
#include "distance/cuda/kernels.cuh"

namespace pixelkernels::distance::cuda {
namespace {

int side(int64_t length) {
  STD_TORCH_CHECK(length < kLongestSide,
                  "pixelkernels: the CUDA kernels take sides of less than 2^29 pixels");
  return static_cast<int>(length);
}

Tensor click_maps_on_device(Tensor points, Tensor labels, int64_t depth, int64_t height,
                            int64_t width, int64_t encoding, double radius, double truncate) {
  const Call call(points);
  ClickMaps maps = {};
  maps.points = data<float>(points);
  maps.labels = data<int64_t>(labels);
  maps.batch = points.size(0);
  maps.clicks = points.size(1);
  maps.volumes = points.size(2) == 3;
  maps.depth = maps.volumes ? side(depth) : 1;
  maps.height = side(height);
  maps.width = side(width);
  maps.encoding = static_cast<Encoding>(encoding);
  maps.parameter = click_parameter(maps.encoding, radius, truncate);
  Tensor out = maps.volumes ? call.output({maps.batch, 2, depth, height, width})
                            : call.output({maps.batch, 2, height, width});
  if (out.numel() > 0) click_maps(call.device, maps, data<float>(out));
  return out;
}

Masks masks_of(const Tensor& mask, const uint8_t* data, bool border, bool labels = false) {
  STD_TORCH_CHECK(mask.dim() == 3 || mask.dim() == 4,
                  "pixelkernels: expected a mask of 3 or 4 dimensions");
  const int64_t axes = mask.dim() - 1;
  Masks masks = {};
  masks.data = data;
  masks.images = mask.size(0);
  masks.volumes = axes == 3;
  masks.depth = masks.volumes ? side(mask.size(1)) : 1;
  masks.height = side(mask.size(axes - 1));
  masks.width = side(mask.size(axes));
  masks.border = border;
  masks.labels = labels;
  return masks;
}

// Whether squared distances are computed as integers.
bool is_exact(const Masks& masks, const Spacing& spacing, bool squared) {
  const bool exact = (!masks.volumes || spacing.depth == 1.0) && spacing.row == 1.0 &&
                     spacing.column == 1.0 &&
                     std::max({masks.depth, masks.height, masks.width}) <=
                         (masks.volumes ? kLongestExactVolumeSide : kLongestExactSide);
  STD_TORCH_CHECK(exact || !squared,
                  "pixelkernels: squared distances take a spacing of 1 and sides up to 32767, of"
                  " volumes up to 26755");
  return exact;
}

// [N, *space], or [N, axes, *space].
Tensor output(const Call& call, const Masks& m, ScalarType type, bool per_axis = false) {
  if (m.volumes && per_axis) return call.output({m.images, 3, m.depth, m.height, m.width}, type);
  if (m.volumes) return call.output({m.images, m.depth, m.height, m.width}, type);
  if (per_axis) return call.output({m.images, 2, m.height, m.width}, type);
  return call.output({m.images, m.height, m.width}, type);
}

ScalarType distance_type(bool squared) { return squared ? ScalarType::Int : ScalarType::Float; }

Tensor transform(const Call& call, const Masks& masks, bool squared, const Spacing& spacing) {
  const bool exact = is_exact(masks, spacing, squared);
  Tensor out = output(call, masks, distance_type(squared));
  if (out.numel() == 0) return out;
  if (exact)
    exact_transform(call.device, masks, squared, data<uint32_t>(out));
  else
    scaled_transform(call.device, masks, spacing, data<uint32_t>(out));
  return out;
}

Tensor distance_transform(Tensor mask, bool squared, double depth_spacing, double row_spacing,
                          double column_spacing, bool border) {
  const Call call(mask);
  return transform(call, masks_of(mask, data<uint8_t>(mask), border), squared,
                   {depth_spacing, row_spacing, column_spacing});
}

Tensor label_distance(Tensor labels, bool squared, double depth_spacing, double row_spacing,
                      double column_spacing, bool border, bool background) {
  const Call call(labels);
  uint8_t* changes = call.device.workspace<uint8_t>(labels.numel());
  const Masks masks = masks_of(labels, changes, border, true);
  if (labels.numel() > 0)
    find_changes(call.device, labels.data_ptr(), label_of(labels), masks, background, changes);
  return transform(call, masks, squared, {depth_spacing, row_spacing, column_spacing});
}

std::tuple<Tensor, Tensor> nearest_true(Tensor mask, bool squared, double depth_spacing,
                                        double row_spacing, double column_spacing) {
  const Call call(mask);
  const Masks masks = masks_of(mask, data<uint8_t>(mask), false);
  const Spacing spacing = {depth_spacing, row_spacing, column_spacing};
  const bool exact = is_exact(masks, spacing, squared);
  Tensor distance = output(call, masks, distance_type(squared));
  Tensor indices = output(call, masks, ScalarType::Int, true);
  if (distance.numel() == 0) return {distance, indices};
  if (exact)
    exact_nearest(call.device, masks, squared, data<uint32_t>(distance), data<int>(indices));
  else
    scaled_nearest(call.device, masks, spacing, data<uint32_t>(distance), data<int>(indices));
  return {distance, indices};
}

Tensor expand_labels(Tensor labels, double limit, bool squared, double depth_spacing,
                     double row_spacing, double column_spacing) {
  const Call call(labels);
  Tensor expanded = torch::stable::empty_like(labels);
  if (labels.numel() == 0) return expanded;
  // the mask is needed before the result is written
  auto* mask = static_cast<uint8_t*>(expanded.data_ptr());
  const auto bytes = static_cast<int64_t>(labels.element_size());
  find_labelled(call.device, labels.data_ptr(), label_of(labels), labels.numel(), mask);
  const Masks masks = masks_of(labels, mask, false);
  const Spacing spacing = {depth_spacing, row_spacing, column_spacing};
  Expansion expansion = {labels.data_ptr(), bytes, 0, expanded.data_ptr()};
  if (squared) {
    expansion.limit = static_cast<unsigned>(limit);
  } else {
    const float distance = static_cast<float>(limit);
    std::memcpy(&expansion.limit, &distance, sizeof distance);
  }
  if (is_exact(masks, spacing, squared))
    exact_expansion(call.device, masks, squared, expansion);
  else
    scaled_expansion(call.device, masks, spacing, expansion);
  return expanded;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CUDA, m) {
  m.impl("click_maps", TORCH_BOX(&click_maps_on_device));
  m.impl("distance_transform", TORCH_BOX(&distance_transform));
  m.impl("expand_labels", TORCH_BOX(&expand_labels));
  m.impl("label_distance", TORCH_BOX(&label_distance));
  m.impl("nearest_true", TORCH_BOX(&nearest_true));
}

}  // namespace pixelkernels::distance::cuda
