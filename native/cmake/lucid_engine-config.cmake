# find_package(lucid_engine) defines lucid::lucid_engine: the library and its header. The library is
# C++, so a project in C that links it statically needs both languages: project(NAME LANGUAGES C CXX).
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include("${CMAKE_CURRENT_LIST_DIR}/lucid_engine-targets.cmake")
