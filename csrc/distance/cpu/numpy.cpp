// The distance kernels on NumPy arrays, for data-loader workers: on the calling thread, with the
// GIL released.
#include "distance/cpu/numpy.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "distance/cpu/errors.h"

namespace pixelkernels::distance {
namespace {

namespace py = pybind11;
template <class T>
using Array = py::array_t<T, py::array::c_style>;

const auto alone = [](int64_t n, int64_t, const auto& body) {
  for (int64_t i = 0; i < n; ++i) body(i);
};

py::array maps_of_arrays(Array<float> points, Array<int64_t> labels, int64_t depth, int64_t height,
                         int64_t width, int64_t encoding, double radius, double truncate) {
  const int axes = static_cast<int>(points.shape(2));
  const int64_t images = points.shape(0);
  std::vector<int64_t> shape{images, 2, height, width};
  if (axes == 3) shape.insert(shape.begin() + 2, depth);
  Array<float> maps(shape);
  const ClickMaps problem{points.data(),
                          labels.data(),
                          axes,
                          points.shape(1),
                          depth,
                          height,
                          width,
                          static_cast<Encoding>(encoding),
                          static_cast<float>(radius),
                          static_cast<float>(truncate),
                          maps.mutable_data()};
  {
    py::gil_scoped_release released;
    const SubnormalsAsZero mode;
    click_maps(problem, images, alone);
  }
  return maps;
}

const uint8_t* bytes_of(const Array<bool>& mask) {
  return reinterpret_cast<const uint8_t*>(mask.data());
}

// An array for the distances, int32 squares or float32.
py::array distances_of(const std::vector<int64_t>& shape, bool squared) {
  if (squared) return Array<int32_t>(shape);
  return Array<float>(shape);
}

py::array transform_of_array(Array<bool> mask, bool squared, double depth_spacing,
                             double row_spacing, double column_spacing, bool border) {
  const std::vector<int64_t> shape(mask.shape(), mask.shape() + mask.ndim());
  const Space space = space_of(bytes_of(mask), shape.data() + 1, mask.ndim() == 4);
  py::array distance = distances_of(shape, squared);
  void* out = distance.mutable_data();
  {
    py::gil_scoped_release released;
    distance_transform(space, shape[0], {depth_spacing, row_spacing, column_spacing}, squared,
                       border, false, out, alone);
  }
  return distance;
}

template <class L, Label type>
py::array transform_of_labels(Array<L> labels, bool squared, double depth_spacing,
                              double row_spacing, double column_spacing, bool border,
                              bool background) {
  const std::vector<int64_t> shape(labels.shape(), labels.shape() + labels.ndim());
  const std::unique_ptr<uint8_t[]> changes(new uint8_t[labels.size()]);
  const Space space = space_of(changes.get(), shape.data() + 1, labels.ndim() == 4);
  const Labels problem{labels.data(), type,       space.depth,  space.height,
                       space.width,   background, changes.get()};
  py::array distance = distances_of(shape, squared);
  void* out = distance.mutable_data();
  {
    py::gil_scoped_release released;
    label_distance(problem, space, shape[0], {depth_spacing, row_spacing, column_spacing}, squared,
                   border, out, alone);
  }
  return distance;
}

py::tuple nearest_of_array(Array<bool> mask, bool squared, double depth_spacing, double row_spacing,
                           double column_spacing) {
  std::vector<int64_t> shape(mask.shape(), mask.shape() + mask.ndim());
  const int64_t masks = shape[0];
  const Space space = space_of(bytes_of(mask), shape.data() + 1, mask.ndim() == 4);
  py::array distance = distances_of(shape, squared);
  shape.insert(shape.begin() + 1, space.volume ? 3 : 2);
  Array<int32_t> indices(shape);
  void* out = distance.mutable_data();
  int32_t* coordinates = indices.mutable_data();
  const std::unique_ptr<int64_t[]> words(has_wide_words(space) ? new int64_t[mask.size()]
                                                               : nullptr);
  {
    py::gil_scoped_release released;
    nearest_true(space, masks, {depth_spacing, row_spacing, column_spacing}, squared, false,
                 words.get(), out, coordinates, alone);
  }
  return py::make_tuple(distance, indices);
}

// The deepest false negative and false positive of each image: depth and index, [images, 2].
template <class L>
py::tuple errors_of_arrays(Array<bool> prediction, Array<L> target,
                           std::optional<Array<bool>> allowed, int64_t ignore_index) {
  const int64_t images = target.shape(0), height = target.shape(1), width = target.shape(2);
  Array<int32_t> depth({images, int64_t{2}});
  Array<int64_t> index({images, int64_t{2}});
  const int64_t pixels = pixels_at_a_time(images, height * width);
  const std::unique_ptr<uint8_t[]> kinds(new uint8_t[pixels]);
  const std::unique_ptr<int16_t[]> rows(new int16_t[pixels + kAnchorStep]);
  const Masks<L> problem{bytes_of(prediction),
                         target.data(),
                         allowed ? bytes_of(*allowed) : nullptr,
                         images,
                         height,
                         width,
                         ignore_index,
                         nullptr,
                         kinds.get(),
                         rows.get()};
  int32_t* depths = depth.mutable_data();
  int64_t* indices = index.mutable_data();
  {
    py::gil_scoped_release released;
    deepest_errors(problem, depths, indices, alone);
  }
  return py::make_tuple(depth, index);
}

}  // namespace

void bind(py::module_& m) {
  m.def("click_maps", &maps_of_arrays);
  m.def("distance_transform", &transform_of_array);
  m.def("label_distance", &transform_of_labels<uint8_t, Label::kUInt8>);
  m.def("label_distance", &transform_of_labels<int8_t, Label::kInt8>);
  m.def("label_distance", &transform_of_labels<int16_t, Label::kInt16>);
  m.def("label_distance", &transform_of_labels<int32_t, Label::kInt32>);
  m.def("label_distance", &transform_of_labels<int64_t, Label::kInt64>);
  m.def("nearest_true", &nearest_of_array);
  m.def("deepest_errors", &errors_of_arrays<uint8_t>);
  m.def("deepest_errors", &errors_of_arrays<int8_t>);
  m.def("deepest_errors", &errors_of_arrays<int16_t>);
  m.def("deepest_errors", &errors_of_arrays<int32_t>);
  m.def("deepest_errors", &errors_of_arrays<int64_t>);
}

}  // namespace pixelkernels::distance
