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
}

namespace LAMMPS_NS {

struct Neighbors;
class RowExchange;

class PairTDN : public Pair {
 public:
  /// `num_threads` for operators on the CPU; 0 for the share of the cores of a rank.
  explicit PairTDN(class LAMMPS *, int num_threads = 0);
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

  // what tdn/kk has of its own, and what it needs
  virtual Neighbors neighbors() const;
  RowExchange &rows();
  const void *positions_of_model() const;    // where it read them last; null if it takes edges

  void allocate();
  void report_not_finite();
  void evaluate();
  double tally_energies(const double *);
  void tally_virials(const tdn::Forces &);
  void tally_forces(const double *);
  void tally_edges(const double *);
  void add_to_atoms(std::vector<double> &, int, double **);
};

}    // namespace LAMMPS_NS

#endif
#endif
