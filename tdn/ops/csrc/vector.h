// Vectors of the compiler (GCC and Clang), for the kernels. Compiled once per instruction set with
// TDN_VECTOR_BYTES; everything is internal to the file that includes it, since code built with
// wide instructions must not be shared with files built without.

#ifndef TDN_VECTOR_H
#define TDN_VECTOR_H

#include <cstdint>

#define TDN_INLINE inline __attribute__((always_inline))

namespace tdn {
namespace {

template <typename T, int V> struct VectorOf {
  typedef T type __attribute__((vector_size(V * sizeof(T))));
};
template <typename T, int V> using Vector = typename VectorOf<T, V>::type;

// Elements of the widest vector.
template <typename T> constexpr int width = TDN_VECTOR_BYTES / sizeof(T);

template <typename T, int V> TDN_INLINE Vector<T, V> load(const T *p)
{
  Vector<T, V> v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

template <typename T, int V> TDN_INLINE void store(T *p, Vector<T, V> v)
{
  __builtin_memcpy(p, &v, sizeof(v));
}

// Sum of the elements, by halves.
template <typename T, int V> TDN_INLINE T sum(Vector<T, V> v)
{
  if constexpr (V == 1) {
    return v[0];
  } else {
    Vector<T, V / 2> low, high;
    __builtin_memcpy(&low, &v, sizeof(low));
    __builtin_memcpy(&high, reinterpret_cast<const char *>(&v) + sizeof(low), sizeof(high));
    return sum<T, V / 2>(low + high);
  }
}

}    // namespace
}    // namespace tdn

#endif
