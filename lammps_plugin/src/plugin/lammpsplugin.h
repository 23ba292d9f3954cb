// SPDX-License-Identifier: MIT

/* The plain C interface between LAMMPS and a plugin, as the LAMMPS manual documents it. Declared
   here because packaged LAMMPS headers do not contain it. */

#ifndef TDN_LAMMPSPLUGIN_H
#define TDN_LAMMPSPLUGIN_H

extern "C" {

typedef void *(lammpsplugin_factory1)(void *);
typedef void *(lammpsplugin_factory2)(void *, int, char **);

struct lammpsplugin_t {
  const char *version;    // LAMMPS version that the plugin was compiled for
  const char *style;      // kind of style: "pair", "fix", ...
  const char *name;       // name of the style in input scripts
  const char *info;
  const char *author;
  union {
    lammpsplugin_factory1 *v1;    // styles made from the LAMMPS pointer alone, like pair styles
    lammpsplugin_factory2 *v2;    // styles made from the arguments of their command
  } creator;
  void *handle;    // of the shared library, for reference counting
};

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);

__attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle, void *regfunc);
}

#endif
