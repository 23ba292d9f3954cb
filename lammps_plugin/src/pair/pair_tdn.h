/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): compiled TDN models.
------------------------------------------------------------------------- */

#ifdef PAIR_CLASS
// clang-format off
PairStyle(tdn,PairTDN);
// clang-format on
#else

#ifndef LMP_PAIR_TDN_H
#define LMP_PAIR_TDN_H

#include "pair.h"

#include <memory>
#include <set>
#include <mpi.h>
#include <string>
#include <vector>

namespace tdn {
class TDNModel;
struct Evaluation;
}    // namespace tdn

namespace LAMMPS_NS {

class PairTDN : public Pair {
 public:
  PairTDN(class LAMMPS *);
  ~PairTDN() override;

  void compute(int, int) override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void *extract(const char *, int &) override;
  void *extract_peratom(const char *, int &) override;
  double memory_usage() override;

  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

 protected:
  enum class CommMode { AUTO, FOLD, EXCHANGE };

  // settings and model

  std::string device;
  CommMode comm_setting, comm_mode;
  bool check_reference;
  bool direct;                      // the user agrees to forces that are no gradient
  std::string model_path;
  std::shared_ptr<tdn::TDNModel> model;
  std::vector<int> type2species;    // species index of each atom type, -1 for NULL
  double scale;                     // eV to the energy unit of this run
  MPI_Comm sharers;                 // ranks of this node that use the same device
  double admitted_memory;           // bytes of the largest step of all sharers so far

  // nodes of the graph: local atoms of this style, then atoms of other ranks that have edges in
  // this step

  int num_local, num_all;
  std::vector<int> node_of_atom;     // of local atoms the node, of others num_local + their place in
                                     // ghost_atoms; images have those of their atom; -1 for none
  std::vector<int> atom_of_node;
  std::vector<int64_t> node_species;
  std::vector<int> ghost_atoms;      // of each atom of another rank the first of its images here
  std::vector<int> ghost_node;       // their nodes in this step; num_all and more without an edge
  std::vector<char> idle_rows;       // what is passed on of those
  std::vector<int64_t> owners;       // of each atom rank and node there, while nodes are numbered
  std::set<const int *> self_lists;  // lists of atoms whose images are on this rank, and the first
  std::set<int> self_ghosts;         // of these images: nothing has to be copied
  const int *last_list;              // of the message that was packed last
  bigint num_received;               // rows that other ranks send in a forward communication
  bigint last_build;                 // neighbor->ncalls when the nodes were numbered
  bool nodes_valid;

  // pairs of the neighbour list whose both atoms are nodes, sorted by centre

  std::vector<int64_t> pairs_begin;    // [num_local + 1] first pair of each centre
  std::vector<int> pair_atom, pair_node;

  // edges of the current step: pairs within the cutoff; the arrays keep their memory

  int64_t num_edges;
  std::vector<int64_t> edge_index;    // [2, num_edges]
  std::vector<double> edge_vec;       // [num_edges, 3]

  // what the edges add to the nodes

  std::vector<double> node_force, node_virial, node_centroid;

  // how far the networks of a committee disagree, on the steps where fix pair asks for it

  int deviation_flag;                     // set and reset by the fix
  bool deviation_valid;                   // the last step has computed it
  std::vector<double> member_force;       // [num_all, committee, 3]
  std::vector<double> force_deviation;    // of each local atom, 0 for those of other styles

  // rows of node data on their way between processes

  class RowExchange;
  struct Rows {
    bool numbering;            // the message has the numbers of the nodes instead of rows
    char *data;
    size_t stride;             // bytes of a row
    size_t begin, bytes;       // part of the row that is in this message
    int values;                // doubles in the message per atom
    bool is_double;
  } rows;
  bool report_exchanges;    // in the log, after the next evaluation

  void allocate();
  void load_model(const std::string &);
  int share_node(int &);
  void fail_together(const std::string &);
  void require_memory();
  void refuse_virial();
  void keep_special_neighbours();
  tdn::Evaluation evaluate();
  void log_exchanges(const RowExchange &);
  void build_nodes();
  void build_edges();
  void number_ghosts();
  void place_ghosts();
  void tally(const tdn::Evaluation &);
  void tally_edges(const double *);
  void require_committee();
  void clear_deviation();
  void tally_deviation(const double *);
  void add_member_forces(const double *);
  void add_to_atoms(std::vector<double> &, int, double **);
  void communicate_rows(void *, int64_t, bool, bool);
  char *row_of(int);
  char *ghost_row(int);
};

}    // namespace LAMMPS_NS

#endif
#endif
