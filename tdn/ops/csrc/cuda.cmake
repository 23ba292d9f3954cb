# Kernels for NVIDIA GPUs, included by CMakeLists.txt where TDN_CUDA is on.
#
# CMAKE_CUDA_COMPILER names nvcc, TDN_CUDA_ARCHITECTURES what to compile for, in the form of
# CMAKE_CUDA_ARCHITECTURES: 90, "80-real;90", native (this machine's GPUs; CMake 3.24 or newer).
set(TDN_CUDA_ARCHITECTURES native CACHE STRING "GPU architectures")
set(CMAKE_CUDA_ARCHITECTURES ${TDN_CUDA_ARCHITECTURES})
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
find_library(TORCH_C10_CUDA_LIBRARY c10_cuda PATHS ${TDN_TORCH_DIR}/lib NO_DEFAULT_PATH)
find_library(TORCH_CUDA_LIBRARY torch_cuda PATHS ${TDN_TORCH_DIR}/lib NO_DEFAULT_PATH)
if(NOT TORCH_C10_CUDA_LIBRARY OR NOT TORCH_CUDA_LIBRARY)
  message(FATAL_ERROR "the PyTorch in TDN_TORCH_DIR='${TDN_TORCH_DIR}' was built without CUDA")
endif()

# Kernels know nothing of PyTorch, whose headers nvcc would take minutes to read.
add_library(tdn_cuda_kernels OBJECT
  convolution/convolution_cuda_kernels.cu
  cp_message/cp_message_cuda_kernels.cu
  edge_matrix/edge_matrix_cuda_kernels.cu
  gate/gate_cuda_kernels.cu
  node_product/node_product_cuda_kernels.cu
  node_product/node_product_cuda_weights.cu
  pairs/pair_cuda_density.cu
  pairs/pair_cuda_kernels.cu
  pairs/pair_cuda_nodes.cu
  pairs/pair_cuda_search.cu)
# As pair_search.cpp.
set_source_files_properties(pairs/pair_cuda_search.cu PROPERTIES COMPILE_OPTIONS -fmad=false)
target_compile_features(tdn_cuda_kernels PRIVATE cuda_std_17)
target_include_directories(tdn_cuda_kernels PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_options(tdn_cuda_kernels PRIVATE -Xcompiler=-Wall)
set_target_properties(tdn_cuda_kernels PROPERTIES
  POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)

target_sources(tdn_ops PRIVATE
  convolution/convolution_cuda.cpp
  cp_message/cp_message_cuda.cpp
  edge_matrix/edge_matrix_cuda.cpp
  exchange/exchange_cuda.cpp
  gate/gate_cuda.cpp
  node_product/node_product_cuda.cpp
  pairs/pair_cuda_layers.cpp
  pairs/pair_search_cuda.cpp
  pairs/pairs_cuda.cpp
  pairs/repulsion_cuda.cpp
  $<TARGET_OBJECTS:tdn_cuda_kernels>)
target_compile_definitions(tdn_ops PRIVATE TDN_CUDA)
target_link_libraries(tdn_ops PRIVATE ${TORCH_C10_CUDA_LIBRARY} ${TORCH_CUDA_LIBRARY}
  CUDA::cudart_static)
set_target_properties(tdn_ops PROPERTIES
  LINKER_LANGUAGE CXX CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
