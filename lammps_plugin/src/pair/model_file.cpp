/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Pair style tdn for LAMMPS (https://www.lammps.org/): the model file of pair_coeff.
------------------------------------------------------------------------- */

#include "model_file.h"

#include "first_failure.h"
#include "resources.h"

#include "model/cache.h"
#include "model/printable.h"

#include "comm.h"
#include "error.h"

#include <algorithm>
#include <exception>
#include <numeric>

using namespace LAMMPS_NS;

/* ---------------------------------------------------------------------- */

void ModelFile::load(const std::string &name, const Resources &resources)
{
  path_ = utils::get_potential_file_path(name);
  fail_together(path_.empty() ? "the model file " + name +
                        " was not found in the current folder or in LAMMPS_POTENTIALS"
                              : "");
  const int threads = resources.threads_per_rank();
  const int node_rank = resources.rank_on_node();
  std::string failure;
  try {
    if (threads > 0) tdn::TDNModel::set_num_threads(threads);
    model_.reset();
    model_ = tdn::open_model(path_, device, node_rank, check);
    find_isolated_energies();
  } catch (const std::exception &e) {
    failure = e.what();
  }
  fail_together(failure);
  require_consent();
  if (comm->me != 0) return;
  if (metadata().direct_forces)
    error->warning(FLERR,
                   "Pair style tdn: the forces of {} are not the gradient of its energy: energy is "
                   "not conserved, and pressure and virial are not available (thermo output shows "
                   "nan; leave press out of thermo_style)",
                   path_);
  log();
}

/* ---------------------------------------------------------------------- */

void ModelFile::find_isolated_energies()
{
  const auto count = static_cast<int64_t>(metadata().species.size());
  std::vector<int64_t> species(count), no_edges(2);
  std::iota(species.begin(), species.end(), 0);
  const double no_vector = 0.0;
  const tdn::Graph graph{species.data(), count, count, no_edges.data(), &no_vector, 0};
  const double *const energies = model_->evaluate(graph, nullptr).atom_energy;
  isolated_energies_.assign(energies, energies + count);
}

/* ---------------------------------------------------------------------- */

void ModelFile::fail_together(const std::string &message)
{
  const Failure first = first_failure(world, message);
  if (first.rank >= 0) error->all(FLERR, "Pair style tdn: " + first.message);
}

/* ---------------------------------------------------------------------- */

void ModelFile::require_consent() const
{
  if (metadata().direct_forces && !direct)
    error->all(FLERR,
               "Pair style tdn: the forces of {} are not the gradient of its energy, so energy is "
               "not conserved and there is no pressure; export a model with model.forces = "
               "gradient, or accept this with: pair_style tdn direct yes",
               path_);
}

/* ---------------------------------------------------------------------- */

void ModelFile::check_keywords() const
{
  const bool there = device == "auto" || device == model_->device() ||
      (device == "cuda" && model_->gpu_index() >= 0);
  if (!there)
    error->all(FLERR,
               "Pair style tdn: device {} was asked for after {} was read, which is on {}; give "
               "pair_coeff again, after pair_style",
               device, path_, model_->device());
  require_consent();
}

/* ---------------------------------------------------------------------- */

void ModelFile::log() const
{
  const tdn::Metadata &about = metadata();
  const std::string committee =
      about.committee > 1 ? fmt::format("committee of {}, ", about.committee) : "";
  utils::logmesg(lmp,
                 "TDN model {}: {}{}, {} layers, cutoff {} A, {}, species {}, written by tdn {}\n"
                 "  running on {} with {} thread(s) per rank; reference structure {}; energies {}\n",
                 path_, committee, about.architecture, about.num_layers, about.r_max, about.dtype,
                 species_list(), about.tdn_version, model_->device(),
                 tdn::TDNModel::num_threads(), check ? "reproduced" : "not checked",
                 keep_e0 ? "with those of isolated atoms" : "relative to isolated atoms");
}

/* ---------------------------------------------------------------------- */

int ModelFile::species_index(const std::string &element, int type) const
{
  const auto &species = metadata().species;
  const auto found = std::find(species.begin(), species.end(), element);
  if (found == species.end())
    error->all(FLERR, "Pair style tdn: element {} of atom type {} is not in {}, which knows: {}",
               element, type, path_, species_list());
  return static_cast<int>(found - species.begin());
}

/* ---------------------------------------------------------------------- */

std::string ModelFile::species_list() const
{
  std::vector<std::string> symbols;
  for (const auto &symbol : metadata().species) symbols.push_back(tdn::printable(symbol));
  return utils::join_words(symbols, " ");
}
