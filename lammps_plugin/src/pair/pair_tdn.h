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

#include <vector>

namespace tdn {
struct Forces;
class TDNModel;
}    // namespace tdn

namespace LAMMPS_NS {

class EdgeGraph;
struct Neighbors;
class RowExchange;

class PairTDN : public Pair {
 public:
  /** `graph` becomes the property of the style, which has its own without it. `num_threads` are for
      operators on the CPU, 0 for the share of the cores of a rank. */
  explicit PairTDN(class LAMMPS *, EdgeGraph *graph = nullptr, int num_threads = 0);
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
  struct Parts;    // the model, the graph of a step and what works on them
  Parts *parts;

  // what tdn/kk has of its own

  virtual Neighbors neighbors() const;
  virtual double tally(tdn::Forces &);    // the sum of energies and forces

  // what it needs

  tdn::TDNModel &model();
  void exchange_with(RowExchange *);          // which becomes the property of the style
  double scale() const;                       // eV to the energy unit of this run
  std::vector<double> left_out_e0() const;    // of each species, eV

  void allocate();
  bool choose_list();
  void report_graphs();
  void report_not_finite();
  void evaluate();
  double tally_energies(const double *, const int64_t *);
  void tally_virials(const tdn::Forces &);
  void tally_forces(const double *);
  void tally_edges(const double *);
  void add_to_atoms(std::vector<double> &, int, double **);
};

}    // namespace LAMMPS_NS

#endif
#endif
