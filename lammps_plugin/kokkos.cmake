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
# separable_compilation: Kokkos leaves it to us what nvcc compiles
find_package(Kokkos CONFIG REQUIRED COMPONENTS separable_compilation
  PATHS ${kokkos_folders} NO_DEFAULT_PATH)
if(Kokkos_DEVICES MATCHES "HIP|SYCL|OPENMPTARGET|OPENACC")
  message(FATAL_ERROR "pair_style tdn/kk is for the CPU backends of Kokkos and for CUDA, found "
    "${Kokkos_DEVICES}; build without it and use pair_style tdn")
endif()

string(TOUPPER "${built_KOKKOS_PREC}" precision)
string(TOUPPER "${built_KOKKOS_LAYOUT}" layout)
if(NOT precision STREQUAL DOUBLE)
  message(FATAL_ERROR "pair_style tdn/kk: found KOKKOS_PREC=${built_KOKKOS_PREC}, expected double")
endif()

# Kokkos itself, like the functions of LAMMPS, comes from the program that loads the plugin: only
# what its headers need is taken here
add_library(kokkos_sources OBJECT src/kokkos/graph_kokkos.cpp src/kokkos/pair_tdn_kokkos.cpp
  src/kokkos/row_exchange_kokkos.cpp)
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

# nvcc compiles what has kernels, the compiler of the host everything else
if(Kokkos_DEVICES MATCHES CUDA)
  find_package(CUDAToolkit REQUIRED)
  find_library(TORCH_C10_CUDA_LIBRARY c10_cuda PATHS ${TDN_TORCH_DIR}/lib NO_DEFAULT_PATH)
  if(NOT TORCH_C10_CUDA_LIBRARY)
    message(FATAL_ERROR "the PyTorch in TDN_TORCH_DIR='${TDN_TORCH_DIR}' was built without CUDA, "
      "which the Kokkos in ${Kokkos_DIR} has")
  endif()
  set(kokkos_bin ${LAMMPS_INCLUDE_DIR}/../lib/kokkos/bin ${Kokkos_DIR}/../../../bin)
  find_program(TDN_NVCC_WRAPPER nvcc_wrapper HINTS ${kokkos_bin})
  find_program(TDN_KOKKOS_LAUNCHER kokkos_launch_compiler HINTS ${kokkos_bin})
  if(NOT TDN_NVCC_WRAPPER OR NOT TDN_KOKKOS_LAUNCHER)
    message(FATAL_ERROR "no nvcc_wrapper and kokkos_launch_compiler of Kokkos in ${kokkos_bin}; "
      "set TDN_NVCC_WRAPPER and TDN_KOKKOS_LAUNCHER")
  endif()
  if(NOT CMAKE_CXX_COMPILER MATCHES nvcc_wrapper)
    set_target_properties(kokkos_sources PROPERTIES
      RULE_LAUNCH_COMPILE "${TDN_KOKKOS_LAUNCHER} ${TDN_NVCC_WRAPPER} ${CMAKE_CXX_COMPILER}")
  endif()

  add_library(stream_scope OBJECT src/model/stream_scope.cpp)
  target_compile_features(stream_scope PRIVATE cxx_std_20)
  target_include_directories(stream_scope PRIVATE src)
  target_link_libraries(stream_scope PRIVATE torch::libtorch CUDA::toolkit)
  target_sources(pair_tdn_kokkos PRIVATE $<TARGET_OBJECTS:stream_scope>)
  target_link_libraries(pair_tdn_kokkos PRIVATE ${TORCH_C10_CUDA_LIBRARY} CUDA::cudart)
  list(APPEND targets stream_scope)
endif()
