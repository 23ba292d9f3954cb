/* -*- c++ -*- ----------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the model file of pair_coeff.
------------------------------------------------------------------------- */

#ifndef LMP_TDN_MODEL_FILE_H
#define LMP_TDN_MODEL_FILE_H

#include "model/tdn_model.h"

#include "pointers.h"

#include <memory>
#include <string>
#include <vector>

namespace LAMMPS_NS {

class ModelFile : protected Pointers {
 public:
  explicit ModelFile(LAMMPS *lmp) : Pointers(lmp) {}

  // keywords of pair_style

  std::string device = "auto";
  bool check = true;    // of the reference structure, and of results in every step
  bool keep_e0 = true;    // energies contain those of isolated atoms
  bool graphs = false;    // evaluations on a GPU are recorded and repeated
  bool direct = false;    // the user agrees to forces that are no gradient

  /// Read a file, on all ranks together; if one fails, all stop with its message.
  void load(const std::string &name, const class Resources &resources);

  /// Before each run: pair_style may have been given again since the file was read.
  void check_keywords() const;

  bool is_loaded() const { return model_ != nullptr; }
  tdn::TDNModel &model() const { return *model_; }
  const tdn::Metadata &metadata() const { return model_->metadata(); }
  const std::string &path() const { return path_; }

  /// Energy of an isolated atom of each species, in eV.
  const std::vector<double> &isolated_energies() const { return isolated_energies_; }

  /// Species index of an element; an error if the model does not have it.
  int species_index(const std::string &element, int type) const;

 private:
  std::string path_;
  std::shared_ptr<tdn::TDNModel> model_;
  std::vector<double> isolated_energies_;

  void find_isolated_energies();
  void fail_together(const std::string &message);
  void require_consent() const;
  void log() const;
  std::string species_list() const;
};

}    // namespace LAMMPS_NS

#endif
