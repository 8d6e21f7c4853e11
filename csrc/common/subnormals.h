// Subnormal numbers, on which arithmetic can be a hundred times slower, count as 0. Torch-free.
#pragma once

#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace pixelkernels {

// Sets the calling thread's floating-point mode: subnormal operands and results are 0, as with
// torch.set_flush_denormal. The end of its scope restores the mode.
class SubnormalsAsZero {
#if defined(__x86_64__)
  typedef uint32_t Mode;
  static constexpr Mode kAsZero = 0x8040;  // results, operands
  static Mode mode() { return _mm_getcsr(); }
  static void set(Mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
  typedef uint64_t Mode;
  static constexpr Mode kAsZero = uint64_t{1} << 24;
  static Mode mode() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(Mode mode) { asm volatile("msr fpcr, %0" ::"r"(mode)); }
#else
  typedef uint32_t Mode;
  static constexpr Mode kAsZero = 0;
  static Mode mode() { return 0; }
  static void set(Mode) {}
#endif

 public:
  SubnormalsAsZero() : before_(mode()) {
    if (!outermost_) outermost_ = this;
    set(before_ | kAsZero);
  }
  ~SubnormalsAsZero() {
    set(before_);
    if (outermost_ == this) outermost_ = nullptr;
  }
  SubnormalsAsZero(const SubnormalsAsZero&) = delete;
  SubnormalsAsZero& operator=(const SubnormalsAsZero&) = delete;

  // In its scope the calling thread has the mode from before all SubnormalsAsZero.
  class Lifted {
   public:
    Lifted() : before_(mode()) {
      if (outermost_) set(outermost_->before_);
    }
    ~Lifted() { set(before_); }
    Lifted(const Lifted&) = delete;
    Lifted& operator=(const Lifted&) = delete;

   private:
    Mode before_;
  };

 private:
  static inline thread_local const SubnormalsAsZero* outermost_ = nullptr;

  Mode before_;
};

}  // namespace pixelkernels
