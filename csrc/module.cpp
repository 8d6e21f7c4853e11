// The Python module pixelkernels._C. Importing it registers the CPU kernels; build_info() says how
// it was built, and the other functions take NumPy arrays.
#include <pybind11/pybind11.h>

#include "common/select.h"
#include "distance/cpu/numpy.h"

#define PK_TEXT_(x) #x
#define PK_TEXT(x) PK_TEXT_(x)

PYBIND11_MODULE(_C, m) {
  m.doc() = "CPU kernels of pixelkernels, through LibTorch's stable ABI";
  m.def(
      "build_info",
      [] {
        pybind11::dict info;
        info["version"] = PK_TEXT(PK_VERSION);
        info["compiler"] = __VERSION__;
        info["built_against_torch"] = PK_TEXT(PK_TORCH_VERSION);
        info["runs_from_torch"] = PK_TEXT(PK_TORCH_TARGET);
        info["cpu_capabilities"] = PK_TEXT(PK_CPU_CAPABILITIES);
        info["cpu_capability"] = pixelkernels::cpu_capability_name();
        info["cuda"] = PK_TEXT(PK_CUDA_VERSION);
        info["cuda_architectures"] = PK_TEXT(PK_CUDA_ARCHITECTURES);
        return info;
      },
      "How this installation was built, as strings.");
  pixelkernels::distance::bind(m);
}
