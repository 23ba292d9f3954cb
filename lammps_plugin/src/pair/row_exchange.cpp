/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): communication between ranks.

   The model asks for the features of ghost atoms between its layers, and in the backward pass gives
   back their derivatives. Both travel as rows of the nodes with LAMMPS's forward and reverse
   communication of ghost atoms. Every rank takes part, whatever it holds.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "model/tdn_model.h"

#include "atom.h"
#include "comm.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

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
  bigint most_ghosts;
  MPI_Allreduce(&num_received, &most_ghosts, 1, MPI_LMP_BIGINT, MPI_MAX, world);
  if (comm->me != 0) return;
  const double megabytes =
      1e-6 * static_cast<double>(most_ghosts * (counted.forward_bytes + counted.reverse_bytes));
  utils::logmesg(lmp,
                 "TDN communication per step: {} forward exchange(s) with {} bytes per ghost atom, "
                 "{} reverse with {} bytes; at most {} ghosts of other ranks and {:.3f} MB per "
                 "rank\n",
                 counted.num_forward, counted.forward_bytes, counted.num_reverse,
                 counted.reverse_bytes, most_ghosts, megabytes);
}

/* ----------------------------------------------------------------------
   ghosts learn whose images they are. Images of local atoms are those; of each atom of another rank
   the first image, which took the shortest way, stands for all.
------------------------------------------------------------------------- */

void PairTDN::number_ghosts()
{
  const int nlocal = atom->nlocal;
  const int nall = nlocal + atom->nghost;
  const auto me = static_cast<int64_t>(comm->me);

  if (owners.size() < static_cast<size_t>(nall)) owners.resize(nall + nall / 10);
  for (int i = 0; i < nlocal; i++)
    owners[i] = node_of_atom[i] < 0 ? -1 : me << 32 | node_of_atom[i];
  self_lists.clear();
  self_ghosts.clear();
  num_received = 0;
  rows.numbering = true;
  comm->forward_comm(this, 2);
  rows.numbering = false;

  ghost_atoms.clear();
  std::unordered_map<int64_t, int> node_of_owner;
  for (int i = nlocal; i < nall; i++) {
    if (owners[i] < 0) continue;
    if (owners[i] >> 32 == me) {
      node_of_atom[i] = static_cast<int>(owners[i] & 0xffffffff);
      continue;
    }
    const int next = num_local + static_cast<int>(ghost_atoms.size());
    const auto [entry, is_new] = node_of_owner.emplace(owners[i], next);
    node_of_atom[i] = entry->second;
    if (is_new) ghost_atoms.push_back(i);
  }
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
  int node = node_of_atom[i];
  if (node < 0) return nullptr;
  if (node >= num_local) node = ghost_node[node - num_local];
  char *const data = node < num_all ? rows.data + rows.stride * node
                                    : idle_rows.data() + rows.stride * (node - num_all);
  return data + rows.begin;
}

/* ----------------------------------------------------------------------
   row of a ghost that stands for an atom of another rank; null for further images, which share it
------------------------------------------------------------------------- */

char *PairTDN::ghost_row(int i)
{
  const int ghost = node_of_atom[i] - num_local;
  return ghost >= 0 && ghost_atoms[ghost] == i ? row_of(i) : nullptr;
}

/* ---------------------------------------------------------------------- */

int PairTDN::pack_forward_comm(int n, int *atoms, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  if (rows.numbering) {
    for (int k = 0; k < n; k++) {
      buf[2 * k] = ubuf(owners[atoms[k]]).d;
      buf[2 * k + 1] = ubuf(comm->me).d;
    }
    last_list = atoms;
    return 2 * n;
  }
  if (n > 0 && self_lists.count(atoms)) return 0;
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
    for (int k = 0; k < n; k++) owners[first + k] = ubuf(buf[2 * k]).i;
    if (n == 0) return;
    if (ubuf(buf[1]).i == comm->me) {
      // a rank's message to itself is the one that it has just packed
      self_lists.insert(last_list);
      self_ghosts.insert(first);
    } else {
      num_received += n;
    }
    return;
  }
  if (n > 0 && self_ghosts.count(first)) return;
  for (int k = 0; k < n; k++) {
    char *const row = ghost_row(first + k);
    if (row) memcpy(row, buf + static_cast<size_t>(rows.values) * k, rows.bytes);
  }
}

/* ---------------------------------------------------------------------- */

int PairTDN::pack_reverse_comm(int n, int first, double *buf)
{
  if (n > 0 && self_ghosts.count(first)) return 0;
  for (int k = 0; k < n; k++) {
    double *const out = buf + static_cast<size_t>(rows.values) * k;
    const char *const row = ghost_row(first + k);
    if (row)
      memcpy(out, row, rows.bytes);
    else
      memset(out, 0, rows.bytes);    // what an atom has is sent once
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
  if (n > 0 && self_lists.count(atoms)) return;
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
