# Metrics: the only part that knows prometheus-cpp.
find_package(prometheus-cpp CONFIG REQUIRED)
set(metrics_sources
  ${CMAKE_CURRENT_LIST_DIR}/exposition.cpp
  ${CMAKE_CURRENT_LIST_DIR}/metrics.cpp
  ${CMAKE_CURRENT_LIST_DIR}/process_figures.cpp)
add_library(memkv_metrics STATIC ${metrics_sources})
target_link_libraries(memkv_metrics PUBLIC memkv_options memkv_actors memkv_engine memkv_log memkv_wire
                                           prometheus-cpp::core)
