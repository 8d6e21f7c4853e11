#pragma once

#include <cuda_runtime.h>

struct __half {
  _Float16 value;
};
struct __half2 {
  __half x, y;
};
inline float __half2float(__half x) { return static_cast<float>(x.value); }
inline __half2 __floats2half2_rn(float a, float b) {
  return {{static_cast<_Float16>(a)}, {static_cast<_Float16>(b)}};
}
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
