memkv_add_test(metrics_test metrics_test.cpp LIBS memkv_metrics)
target_compile_definitions(metrics_test PRIVATE DOCS_DIRECTORY="${CMAKE_SOURCE_DIR}/docs")

add_executable(print_metrics print_metrics.cpp)
target_link_libraries(print_metrics PRIVATE memkv_metrics)
