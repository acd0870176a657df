# How memkv admin speaks to servers. Knows nothing of actors and of the server's side.
find_package(OpenSSL REQUIRED COMPONENTS SSL Crypto)

set(admin_client_sources http_answer_reader.cpp http_client.cpp printable_text.cpp resolver.cpp server_url.cpp
                         tls_stream.cpp)
list(TRANSFORM admin_client_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
add_library(memkv_admin_client STATIC ${admin_client_sources})
target_link_libraries(memkv_admin_client PUBLIC memkv_options memkv_wire
                                         PRIVATE OpenSSL::SSL OpenSSL::Crypto Threads::Threads)
