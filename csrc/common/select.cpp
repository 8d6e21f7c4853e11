#include "common/select.h"

#include <cstdlib>
#include <cstring>
#if defined(PK_SPLIT_PRODUCTS) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pixelkernels {
namespace {

// AMX for bfloat16. A process must ask the system for the state of its tiles.
bool has_amx() {
#if defined(PK_SPLIT_PRODUCTS) && defined(__linux__)
  constexpr long kAskForState = 0x1023, kTiles = 18;
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1) &&
         syscall(SYS_arch_prctl, kAskForState, kTiles) == 0;
#else
  return false;
#endif
}

Capability detect() {
#if defined(__x86_64__)
  const char* asked = std::getenv("PIXELKERNELS_CPU_CAPABILITY");
  if (asked && std::strcmp(asked, "baseline") == 0) return Capability::kBaseline;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const auto allows = [&](const char* name) { return !asked || std::strcmp(asked, name) == 0; };
  if (avx2 && avx512 && allows("amx") && has_amx()) return Capability::kAmx;
  if (avx2 && avx512 && (allows("avx512") || allows("amx"))) return Capability::kAvx512;
  if (avx2) return Capability::kAvx2;
#endif
  return Capability::kBaseline;
}

}  // namespace

Capability cpu_capability() {
  static const Capability capability = detect();
  return capability;
}

const char* cpu_capability_name() {
  switch (cpu_capability()) {
    case Capability::kAmx:
      return "amx";
    case Capability::kAvx512:
      return "avx512";
    case Capability::kAvx2:
      return "avx2";
    case Capability::kBaseline:
      return "baseline";
  }
  return "";
}

}  // namespace pixelkernels
