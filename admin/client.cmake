# How memkv admin speaks to servers. Knows nothing of actors and of the server's side.
find_package(OpenSSL REQUIRED COMPONENTS SSL Crypto)

add_library(memkv_admin_client STATIC
  ${CMAKE_CURRENT_LIST_DIR}/http_answer_reader.cpp
  ${CMAKE_CURRENT_LIST_DIR}/http_client.cpp
  ${CMAKE_CURRENT_LIST_DIR}/printable_text.cpp
  ${CMAKE_CURRENT_LIST_DIR}/resolver.cpp
  ${CMAKE_CURRENT_LIST_DIR}/server_url.cpp
  ${CMAKE_CURRENT_LIST_DIR}/tls_stream.cpp)
target_link_libraries(memkv_admin_client PUBLIC memkv_options memkv_wire
                                         PRIVATE OpenSSL::SSL OpenSSL::Crypto Threads::Threads)
