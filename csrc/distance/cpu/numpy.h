#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace pixelkernels::distance {

// Adds the functions that pixelkernels.numpy calls.
void bind(pybind11::module_& m);

}  // namespace pixelkernels::distance
