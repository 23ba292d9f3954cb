/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): all ranks learn why one has failed, so that
   they stop together.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_FIRST_FAILURE_H
#define LMP_TDN_FIRST_FAILURE_H

#include <mpi.h>
#include <string>

namespace LAMMPS_NS {

struct Failure {
  int rank;    // -1 if no rank has failed
  std::string message;
};

/// The first rank with a message, which it shares with all; collective.
inline Failure first_failure(MPI_Comm world, std::string message)
{
  int me, num_ranks, first;
  MPI_Comm_rank(world, &me);
  MPI_Comm_size(world, &num_ranks);
  const int mine = message.empty() ? num_ranks : me;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first == num_ranks) return {-1, ""};

  int length = static_cast<int>(message.size());
  MPI_Bcast(&length, 1, MPI_INT, first, world);
  message.resize(length);
  MPI_Bcast(&message[0], length, MPI_CHAR, first, world);
  return {first, message};
}

}    // namespace LAMMPS_NS

#endif
