memkv_add_test(metrics_test metrics_test.cpp LIBS memkv_metrics)
target_compile_definitions(metrics_test PRIVATE DOCS_DIRECTORY="${CMAKE_SOURCE_DIR}/docs")

add_executable(print_metrics print_metrics.cpp)
target_link_libraries(print_metrics PRIVATE memkv_metrics)

# Reads docs/metrics.md, deploy/ and what the program prints; needs promtool.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME metrics_deploy_test
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/deploy_test.py ${CMAKE_SOURCE_DIR}
          $<TARGET_FILE:print_metrics>)
set_tests_properties(metrics_deploy_test PROPERTIES TIMEOUT 120)
