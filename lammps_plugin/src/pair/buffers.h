/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): arrays that keep their memory between steps.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_BUFFERS_H
#define LMP_TDN_BUFFERS_H

#include <algorithm>
#include <cstdint>
#include <vector>

namespace LAMMPS_NS {

/// Make room for count values, with 10 percent to spare so that it happens rarely; never shrinks.
template <typename T> void enlarge(std::vector<T> &values, int64_t count)
{
  const auto needed = static_cast<size_t>(std::max<int64_t>(count, 1));
  if (values.size() >= needed) return;
  values = std::vector<T>();    // the old values are not needed and must not be copied
  values.resize(needed + needed / 10);
}

/// The same, with zeros.
inline void clear_rows(std::vector<double> &values, int64_t count)
{
  enlarge(values, count);
  std::fill_n(values.begin(), count, 0.0);
}

/// Bytes of several arrays.
template <typename... Arrays> double bytes_of(const Arrays &...arrays)
{
  return (0.0 + ... + static_cast<double>(sizeof(arrays[0]) * arrays.capacity()));
}

}    // namespace LAMMPS_NS

#endif
