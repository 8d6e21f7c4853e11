// The distance kernels on NumPy arrays, for data-loader workers: on the calling thread alone, with
// the GIL released.
#include "distance/distance_host.h"
#include "distance/distance_numpy.h"

namespace pixelkernels {
namespace {

namespace py = pybind11;
template <class T>
using Array = py::array_t<T, py::array::c_style>;

const auto alone = [](int64_t n, int64_t, const auto& body) {
  for (int64_t i = 0; i < n; ++i) body(i);
};

py::array click_maps(Array<float> points, Array<int64_t> labels, int64_t height, int64_t width,
                     int encoding, double radius, double truncate) {
  const int64_t batch = points.shape(0);
  Array<float> maps({batch, int64_t{2}, height, width});
  const ClickMaps problem{points.data(),
                          labels.data(),
                          points.shape(1),
                          height,
                          width,
                          static_cast<Encoding>(encoding),
                          static_cast<float>(radius),
                          static_cast<float>(truncate),
                          maps.mutable_data()};
  {
    py::gil_scoped_release released;
    run(problem, batch, alone);
  }
  return maps;
}

py::array distance_transform(Array<bool> mask, bool squared, double row_spacing,
                             double column_spacing, bool border) {
  const int64_t images = mask.shape(0), height = mask.shape(1), width = mask.shape(2);
  const std::vector<int64_t> shape{images, height, width};
  py::array distance = squared ? py::array(Array<int32_t>(shape)) : py::array(Array<float>(shape));
  Transform problem{};
  problem.mask = reinterpret_cast<const uint8_t*>(mask.data());
  problem.height = height;
  problem.width = width;
  problem.row_spacing = static_cast<float>(row_spacing);
  problem.column_spacing = static_cast<float>(column_spacing);
  problem.squared = squared;
  problem.border = border;
  problem.out = distance.mutable_data();
  {
    py::gil_scoped_release released;
    run(problem, images, alone);
  }
  return distance;
}

}  // namespace

void bind_distance(py::module_& m) {
  m.def("click_maps", &click_maps);
  m.def("distance_transform", &distance_transform);
}

}  // namespace pixelkernels
