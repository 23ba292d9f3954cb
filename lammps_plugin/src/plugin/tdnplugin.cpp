/* ----------------------------------------------------------------------
   SPDX-License-Identifier: GPL-2.0-only

   Registers pair style tdn with LAMMPS (https://www.lammps.org/).

   LAMMPS loads this small library at every start. A second one, which needs PyTorch, is loaded
   when an input script asks for pair style tdn. Thus other runs start as fast as before, and a
   missing or changed PyTorch ends in an error message that says what to do. A third one, which
   needs KOKKOS as well, has pair style tdn/kk.
------------------------------------------------------------------------- */

#include "lammpsplugin.h"

#include "../model/printable.h"
#include "../pair/first_failure.h"

#include "comm.h"
#include "error.h"
#include "lammps.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <fstream>
#include <link.h>
#include <mpi.h>
#include <string>
#include <unistd.h>

using namespace LAMMPS_NS;

// seconds; a script in Python may keep one rank busy while the others reach the same command
#ifndef TDN_PATIENCE
#define TDN_PATIENCE 300
#endif

static const char REBUILD[] = "; run: tdn-lammps build";

/* ----------------------------------------------------------------------
   folder of this library
------------------------------------------------------------------------- */

static std::string own_folder()
{
  Dl_info self;
  dladdr(reinterpret_cast<void *>(&lammpsplugin_init), &self);
  const std::string path = self.dli_fname;
  return path.substr(0, path.find_last_of('/') + 1);
}

/* ----------------------------------------------------------------------
   where something is that the build names by its full path, or in a wheel from this library on
------------------------------------------------------------------------- */

static std::string located(const std::string &path)
{
  return path[0] == '/' ? path : own_folder() + path;
}

/* ----------------------------------------------------------------------
   version of the PyTorch in the folder that the plugin was built for, empty if there is none
------------------------------------------------------------------------- */

static std::string installed_torch()
{
  std::string line;
  std::ifstream python_package(located(TDN_TORCH_DIR) + "/version.py");
  while (std::getline(python_package, line)) {
    if (line.compare(0, 11, "__version__") != 0) continue;
    const auto begin = line.find_first_of("'\"") + 1;
    return line.substr(begin, line.find_first_of("'\"", begin) - begin);
  }
  std::ifstream libtorch(located(TDN_TORCH_DIR) + "/build-version");
  std::getline(libtorch, line);
  return line;
}

/* ----------------------------------------------------------------------
   why a library is incomplete, empty if it is complete: loading half a file ends the process
   without a message. Linkers write the table of sections last.
------------------------------------------------------------------------- */

static std::string damage(const std::string &path)
{
  std::ifstream file(path, std::ios::binary);
  if (!file) return "there is no " + path;
  ElfW(Ehdr) header;
  file.read(reinterpret_cast<char *>(&header), sizeof(header));
  const bool is_elf = file && std::string(header.e_ident, header.e_ident + SELFMAG) == ELFMAG;
  file.clear();
  file.seekg(0, std::ios::end);
  const auto size = static_cast<unsigned long long>(file.tellg());
  if (!is_elf || size < header.e_shoff + 1ULL * header.e_shentsize * header.e_shnum)
    return path + " is damaged or incomplete";
  return "";
}

/* ----------------------------------------------------------------------
   GCC has two kinds of strings, whose names differ: the one that is missed tells which is wanted
------------------------------------------------------------------------- */

static std::string other_abi(const std::string &reason)
{
  if (reason.find("undefined symbol: _ZN") == std::string::npos) return "";
  const bool wants_new = reason.find("__cxx11") != std::string::npos;
  if (!wants_new && reason.find("RKSs") == std::string::npos) return "";
  return std::string("the plugin was built with _GLIBCXX_USE_CXX11_ABI=") + (wants_new ? "1" : "0") +
      ", but PyTorch in " + located(TDN_TORCH_DIR) + " with " + (wants_new ? "0: " : "1: ");
}

/* ----------------------------------------------------------------------
   load the second library and find its factory function; on failure say why
------------------------------------------------------------------------- */

static lammpsplugin_factory1 *load_factory(const char *file, const char *name,
                                           std::string &failure)
{
  const std::string torch = installed_torch();
  if (torch != TDN_TORCH_VERSION) {
    failure = "the plugin was built for PyTorch " TDN_TORCH_VERSION ", but " +
        located(TDN_TORCH_DIR) + " has " + (torch.empty() ? "none" : tdn::printable(torch)) + REBUILD;
    return nullptr;
  }
  const std::string library = own_folder() + file;

  failure = damage(library);
  // the operators are taken from the same folder, otherwise from where they were at build time
  const std::string built = located(TDN_OPS_LIBRARY);
  const std::string moved = own_folder() + built.substr(built.find_last_of('/') + 1);
  const std::string &operators = std::ifstream(moved) ? moved : built;
  if (failure.empty()) failure = damage(operators);
  if (!failure.empty()) {
    failure = "cannot load the plugin: " + failure + REBUILD;
    return nullptr;
  }

  // PyTorch cannot be unloaded, so this library stays loaded
  void *handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  void *factory = handle ? dlsym(handle, name) : nullptr;
  if (!factory) {
    const char *message = dlerror();
    const std::string reason = message ? message : library;
    failure = "cannot load the plugin: " + other_abi(reason) + tdn::printable(reason, 400) + REBUILD;
  }
  return reinterpret_cast<lammpsplugin_factory1 *>(factory);
}

/* ----------------------------------------------------------------------
   a rank without this plugin does not know the style, and waits in that error for the others. They
   cannot know why it does not come here, so they wait for a limited time.
------------------------------------------------------------------------- */

static void meet_other_ranks(LAMMPS *lmp)
{
  MPI_Request all_here;
  MPI_Ibarrier(lmp->world, &all_here);
  const double start = MPI_Wtime();
  for (int done = 0; !done;) {
    MPI_Test(&all_here, &done, MPI_STATUS_IGNORE);
    if (!done && MPI_Wtime() - start > TDN_PATIENCE)
      lmp->error->one(FLERR,
                      "Pair style tdn: other ranks have not come here for {} s; the plugin may be "
                      "missing or damaged on their nodes; run there: tdn-lammps info",
                      TDN_PATIENCE);
    if (!done) usleep(100);
  }
}

/* ---------------------------------------------------------------------- */

static void *create(void *ptr, const char *file, const char *name)
{
  auto *lmp = static_cast<LAMMPS *>(ptr);
  meet_other_ranks(lmp);
  std::string failure;
  lammpsplugin_factory1 *factory = load_factory(file, name, failure);

  const Failure first = first_failure(lmp->world, failure);
  if (first.rank >= 0) {
    const std::string where = lmp->comm->nprocs > 1 ? fmt::format("on rank {}: ", first.rank) : "";
    lmp->error->all(FLERR, "Pair style tdn: " + where + first.message);
  }
  return factory(ptr);
}

static void *create_pair(void *ptr)
{
  return create(ptr, TDN_PAIR_LIBRARY, "tdn_create_pair");
}

#ifdef TDN_PAIR_KOKKOS_LIBRARY
static void *create_pair_kokkos(void *ptr)
{
  return create(ptr, TDN_PAIR_KOKKOS_LIBRARY, "tdn_create_pair_kokkos");
}

static void *create_pair_kokkos_host(void *ptr)
{
  return create(ptr, TDN_PAIR_KOKKOS_LIBRARY, "tdn_create_pair_kokkos_host");
}

/* ----------------------------------------------------------------------
   the same release may be there without KOKKOS, whose functions the library then lacks
------------------------------------------------------------------------- */

static bool has_kokkos()
{
  using package_function = int (*)(const char *);
  auto *package =
      reinterpret_cast<package_function>(dlsym(RTLD_DEFAULT, "lammps_config_has_package"));
  return package && package("KOKKOS");
}
#endif

/* ----------------------------------------------------------------------
   whether this is the first rank, without asking an MPI that may be another one
------------------------------------------------------------------------- */

static bool is_first_rank()
{
  for (const char *name : {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"})
    if (const char *rank = getenv(name)) return strcmp(rank, "0") == 0;
  return true;
}

/* ----------------------------------------------------------------------
   kinds of MPI differ in their handles; MPI_Get_library_version takes none, so it is safe to call
------------------------------------------------------------------------- */

static std::string other_mpi()
{
#if defined(OPEN_MPI)
  const std::string ours = "Open MPI";
#elif defined(MPI_STUBS)
  const std::string ours = "the MPI stubs of LAMMPS";
#else
  const std::string ours = "MPICH";
#endif
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length;
  MPI_Get_library_version(text, &length);
  const std::string version = text;
  const bool open_mpi = version.find("Open MPI") != std::string::npos;
  const bool stubs = version.find("STUBS") != std::string::npos;
  const std::string theirs = open_mpi ? "Open MPI" : stubs ? "the MPI stubs of LAMMPS" : "MPICH";
  if (theirs == ours) return "";
  return "the plugin was built with " + ours + ", this LAMMPS runs with " + theirs + " (" +
      tdn::printable(version.substr(0, version.find_first_of("\n,"))) +
      "); run: tdn-lammps build --lammps-source DIR with the mpicxx of that MPI first on PATH";
}

/* ----------------------------------------------------------------------
   why the plugin does not fit the LAMMPS that loads it, empty if it does. It asks through the C
   interface, since in another version the class may look different
------------------------------------------------------------------------- */

static std::string mismatch(void *ptr)
{
  const std::string mpi = other_mpi();
  if (!mpi.empty()) return mpi;

  using version_function = int (*)(void *);
  auto *version = reinterpret_cast<version_function>(dlsym(RTLD_DEFAULT, "lammps_version"));
  const int running = version ? version(ptr) : static_cast<LAMMPS *>(ptr)->num_ver;
  if (running != TDN_LAMMPS_VERSION)
    return fmt::format("the plugin was built for LAMMPS {}, this is LAMMPS {}{}",
                       TDN_LAMMPS_VERSION, running, REBUILD);

  using setting_function = int (*)(void *, const char *);
  auto *setting =
      reinterpret_cast<setting_function>(dlsym(RTLD_DEFAULT, "lammps_extract_setting"));
  const int bytes = setting ? setting(ptr, "tagint") : static_cast<int>(sizeof(tagint));
  if (bytes != static_cast<int>(sizeof(tagint)))
    return fmt::format("the plugin was built for atom IDs of {} bits, this LAMMPS has {}; run: "
                       "tdn-lammps build --lammps-source DIR{}",
                       8 * sizeof(tagint), 8 * bytes, bytes == 8 ? " --bigbig" : "");
  return "";
}

/* ---------------------------------------------------------------------- */

extern "C" void lammpsplugin_init(void *ptr, void *handle, void *regfunc)
{
  const std::string problem = mismatch(ptr);
  if (!problem.empty()) {
    if (is_first_rank())
      fprintf(stderr, "WARNING: pair style tdn is not available: %s\n", problem.c_str());
    return;
  }

  auto *lmp = static_cast<LAMMPS *>(ptr);
  lammpsplugin_t plugin;
  plugin.version = lmp->version;
  plugin.style = "pair";
  plugin.info = "pair style tdn (Tensor Decomposition Network)";
  plugin.author = "the TDN developers";
  plugin.handle = handle;
  const auto add = [&](const char *name, lammpsplugin_factory1 *creator) {
    plugin.name = name;
    plugin.creator.v1 = creator;
    reinterpret_cast<lammpsplugin_regfunc>(regfunc)(&plugin, ptr);
  };
  add("tdn", &create_pair);
#ifdef TDN_PAIR_KOKKOS_LIBRARY
  if (!has_kokkos()) return;
  add("tdn/kk", &create_pair_kokkos);
  add("tdn/kk/device", &create_pair_kokkos);
  add("tdn/kk/host", &create_pair_kokkos_host);
#endif
}
