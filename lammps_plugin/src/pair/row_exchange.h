/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): rows of node data between MPI ranks.

   The model asks for the features of ghosts between its layers, and in the backward pass gives back
   their derivatives. Both travel as rows of the nodes with LAMMPS's forward and reverse
   communication of ghost atoms. Every rank takes part, with or without atoms.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_ROW_EXCHANGE_H
#define LMP_TDN_ROW_EXCHANGE_H

#include "exchange/exchange.h"    // of the operator library

#include "pointers.h"

#include <cstdint>
#include <set>
#include <vector>

namespace LAMMPS_NS {

class Nodes;

class RowExchange : public tdn::Exchange, protected Pointers {
 public:
  RowExchange(LAMMPS *lmp, class Pair *pair, const Nodes &nodes);
  ~RowExchange() noexcept override {}    // that of Pointers may throw

  /** Tell all ranks the numbers of the local nodes. Of each atom and image here its rank times 2^32
      plus its node there, -1 for none; valid until the next call. */
  const std::vector<int64_t> &find_owners();

  // what the model calls: bring the rows of owners to ghosts, or add those of ghosts to the owners

  void forward(void *x_all, int64_t num_local, int64_t num_all, int64_t width,
               bool is_double) override;
  void reverse(void *x_all, int64_t num_local, int64_t num_all, int64_t width,
               bool is_double) override;

  /// The same for results; not counted as communication of the model.
  void add_to_owners(std::vector<double> &rows, int width);

  /** Bring the types of atoms to their images, if the caller of any rank has changed some since the
      last build of the neighbor list. */
  void share_types(bool changed);

  /// What is on its way: types, which LAMMPS's arrays then have, or rows of the model.
  bool carries_types() const { return message.content == TYPES; }
  bool carries_rows() const { return message.content == ROWS; }

  // what an evaluation communicates

  void clear_counts();
  void log_counts();

  // what LAMMPS calls in the pair style

  virtual int pack_forward(int n, int *atoms, double *buf);
  void unpack_forward(int n, int first, double *buf);
  int pack_reverse(int n, int first, double *buf);
  void unpack_reverse(int n, int *atoms, double *buf);

  virtual double memory_usage() const;

 protected:
  const Nodes &nodes;
  std::set<const int *> self_lists;  // lists of atoms whose images are on this rank, and the first
  std::set<int> self_ghosts;         // of these images: nothing has to be copied

  // the message that is on its way

  enum Content { OWNERS, TYPES, ROWS };
  struct {
    Content content;
    char *data;              // row of the first node
    size_t stride;           // bytes of a row
    size_t begin, bytes;     // part of the row that is in this message
    int values;              // doubles in the message per atom
    bool is_double;
  } message;

 private:
  Pair *pair;
  std::vector<int64_t> owners;
  const int *last_list;           // of the message that was packed last
  std::vector<char> idle_rows;    // rows of ghosts without an edge, which are passed on

  struct {
    int num_forward, num_reverse;
    int64_t forward_bytes, reverse_bytes;    // per ghost
  } counts;
  bigint num_received;    // rows that other ranks send in a forward communication

  void communicate(void *data, int64_t width, bool is_double, bool is_forward);
  char *row_of(int atom);
  char *ghost_row(int atom);
};

}    // namespace LAMMPS_NS

#endif
