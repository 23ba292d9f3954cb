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

template <int... I> struct Lanes {};
template <int N, int... I> struct MakeLanes : MakeLanes<N - 1, N - 1, I...> {};
template <int... I> struct MakeLanes<0, I...> { typedef Lanes<I...> type; };

// In each group of 2 H lanes: the halves of x added up, then the halves of y.
template <typename T, int V, int H, int... I>
TDN_INLINE Vector<T, V> fold(Vector<T, V> x, Vector<T, V> y, Lanes<I...>)
{
  const auto low = __builtin_shufflevector(x, y, (I % (2 * H) < H ? I : V + I - H)...);
  const auto high = __builtin_shufflevector(x, y, (I % (2 * H) < H ? I + H : V + I)...);
  return low + high;
}

// Lane i of the result is the sum of the elements of v[i]; destroys v[0..V).
template <typename T, int V, int H = V / 2> TDN_INLINE Vector<T, V> sums(Vector<T, V> *v)
{
  if constexpr (H == 0) {
    return v[0];
  } else {
    for (int i = 0; i < H; ++i)
      v[i] = fold<T, V, H>(v[i], v[i + H], typename MakeLanes<V>::type());
    return sums<T, V, H / 2>(v);
  }
}

}    // namespace
}    // namespace tdn

#endif
