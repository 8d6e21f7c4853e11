// Workspaces of the host code, for one call.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace pixelkernels {

// Uninitialised memory, aligned to cache lines.
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(int64_t bytes)
      : bytes_(static_cast<char*>(::operator new(bytes + 1, std::align_val_t{64}))) {}
  template <class T = void>
  T* data() const {
    return reinterpret_cast<T*>(bytes_.get());
  }

 private:
  struct Delete {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Delete> bytes_;
};

}  // namespace pixelkernels
