# How a folder under src/ becomes a target, and how LibTorch comes in.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_LINK_DEPENDS_NO_SHARED ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
add_compile_options(
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wno-missing-field-initializers;-Winvalid-pch;-fno-math-errno>")
if(FATHOM_WERROR)
  add_compile_options(-Werror)
endif()
if(FATHOM_FUZZ)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")  # compiled longer than it runs
  set(fuzz_flags -fsanitize=address,undefined -fno-sanitize-recover=undefined)
  add_compile_options(${fuzz_flags} -fsanitize=fuzzer-no-link)
  add_link_options(${fuzz_flags})
endif()
find_program(FATHOM_MOLD mold)
if(FATHOM_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
find_program(FATHOM_CCACHE ccache)
if(FATHOM_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${FATHOM_CCACHE})
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
endif()

# LibTorch, not through find_package(Torch), which insists on the CUDA toolkit. Its include path comes last
# (-idirafter), since it ships headers of old protobuf and new fmt that would hide Debian's.
set(FATHOM_TORCH_DIR "${FATHOM_DEPS}/site/torch" CACHE PATH "LibTorch's folder")
if(NOT EXISTS "${FATHOM_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch is not in ${FATHOM_TORCH_DIR}: run ./dev setup")
endif()
add_library(fathom_torch INTERFACE)
target_compile_options(fathom_torch INTERFACE
  "SHELL:-idirafter ${FATHOM_TORCH_DIR}/include"
  "SHELL:-idirafter ${FATHOM_TORCH_DIR}/include/torch/csrc/api/include"
  "SHELL:-idirafter ${FATHOM_DEPS}/gloo/usr/include")
target_compile_definitions(fathom_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
target_link_options(fathom_torch INTERFACE -Wl,--allow-shlib-undefined)
target_link_libraries(fathom_torch INTERFACE
  ${FATHOM_TORCH_DIR}/lib/libtorch_cpu.so ${FATHOM_TORCH_DIR}/lib/libc10.so ${FATHOM_TORCH_DIR}/lib/libgomp.so.1)
set(FATHOM_TORCH_RPATH "${FATHOM_TORCH_DIR}/lib")
set(CMAKE_BUILD_RPATH "${FATHOM_TORCH_RPATH}")

# One precompiled header for every target that uses the full API; flags must be equal, so all come from here.
add_library(fathom_pch OBJECT "${CMAKE_SOURCE_DIR}/cmake/pch.cpp")
target_precompile_headers(fathom_pch PRIVATE <torch/torch.h>)
target_link_libraries(fathom_pch PUBLIC fathom_torch)

# Several sources a compilation, since a file's own text takes a tenth of the time that LibTorch's headers do.
# -DFATHOM_UNITY=OFF compiles each alone, and so shows an include that is missing.
function(fathom_unity target size)
  if(FATHOM_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${size})
  endif()
endfunction()

# fathom_folder(NAME ZONE plain|tensor|full [DEPENDS folder…] [LIBRARIES lib…])
# Makes the object library fathom_NAME from every .cpp under src/NAME. Zones: `plain` sees no LibTorch, `tensor`
# includes narrow headers only, `full` is compiled behind the precompiled header.
set_property(GLOBAL PROPERTY FATHOM_FOLDERS "")
function(fathom_folder name)
  cmake_parse_arguments(ARG "" "ZONE" "DEPENDS;LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/${name}/*.cpp")
  if(NOT sources)
    set(sources "${CMAKE_SOURCE_DIR}/cmake/library.cpp")
  endif()
  add_library(fathom_${name} OBJECT ${sources})
  fathom_unity(fathom_${name} 8)
  target_include_directories(fathom_${name} PUBLIC "${CMAKE_SOURCE_DIR}/src")
  foreach(dependency ${ARG_DEPENDS})
    target_link_libraries(fathom_${name} PUBLIC fathom_${dependency})
  endforeach()
  target_link_libraries(fathom_${name} PUBLIC ${ARG_LIBRARIES})
  if(ARG_ZONE STREQUAL "plain")
  elseif(ARG_ZONE STREQUAL "tensor")
    target_link_libraries(fathom_${name} PUBLIC fathom_torch)
  elseif(ARG_ZONE STREQUAL "full")
    target_link_libraries(fathom_${name} PUBLIC fathom_torch)
    target_precompile_headers(fathom_${name} REUSE_FROM fathom_pch)
  else()
    message(FATAL_ERROR "fathom_folder(${name}): unknown zone '${ARG_ZONE}'")
  endif()
  set(closure ${name})
  foreach(dependency ${ARG_DEPENDS})
    get_property(inherited GLOBAL PROPERTY FATHOM_CLOSURE_${dependency})
    list(APPEND closure ${inherited})
  endforeach()
  list(REMOVE_DUPLICATES closure)
  set_property(GLOBAL PROPERTY FATHOM_CLOSURE_${name} ${closure})
  set_property(GLOBAL APPEND PROPERTY FATHOM_FOLDERS ${name})
  set_property(GLOBAL PROPERTY FATHOM_ZONE_${name} ${ARG_ZONE})
endfunction()

# fathom_link_folders(TARGET folder…): puts the objects of these folders, and of all they depend on, into TARGET.
function(fathom_link_folders target)
  set(all "")
  foreach(folder ${ARGN})
    get_property(closure GLOBAL PROPERTY FATHOM_CLOSURE_${folder})
    list(APPEND all ${closure})
  endforeach()
  list(REMOVE_DUPLICATES all)
  foreach(folder ${all})
    target_link_libraries(${target} PRIVATE fathom_${folder})
  endforeach()
endfunction()
