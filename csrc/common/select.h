// The choice of the instruction set, made once in a process. Torch-free.
#pragma once

#include "common/view.h"

namespace pixelkernels {

// The best instruction set that this machine has and PIXELKERNELS_CPU_CAPABILITY (baseline, avx2,
// avx512, amx) allows. With kAmx the kernels are those of avx512, which may multiply on its tiles.
enum class Capability { kBaseline, kAvx2, kAvx512, kAmx };
Capability cpu_capability();
inline bool has_matrix_tiles() { return cpu_capability() == Capability::kAmx; }
const char* cpu_capability_name();

// One `Kernels` for each element type, in the order of Element.
template <class Kernels>
struct PerElement {
  Kernels of[kElements];
  const Kernels& operator[](Element element) const { return of[static_cast<int>(element)]; }
};

}  // namespace pixelkernels

#define PK_DECLARE_KERNELS(isa, Type) \
  namespace isa {                     \
  extern const Type kKernels;         \
  }

// For the namespace of a family: declares the `kKernels` that simd/kernels.cpp defines for each
// instruction set, and kernels(), which returns those of the chosen one.
#if defined(__x86_64__)
#define PK_SELECT_KERNELS(Type)                                           \
  PK_DECLARE_KERNELS(baseline, Type)                                      \
  PK_DECLARE_KERNELS(avx2, Type)                                          \
  PK_DECLARE_KERNELS(avx512, Type)                                        \
  inline const Type& kernels() {                                          \
    if (cpu_capability() >= Capability::kAvx512) return avx512::kKernels; \
    if (cpu_capability() == Capability::kAvx2) return avx2::kKernels;     \
    return baseline::kKernels;                                            \
  }
#else
#define PK_SELECT_KERNELS(Type)      \
  PK_DECLARE_KERNELS(baseline, Type) \
  inline const Type& kernels() { return baseline::kKernels; }
#endif
