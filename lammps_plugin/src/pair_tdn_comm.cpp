/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): communication between ranks.

   The model asks for the features of ghost atoms between its layers, and in the backward pass gives
   back their derivatives. Both travel as rows of the nodes with LAMMPS's forward and reverse
   communication of ghost atoms. Every rank takes part, whatever it holds.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "tdn_model.h"

#include "atom.h"
#include "comm.h"

#include <algorithm>
#include <cstring>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   carries features between ranks during the evaluation of the model, and counts
------------------------------------------------------------------------- */

class PairTDN::RowExchange : public tdn::Exchange {
 public:
  explicit RowExchange(PairTDN *pair) : pair(pair) {}

  int num_forward = 0, num_reverse = 0;
  int64_t forward_bytes = 0, reverse_bytes = 0;    // per ghost atom, in all

  void forward(void *data, int64_t, int64_t, int64_t width, bool is_double) override
  {
    num_forward++;
    forward_bytes += width * static_cast<int64_t>(is_double ? sizeof(double) : sizeof(float));
    pair->communicate_rows(data, width, is_double, true);
  }
  void reverse(void *data, int64_t, int64_t, int64_t width, bool is_double) override
  {
    num_reverse++;
    reverse_bytes += width * static_cast<int64_t>(is_double ? sizeof(double) : sizeof(float));
    pair->communicate_rows(data, width, is_double, false);
  }

 private:
  PairTDN *pair;
};

/* ---------------------------------------------------------------------- */

tdn::Evaluation PairTDN::evaluate()
{
  const tdn::Graph graph{node_species.data(), num_all,         num_local,
                         edge_index.data(),   edge_vec.data(), num_edges};
  if (comm_mode == CommMode::FOLD) return model->evaluate(graph, nullptr, deviation_flag);

  RowExchange transport(this);
  const tdn::Evaluation result = model->evaluate(graph, &transport, deviation_flag);
  if (report_exchanges) log_exchanges(transport);
  return result;
}

/* ----------------------------------------------------------------------
   what every step communicates for the model; an exchange counts once, however many messages
   its rows are cut into
------------------------------------------------------------------------- */

void PairTDN::log_exchanges(const RowExchange &counted)
{
  report_exchanges = false;
  const auto ghosts = static_cast<bigint>(ghost_atoms.size());
  bigint most_ghosts;
  MPI_Allreduce(&ghosts, &most_ghosts, 1, MPI_LMP_BIGINT, MPI_MAX, world);
  if (comm->me != 0) return;
  const double megabytes =
      1e-6 * static_cast<double>(most_ghosts * (counted.forward_bytes + counted.reverse_bytes));
  utils::logmesg(lmp,
                 "TDN communication per step: {} forward exchange(s) with {} bytes per ghost atom, "
                 "{} reverse with {} bytes; at most {} ghosts and {:.3f} MB per rank\n",
                 counted.num_forward, counted.forward_bytes, counted.num_reverse,
                 counted.reverse_bytes, most_ghosts, megabytes);
}

/* ----------------------------------------------------------------------
   bring rows of the nodes from owners to ghosts (forward), or add those of the ghosts to the
   owners (reverse); long rows go in several parts
------------------------------------------------------------------------- */

void PairTDN::communicate_rows(void *data, int64_t width, bool is_double, bool forward)
{
  const size_t stride = width * (is_double ? sizeof(double) : sizeof(float));
  const size_t part = sizeof(double) * (forward ? comm_forward : comm_reverse);

  // ghosts that are no nodes still take part: they stand between a rank and the next one
  const size_t num_idle = num_local + ghost_atoms.size() - num_all;
  idle_rows.resize(std::max(idle_rows.size(), num_idle * stride));
  if (!forward) std::fill_n(idle_rows.begin(), num_idle * stride, 0);
  for (size_t begin = 0; begin < stride; begin += part) {
    const size_t bytes = std::min(part, stride - begin);
    const int values = static_cast<int>((bytes + sizeof(double) - 1) / sizeof(double));
    rows = {false, static_cast<char *>(data), stride, begin, bytes, values, is_double};
    if (forward)
      comm->forward_comm(this, values);
    else
      comm->reverse_comm(this, values);
  }
}

/* ---------------------------------------------------------------------- */

char *PairTDN::row_of(int i)
{
  const int node = node_of_atom[i];
  if (node < 0) return nullptr;
  char *const data =
      node < num_all ? rows.data + rows.stride * node : idle_rows.data() + rows.stride * (node - num_all);
  return data + rows.begin;
}

/* ---------------------------------------------------------------------- */

int PairTDN::pack_forward_comm(int n, int *atoms, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  if (rows.numbering) {
    for (int k = 0; k < n; k++) buf[k] = ubuf(node_of_atom[atoms[k]]).d;
    return n;
  }
  for (int k = 0; k < n; k++) {
    const char *const row = row_of(atoms[k]);
    if (row) memcpy(buf + static_cast<size_t>(rows.values) * k, row, rows.bytes);
  }
  return n * rows.values;
}

/* ---------------------------------------------------------------------- */

void PairTDN::unpack_forward_comm(int n, int first, double *buf)
{
  if (rows.numbering) {
    for (int k = 0; k < n; k++) node_of_atom[first + k] = static_cast<int>(ubuf(buf[k]).i);
    return;
  }
  for (int k = 0; k < n; k++) {
    char *const row = row_of(first + k);
    if (row) memcpy(row, buf + static_cast<size_t>(rows.values) * k, rows.bytes);
  }
}

/* ---------------------------------------------------------------------- */

int PairTDN::pack_reverse_comm(int n, int first, double *buf)
{
  for (int k = 0; k < n; k++) {
    const char *const row = row_of(first + k);
    if (row) memcpy(buf + static_cast<size_t>(rows.values) * k, row, rows.bytes);
  }
  return n * rows.values;
}

/* ---------------------------------------------------------------------- */

template <typename T> static void add_values(char *row, const double *buf, size_t bytes)
{
  const auto *const in = reinterpret_cast<const char *>(buf);
  for (size_t offset = 0; offset < bytes; offset += sizeof(T)) {
    T sum, term;
    memcpy(&sum, row + offset, sizeof(T));
    memcpy(&term, in + offset, sizeof(T));
    sum += term;
    memcpy(row + offset, &sum, sizeof(T));
  }
}

void PairTDN::unpack_reverse_comm(int n, int *atoms, double *buf)
{
  for (int k = 0; k < n; k++) {
    char *const row = row_of(atoms[k]);
    const double *const in = buf + static_cast<size_t>(rows.values) * k;
    if (!row) continue;
    if (rows.is_double)
      add_values<double>(row, in, rows.bytes);
    else
      add_values<float>(row, in, rows.bytes);
  }
}
