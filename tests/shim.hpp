// Stand-ins for what Metal and CUDA offer a kernel, so that its text compiles as C++ and its threads run in a loop.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#define __global__

using std::sqrt; // also of a float, as Metal's and CUDA's

struct uint3 {
  uint32_t x, y, z;
};

using half = _Float16;
using float16_t = _Float16;
using __half = _Float16;

struct bfloat16_t {
  uint16_t bits;

  explicit bfloat16_t(float value) { // round to nearest, ties to even, as both languages do
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    bits = std::isnan(value) ? 0x7fc0 : (word + 0x7fff + (word >> 16 & 1)) >> 16;
  }

  operator float() const {
    const uint32_t word = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }
};

using bfloat = bfloat16_t;
using __nv_bfloat16 = bfloat16_t;

// One of the kernel's arrays, as Python gives it: `accesses` counts.
struct Array {
  void* elements;
  int64_t size;
  int64_t accesses;
};

// What the kernel sees instead of a pointer: every access is checked.
template <typename T>
class Pointer {
 public:
  Pointer() = default;
  Pointer(Array& array) : array(&array) {}

  Pointer<std::remove_const_t<T>> writable() const { return *array; }

  T& operator[](int64_t i) const {
    if (!array || i < 0 || i >= array->size) throw std::out_of_range("an element that the array does not have");
    ++array->accesses;
    return static_cast<T*>(array->elements)[i];
  }

 private:
  Array* array = nullptr;
};

// Where the running thread is, in Metal's words and in CUDA's.
inline uint3 thread_position_in_threadgroup, threadgroup_position_in_grid, threadgroups_per_grid;
inline uint3 threadIdx, blockIdx, blockDim, gridDim;

inline void place(uint32_t thread, uint32_t threads, uint32_t group) {
  thread_position_in_threadgroup = threadIdx = {thread % group, 0, 0};
  threadgroup_position_in_grid = blockIdx = {thread / group, 0, 0};
  blockDim = {group, 1, 1};
  threadgroups_per_grid = gridDim = {(threads + group - 1) / group, 1, 1};
}
