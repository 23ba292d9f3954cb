# pair_style tdn/kk: how LAMMPS and its Kokkos were built is read from the folder of that build.
load_cache(${LAMMPS_KOKKOS_BUILD_DIR} READ_WITH_PREFIX built_
  PKG_KOKKOS KOKKOS_PREC KOKKOS_LAYOUT EXTERNAL_KOKKOS DOWNLOAD_KOKKOS Kokkos_DIR)
if(NOT built_PKG_KOKKOS)
  message(FATAL_ERROR "no LAMMPS with KOKKOS in LAMMPS_KOKKOS_BUILD_DIR='${LAMMPS_KOKKOS_BUILD_DIR}'")
endif()

if(built_EXTERNAL_KOKKOS)
  set(kokkos_folders ${built_Kokkos_DIR})
elseif(built_DOWNLOAD_KOKKOS)
  set(kokkos_folders ${LAMMPS_KOKKOS_BUILD_DIR}/kokkos_build-prefix/lib/cmake/Kokkos)
else()
  set(kokkos_folders ${LAMMPS_KOKKOS_BUILD_DIR}/cmake_packages/Kokkos)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)    # as Kokkos wants it
find_package(Kokkos CONFIG REQUIRED PATHS ${kokkos_folders} NO_DEFAULT_PATH)
if(Kokkos_DEVICES MATCHES "CUDA|HIP|SYCL|OPENMPTARGET|OPENACC")
  message(FATAL_ERROR "pair_style tdn/kk is for the CPU backends of Kokkos, found ${Kokkos_DEVICES}; "
    "build without it and use pair_style tdn, which runs its model on the GPU")
endif()

string(TOUPPER "${built_KOKKOS_PREC}" precision)
string(TOUPPER "${built_KOKKOS_LAYOUT}" layout)
if(NOT precision STREQUAL DOUBLE)
  message(FATAL_ERROR "pair_style tdn/kk: found KOKKOS_PREC=${built_KOKKOS_PREC}, expected double")
endif()

# Kokkos itself, like the functions of LAMMPS, comes from the program that loads the plugin: only
# what its headers need is taken here
add_library(kokkos_sources OBJECT src/kokkos/graph_kokkos.cpp src/kokkos/pair_tdn_kokkos.cpp)
target_include_directories(kokkos_sources PRIVATE src ${TDN_OPS_INCLUDE_DIR})
target_include_directories(kokkos_sources SYSTEM PRIVATE ${LAMMPS_INCLUDE_DIR}/KOKKOS)
target_compile_features(kokkos_sources PRIVATE cxx_std_20)
target_compile_definitions(kokkos_sources PRIVATE LMP_KOKKOS KOKKOS_DEPENDENCE
  LMP_KOKKOS_DOUBLE_DOUBLE LMP_KOKKOS_LAYOUT_${layout})
target_link_libraries(kokkos_sources PRIVATE LAMMPS::headers)
foreach(part kokkoscore kokkoscontainers kokkosalgorithms)
  foreach(property INCLUDE_DIRECTORIES COMPILE_DEFINITIONS COMPILE_OPTIONS)
    get_target_property(values Kokkos::${part} INTERFACE_${property})
    if(values AND property STREQUAL INCLUDE_DIRECTORIES)
      target_include_directories(kokkos_sources SYSTEM PRIVATE ${values})
    elseif(values)
      set_property(TARGET kokkos_sources APPEND PROPERTY ${property} ${values})
    endif()
  endforeach()
endforeach()
if(Kokkos_DEVICES MATCHES OPENMP)
  target_link_libraries(kokkos_sources PRIVATE OpenMP::OpenMP_CXX)
endif()

add_library(pair_tdn_kokkos MODULE $<TARGET_OBJECTS:pair_sources> $<TARGET_OBJECTS:kokkos_sources>)
list(APPEND targets kokkos_sources pair_tdn_kokkos)
list(APPEND pair_libraries pair_tdn_kokkos)
