#include "degree_linear_kernels.h"
#include "common/vector.h"

// Compiled with TDN_KERNELS (name of the instruction set) and TDN_VECTOR_BYTES.
//
// Small matrix products whose rows lie apart, in tiles of M rows and B vectors of columns that
// stay in registers. Matrices are so small that nothing else matters.

namespace tdn {
namespace {

constexpr int tile_rows = 6;
constexpr int tile_vectors = TDN_VECTOR_BYTES == 64 ? 4 : 2;

// Columns [0, B V) of M rows: out[r] = sum_c x[r][c] w[c].
template <typename T, int M, int B>
TDN_INLINE void forward_tile(const T *const *x, const T *w, int64_t channels, int64_t stride,
                             T *const *out, int64_t columns)
{
  constexpr int V = width<T>;
  Vector<T, V> total[M][B] = {};
  for (int64_t c = 0; c < channels; ++c) {
    Vector<T, V> weight[B];
    for (int b = 0; b < B; ++b) weight[b] = load<T, V>(w + c * stride + b * V);
    for (int r = 0; r < M; ++r)
      for (int b = 0; b < B; ++b) total[r][b] += x[r][c] * weight[b];
  }
  for (int r = 0; r < M; ++r)
    for (int b = 0; b < B; ++b) {
      if ((b + 1) * V <= columns) {
        store<T, V>(out[r] + b * V, total[r][b]);
      } else {
        for (int64_t c = b * V; c < columns; ++c) out[r][c] = total[r][b][c - b * V];
      }
    }
}

template <typename T, int M>
void forward_rows(const DegreeLinearArguments<T> &a, const T *const *rows, const T *w,
                  T *const *out)
{
  constexpr int V = width<T>;
  for (int64_t first = 0; first < a.channels_out;) {
    const T *x[M];
    T *y[M];
    for (int r = 0; r < M; ++r) {
      x[r] = rows[r];
      y[r] = out[r] + first;
    }
    const int64_t left = a.channels_out - first;
    if (left > (tile_vectors - 1) * V) {
      forward_tile<T, M, tile_vectors>(x, w + first, a.channels_in, a.stride, y, left);
      first += tile_vectors * V;
    } else if (tile_vectors > 2 && left > V) {
      forward_tile<T, M, 2>(x, w + first, a.channels_in, a.stride, y, left);
      first += 2 * V;
    } else {
      forward_tile<T, M, 1>(x, w + first, a.channels_in, a.stride, y, left);
      first += V;
    }
  }
}

template <typename T>
void forward(const DegreeLinearArguments<T> &a, int64_t begin, int64_t end)
{
  const int64_t components = a.degrees * a.degrees;
  for (int64_t l = 0; l < a.degrees; ++l) {
    const T *const w = a.w + l * a.channels_in * a.stride;
    const T *x[tile_rows];
    T *out[tile_rows];
    int count = 0;
    for (int64_t n = begin; n < end; ++n)
      for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k) {
        x[count] = a.x + (n * components + k) * a.channels_in;
        out[count] = a.out + (n * components + k) * a.channels_out;
        if (++count == tile_rows) {
          forward_rows<T, tile_rows>(a, x, w, out);
          count = 0;
        }
      }
    for (int r = 0; r < count; ++r) forward_rows<T, 1>(a, x + r, w, out + r);
  }
}

template <typename T> TDN_INLINE Vector<T, width<T>> load_part(const T *p, int64_t count)
{
  constexpr int V = width<T>;
  if (count >= V) return load<T, V>(p);
  T values[V] = {};
  for (int64_t c = 0; c < count; ++c) values[c] = p[c];
  return load<T, V>(values);
}

// Rows [c, c + M) and columns of B vectors of the matrix of one degree.
template <typename T, int M, int B>
TDN_INLINE void weight_tile(const DegreeLinearArguments<T> &a, int64_t l, int64_t c, int64_t first)
{
  constexpr int V = width<T>;
  const int64_t components = a.degrees * a.degrees;
  Vector<T, V> total[M][B] = {};
  for (int64_t n = 0; n < a.num_nodes; ++n)
    for (int64_t k = l * l; k < (l + 1) * (l + 1); ++k) {
      const T *const x = a.x + (n * components + k) * a.channels_in + c;
      const T *const y = a.y + (n * components + k) * a.channels_out + first;
      Vector<T, V> row[B];
      for (int b = 0; b < B; ++b) row[b] = load_part(y + b * V, a.channels_out - first - b * V);
      for (int r = 0; r < M; ++r)
        for (int b = 0; b < B; ++b) total[r][b] += x[r] * row[b];
    }
  for (int r = 0; r < M; ++r) {
    T *const out = a.out + (l * a.channels_in + c + r) * a.stride + first;
    for (int b = 0; b < B; ++b) {
      const int64_t columns = a.channels_out - first - b * V;
      if (a.add) total[r][b] += load_part(out + b * V, columns);
      if (columns >= V) {
        store<T, V>(out + b * V, total[r][b]);
      } else {
        for (int64_t i = 0; i < columns; ++i) out[b * V + i] = total[r][b][i];
      }
    }
  }
}

template <typename T, int M>
void weight_rows(const DegreeLinearArguments<T> &a, int64_t l, int64_t c)
{
  constexpr int V = width<T>;
  for (int64_t first = 0; first < a.channels_out;) {
    const int64_t left = a.channels_out - first;
    if (left > (tile_vectors - 1) * V) {
      weight_tile<T, M, tile_vectors>(a, l, c, first);
      first += tile_vectors * V;
    } else if (tile_vectors > 2 && left > V) {
      weight_tile<T, M, 2>(a, l, c, first);
      first += 2 * V;
    } else {
      weight_tile<T, M, 1>(a, l, c, first);
      first += V;
    }
  }
}

template <typename T> void weight(const DegreeLinearArguments<T> &a, int64_t begin, int64_t end)
{
  for (int64_t row = begin; row < end;) {
    const int64_t l = row / a.channels_in, c = row % a.channels_in;
    const int64_t left = end - row < a.channels_in - c ? end - row : a.channels_in - c;
    if (left >= tile_rows) {
      weight_rows<T, tile_rows>(a, l, c);
      row += tile_rows;
    } else if (left >= 4) {
      weight_rows<T, 4>(a, l, c);
      row += 4;
    } else if (left >= 2) {
      weight_rows<T, 2>(a, l, c);
      row += 2;
    } else {
      weight_rows<T, 1>(a, l, c);
      row += 1;
    }
  }
}

}    // namespace

#define TDN_TABLE_(x) degree_linear_##x
#define TDN_TABLE(x) TDN_TABLE_(x)

extern const DegreeLinearTable TDN_TABLE(TDN_KERNELS);
const DegreeLinearTable TDN_TABLE(TDN_KERNELS) = {
    {width<float>, forward<float>, weight<float>}, {width<double>, forward<double>, weight<double>}};

}    // namespace tdn
