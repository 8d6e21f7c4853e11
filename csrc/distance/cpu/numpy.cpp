// The distance kernels on NumPy arrays, for data-loader workers: on the calling thread, with the
// GIL released.
#include "distance/cpu/numpy.h"

#include "distance/cpu/problem.h"

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
    click_maps(from, kinds, images, clicks, height, width, encoding, radius, truncate, out, alone);
  }
  return maps;
}

py::array transform_of_array(Array<bool> mask, bool squared, double row_spacing,
                             double column_spacing, bool border) {
  const int64_t images = mask.shape(0), height = mask.shape(1), width = mask.shape(2);
  const std::vector<int64_t> shape{images, height, width};
  py::array distance = squared ? py::array(Array<int32_t>(shape)) : py::array(Array<float>(shape));
  const bool* from = mask.data();
  void* out = distance.mutable_data();
  {
    py::gil_scoped_release released;
    distance_transform(from, images, height, width, squared, row_spacing, column_spacing, border,
                       out, alone);
  }
  return distance;
}

}  // namespace

void bind(py::module_& m) {
  m.def("click_maps", &maps_of_arrays);
  m.def("distance_transform", &transform_of_array);
}

}  // namespace pixelkernels::distance
