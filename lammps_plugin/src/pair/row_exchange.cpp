/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): rows of node data between MPI ranks.
------------------------------------------------------------------------- */

#include "row_exchange.h"

#include "buffers.h"
#include "nodes.h"

#include "atom.h"
#include "comm.h"
#include "pair.h"

#include <algorithm>
#include <cstring>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

RowExchange::RowExchange(LAMMPS *lmp, Pair *pair, const Nodes &nodes) :
    Pointers(lmp), nodes(nodes), message{}, pair(pair), last_list(nullptr), counts{},
    num_received(0)
{
}

/* ----------------------------------------------------------------------
   LAMMPS before 2025 takes the number of values per atom from the pair style alone
------------------------------------------------------------------------- */

static void exchange_values(Comm *comm, Pair *pair, int values, bool is_forward)
{
  const int forward = pair->comm_forward, reverse = pair->comm_reverse;
  const int reverse_off = pair->comm_reverse_off;
  pair->comm_forward = pair->comm_reverse = pair->comm_reverse_off = values;
  if (is_forward)
    comm->forward_comm(pair);
  else
    comm->reverse_comm(pair);
  pair->comm_forward = forward;
  pair->comm_reverse = reverse;
  pair->comm_reverse_off = reverse_off;
}

/* ---------------------------------------------------------------------- */

const std::vector<int64_t> &RowExchange::find_owners()
{
  const auto me = static_cast<int64_t>(comm->me);
  enlarge(owners, atom->nlocal + atom->nghost);
  for (int i = 0; i < atom->nlocal; i++)
    owners[i] = nodes.slot_of(i) < 0 ? -1 : me << 32 | nodes.slot_of(i);
  self_lists.clear();
  self_ghosts.clear();
  num_received = 0;
  message.content = OWNERS;
  exchange_values(comm, pair, 2, true);
  message.content = ROWS;
  return owners;
}

/* ---------------------------------------------------------------------- */

static int64_t row_bytes(int64_t width, bool is_double)
{
  return width * static_cast<int64_t>(is_double ? sizeof(double) : sizeof(float));
}

void RowExchange::forward(void *x_all, int64_t, int64_t, int64_t width, bool is_double)
{
  counts.num_forward++;
  counts.forward_bytes += row_bytes(width, is_double);
  communicate(x_all, width, is_double, true);
}

void RowExchange::reverse(void *x_all, int64_t, int64_t, int64_t width, bool is_double)
{
  counts.num_reverse++;
  counts.reverse_bytes += row_bytes(width, is_double);
  communicate(x_all, width, is_double, false);
}

void RowExchange::add_to_owners(std::vector<double> &rows, int width)
{
  communicate(rows.data(), width, true, false);
}

/* ---------------------------------------------------------------------- */

void RowExchange::share_types(bool changed)
{
  const int mine = changed;
  int any;
  MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, world);
  if (!any) return;
  message.content = TYPES;
  exchange_values(comm, pair, 1, true);
}

/* ---------------------------------------------------------------------- */

void RowExchange::clear_counts()
{
  counts = {};
}

/* ----------------------------------------------------------------------
   an exchange counts once, even if its rows are cut into several messages
------------------------------------------------------------------------- */

void RowExchange::log_counts()
{
  bigint most_ghosts;
  MPI_Allreduce(&num_received, &most_ghosts, 1, MPI_LMP_BIGINT, MPI_MAX, world);
  if (comm->me != 0) return;
  const double megabytes =
      1e-6 * static_cast<double>(most_ghosts * (counts.forward_bytes + counts.reverse_bytes));
  utils::logmesg(lmp,
                 "TDN communication per step: {} forward exchange(s) with {} bytes per ghost atom, "
                 "{} reverse with {} bytes; at most {} ghosts of other ranks and {:.3f} MB per "
                 "rank\n",
                 counts.num_forward, counts.forward_bytes, counts.num_reverse,
                 counts.reverse_bytes, most_ghosts, megabytes);
}

/* ----------------------------------------------------------------------
   long rows go in several parts
------------------------------------------------------------------------- */

void RowExchange::communicate(void *data, int64_t width, bool is_double, bool is_forward)
{
  const auto stride = static_cast<size_t>(row_bytes(width, is_double));
  const size_t part = sizeof(double) * (is_forward ? pair->comm_forward : pair->comm_reverse);

  // ghosts without an edge still take part: further ranks get their rows through this one
  const size_t idle_bytes = nodes.num_idle() * stride;
  idle_rows.resize(std::max(idle_rows.size(), idle_bytes));
  if (!is_forward) std::fill_n(idle_rows.begin(), idle_bytes, 0);
  for (size_t begin = 0; begin < stride; begin += part) {
    const size_t bytes = std::min(part, stride - begin);
    const int values = static_cast<int>((bytes + sizeof(double) - 1) / sizeof(double));
    message = {ROWS, static_cast<char *>(data), stride, begin, bytes, values, is_double};
    exchange_values(comm, pair, values, is_forward);
  }
}

/* ---------------------------------------------------------------------- */

char *RowExchange::row_of(int atom)
{
  const int node = nodes.node_of(atom);
  if (node < 0) return nullptr;
  const int num_all = nodes.num_all();
  char *const row = node < num_all ? message.data + message.stride * node
                                   : idle_rows.data() + message.stride * (node - num_all);
  return row + message.begin;
}

/* ----------------------------------------------------------------------
   row of an image that stands for an atom of another rank; null for further images, which share it
------------------------------------------------------------------------- */

char *RowExchange::ghost_row(int atom)
{
  return nodes.is_ghost(atom) ? row_of(atom) : nullptr;
}

/* ---------------------------------------------------------------------- */

int RowExchange::pack_forward(int n, int *atoms, double *buf)
{
  if (message.content == TYPES) {
    for (int k = 0; k < n; k++) buf[k] = atom->type[atoms[k]];
    return n;
  }
  if (message.content == OWNERS) {
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
    if (row) memcpy(buf + static_cast<size_t>(message.values) * k, row, message.bytes);
  }
  return n * message.values;
}

/* ---------------------------------------------------------------------- */

void RowExchange::unpack_forward(int n, int first, double *buf)
{
  if (message.content == TYPES) {
    for (int k = 0; k < n; k++) atom->type[first + k] = static_cast<int>(buf[k]);
    return;
  }
  if (message.content == OWNERS) {
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
    if (row) memcpy(row, buf + static_cast<size_t>(message.values) * k, message.bytes);
  }
}

/* ---------------------------------------------------------------------- */

int RowExchange::pack_reverse(int n, int first, double *buf)
{
  if (n > 0 && self_ghosts.count(first)) return 0;
  for (int k = 0; k < n; k++) {
    double *const out = buf + static_cast<size_t>(message.values) * k;
    const char *const row = ghost_row(first + k);
    if (row)
      memcpy(out, row, message.bytes);
    else
      memset(out, 0, message.bytes);    // the row of an atom is sent once
  }
  return n * message.values;
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

void RowExchange::unpack_reverse(int n, int *atoms, double *buf)
{
  if (n > 0 && self_lists.count(atoms)) return;
  for (int k = 0; k < n; k++) {
    char *const row = row_of(atoms[k]);
    const double *const in = buf + static_cast<size_t>(message.values) * k;
    if (!row) continue;
    if (message.is_double)
      add_values<double>(row, in, message.bytes);
    else
      add_values<float>(row, in, message.bytes);
  }
}

/* ---------------------------------------------------------------------- */

double RowExchange::memory_usage() const
{
  return bytes_of(owners, idle_rows);
}
