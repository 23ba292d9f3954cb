/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the work of every step.

   The model sees a graph. Its nodes are the local atoms that belong to this style and, with comm
   exchange, the ghost atoms; with comm fold (one rank) a ghost is the same node as its owner. Its
   edges are the pairs of the full neighbour list within the cutoff, sorted by centre.
------------------------------------------------------------------------- */

#include "pair_tdn.h"

#include "tdn_model.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "exceptions.h"
#include "force.h"
#include "neigh_list.h"
#include "neighbor.h"

#include <algorithm>
#include <cstring>
#include <exception>

using namespace LAMMPS_NS;

/* ----------------------------------------------------------------------
   carries features between ranks during the evaluation of the model
------------------------------------------------------------------------- */

class PairTDN::RowExchange : public tdn::Exchange {
 public:
  explicit RowExchange(PairTDN *pair) : pair(pair) {}

  void forward(void *data, int64_t, int64_t, int64_t width, bool is_double) override
  {
    pair->communicate_rows(data, width, is_double, true);
  }
  void reverse(void *data, int64_t, int64_t, int64_t width, bool is_double) override
  {
    pair->communicate_rows(data, width, is_double, false);
  }

 private:
  PairTDN *pair;
};

/* ---------------------------------------------------------------------- */

void PairTDN::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);

  // all ranks decide alike, since numbering the nodes communicates
  if (!nodes_valid || neighbor->ago == 0 || neighbor->ncalls != last_build) build_nodes();
  build_edges();

  const bool exchange = comm_mode == CommMode::EXCHANGE;
  if (exchange ? atom->natoms == 0 : num_local == 0) return;

  const tdn::Graph graph{node_species.data(), num_all,         num_local,
                         edge_index.data(),   edge_vec.data(), num_edges};
  RowExchange transport(this);
  try {
    tally(model->evaluate(graph, exchange ? &transport : nullptr));
  } catch (const LAMMPSException &) {
    throw;
  } catch (const std::exception &e) {
    error->one(FLERR, "Pair style tdn: {}", e.what());
  }
}

/* ----------------------------------------------------------------------
   number the nodes of the graph; needed after each build of the neighbour list
------------------------------------------------------------------------- */

void PairTDN::build_nodes()
{
  if (!nodes_valid) check_special_bonds();

  const int nlocal = atom->nlocal;
  const int nall = nlocal + atom->nghost;

  num_local = list->inum;
  node_of_atom.assign(nall, -1);
  atom_of_node.resize(num_local);
  int64_t max_edges = 0;
  for (int ii = 0; ii < num_local; ii++) {
    const int i = list->ilist[ii];
    node_of_atom[i] = ii;
    atom_of_node[ii] = i;
    max_edges += list->numneigh[i];
  }

  // ghosts learn the node of their owner, or that it has none
  rows.numbering = true;
  comm->forward_comm(this, 1);
  if (comm_mode == CommMode::EXCHANGE) {
    for (int i = nlocal; i < nall; i++) {
      if (node_of_atom[i] < 0) continue;
      node_of_atom[i] = static_cast<int>(atom_of_node.size());
      atom_of_node.push_back(i);
    }
  }
  num_all = static_cast<int>(atom_of_node.size());

  node_species.resize(std::max(num_all, 1));
  for (int node = 0; node < num_all; node++)
    node_species[node] = type2species[atom->type[atom_of_node[node]]];

  if (static_cast<int64_t>(neighbours.size()) < std::max<int64_t>(max_edges, 1)) {
    const auto capacity = static_cast<size_t>(1.1 * static_cast<double>(max_edges)) + 1;
    neighbours.resize(capacity);
    edge_index.resize(2 * capacity);
    edge_vec.resize(3 * capacity);
  }

  last_build = neighbor->ncalls;
  nodes_valid = true;
}

/* ----------------------------------------------------------------------
   edges of this step: pairs of the neighbour list within the cutoff
------------------------------------------------------------------------- */

void PairTDN::build_edges()
{
  const double *const *const x = atom->x;
  const double r_max = model->metadata().r_max;
  const double r_max_sq = r_max * r_max;

  int64_t count = 0;
  for (int ii = 0; ii < num_local; ii++) {
    const int i = atom_of_node[ii];
    const int *const jlist = list->firstneigh[i];
    const int jnum = list->numneigh[i];
    for (int jj = 0; jj < jnum; jj++) {
      const int j = jlist[jj] & NEIGHMASK;
      const double dx = x[j][0] - x[i][0];
      const double dy = x[j][1] - x[i][1];
      const double dz = x[j][2] - x[i][2];
      if (dx * dx + dy * dy + dz * dz >= r_max_sq || node_of_atom[j] < 0) continue;
      edge_index[count] = ii;
      neighbours[count] = node_of_atom[j];
      double *const vec = &edge_vec[3 * count];
      vec[0] = dx;
      vec[1] = dy;
      vec[2] = dz;
      count++;
    }
  }
  num_edges = count;
  std::copy_n(neighbours.data(), count, edge_index.data() + count);
}

/* ----------------------------------------------------------------------
   energies, forces f_i += g, f_j -= g, and virials -r (x) g of all edges

   Per-atom virial: half to each end. Centroid virial: all of it to the neighbour, which gives
   the heat flux of energies that belong to the centres.
------------------------------------------------------------------------- */

void PairTDN::tally(const tdn::Evaluation &result)
{
  if (eflag_global) {
    double energy = 0.0;
    for (int node = 0; node < num_local; node++) energy += result.atom_energy[node];
    eng_vdwl += scale * energy;
  }
  if (eflag_atom)
    for (int node = 0; node < num_local; node++)
      eatom[atom_of_node[node]] += scale * result.atom_energy[node];

  node_force.assign(3 * static_cast<size_t>(num_all), 0.0);
  if (vflag_atom) node_virial.assign(6 * static_cast<size_t>(num_all), 0.0);
  if (cvflag_atom) node_centroid.assign(9 * static_cast<size_t>(num_all), 0.0);

  const int64_t *const centres = edge_index.data();
  const int64_t *const senders = edge_index.data() + num_edges;
  for (int64_t e = 0; e < num_edges; e++) {
    const int64_t i = centres[e], j = senders[e];
    const double *const r = &edge_vec[3 * e];
    const double g[3] = {scale * result.edge_gradient[3 * e],
                         scale * result.edge_gradient[3 * e + 1],
                         scale * result.edge_gradient[3 * e + 2]};
    for (int a = 0; a < 3; a++) {
      node_force[3 * i + a] += g[a];
      node_force[3 * j + a] -= g[a];
    }
    if (!vflag_either) continue;

    // order of LAMMPS: xx yy zz xy xz yz; the sum is symmetric, single terms are not
    const double v[6] = {-r[0] * g[0],
                         -r[1] * g[1],
                         -r[2] * g[2],
                         -0.5 * (r[0] * g[1] + r[1] * g[0]),
                         -0.5 * (r[0] * g[2] + r[2] * g[0]),
                         -0.5 * (r[1] * g[2] + r[2] * g[1])};
    if (vflag_global)
      for (int k = 0; k < 6; k++) virial[k] += v[k];
    if (vflag_atom) {
      for (int k = 0; k < 6; k++) {
        node_virial[6 * i + k] += 0.5 * v[k];
        node_virial[6 * j + k] += 0.5 * v[k];
      }
    }
    if (cvflag_atom) {
      double *const c = &node_centroid[9 * j];    // xx yy zz xy xz yz yx zx zy
      c[0] -= r[0] * g[0];
      c[1] -= r[1] * g[1];
      c[2] -= r[2] * g[2];
      c[3] -= r[0] * g[1];
      c[4] -= r[0] * g[2];
      c[5] -= r[1] * g[2];
      c[6] -= r[1] * g[0];
      c[7] -= r[2] * g[0];
      c[8] -= r[2] * g[1];
    }
  }

  add_to_atoms(node_force, 3, atom->f);
  if (vflag_atom) add_to_atoms(node_virial, 6, vatom);
  if (cvflag_atom) add_to_atoms(node_centroid, 9, cvatom);
}

/* ----------------------------------------------------------------------
   add rows of the nodes to per-atom arrays; LAMMPS brings what ghosts have to their owners with
   newton on, otherwise it is done here
------------------------------------------------------------------------- */

void PairTDN::add_to_atoms(std::vector<double> &values, int width, double **array)
{
  int count = num_all;
  if (comm_mode == CommMode::EXCHANGE && !force->newton_pair) {
    communicate_rows(values.data(), width, true, false);
    count = num_local;
  }
  for (int node = 0; node < count; node++) {
    double *const out = array[atom_of_node[node]];
    const double *const in = &values[static_cast<size_t>(width) * node];
    for (int k = 0; k < width; k++) out[k] += in[k];
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

char *PairTDN::row_of(int i) const
{
  const int node = node_of_atom[i];
  return node < 0 ? nullptr : rows.data + rows.stride * node + rows.begin;
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

/* ----------------------------------------------------------------------
   special_bonds can remove bonded neighbours from the list; a model that never sees them would
   give wrong energies without a sign of it
------------------------------------------------------------------------- */

void PairTDN::check_special_bonds()
{
  bigint missing = 0;
  if (atom->molecular != Atom::ATOMIC && atom->nspecial && atom->special) {
    for (int ii = 0; ii < list->inum; ii++) {
      const int i = list->ilist[ii];
      int begin = 0;
      for (int kind = 1; kind <= 3; kind++) {
        const int end = atom->nspecial[i][kind - 1];
        for (int k = begin; k < end && neighbor->special_flag[kind] == 0; k++) {
          const int j = atom->map(atom->special[i][k]);
          if (j >= 0 && type2species[atom->type[j]] >= 0) missing++;
        }
        begin = std::max(begin, end);
      }
    }
  }
  bigint total;
  MPI_Allreduce(&missing, &total, 1, MPI_LMP_BIGINT, MPI_SUM, world);
  if (total > 0)
    error->all(FLERR,
               "Pair style tdn: special_bonds removes {} bonded neighbours that the model needs; "
               "use: special_bonds lj/coul 1.0 1.0 1.0",
               total);
}
