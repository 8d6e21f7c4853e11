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

py::array maps_of_arrays(Array<float> points, Array<int64_t> labels, int64_t height, int64_t width,
                         int64_t encoding, double radius, double truncate) {
  const int64_t images = points.shape(0), clicks = points.shape(1);
  Array<float> maps({images, int64_t{2}, height, width});
  const float* from = points.data();
  const int64_t* kinds = labels.data();
  float* out = maps.mutable_data();
  {
    py::gil_scoped_release released;
    const SubnormalsAsZero mode;
    click_maps(from, kinds, images, clicks, height, width, encoding, radius, truncate, out, alone);
  }
  return maps;
}

py::array transform_of_array(Array<bool> mask, bool squared, double row_spacing,
                             double column_spacing) {
  const int64_t images = mask.shape(0), height = mask.shape(1), width = mask.shape(2);
  const std::vector<int64_t> shape{images, height, width};
  py::array distance = squared ? py::array(Array<int32_t>(shape)) : py::array(Array<float>(shape));
  const bool* from = mask.data();
  void* out = distance.mutable_data();
  {
    py::gil_scoped_release released;
    distance_transform(from, images, height, width, squared, row_spacing, column_spacing, false,
                       out, alone);
  }
  return distance;
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
  const Masks<L> problem{reinterpret_cast<const uint8_t*>(prediction.data()),
                         target.data(),
                         allowed ? reinterpret_cast<const uint8_t*>(allowed->data()) : nullptr,
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
  m.def("deepest_errors", &errors_of_arrays<uint8_t>);
  m.def("deepest_errors", &errors_of_arrays<int8_t>);
  m.def("deepest_errors", &errors_of_arrays<int16_t>);
  m.def("deepest_errors", &errors_of_arrays<int32_t>);
  m.def("deepest_errors", &errors_of_arrays<int64_t>);
}

}  // namespace pixelkernels::distance
