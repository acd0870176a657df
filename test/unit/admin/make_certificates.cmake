# Makes the certificates and keys of the tests in DIRECTORY: cmake -DDIRECTORY=... -P make_certificates.cmake
file(MAKE_DIRECTORY ${DIRECTORY})
function(openssl)
  execute_process(COMMAND openssl ${ARGN} WORKING_DIRECTORY ${DIRECTORY} RESULT_VARIABLE code
                  ERROR_VARIABLE text OUTPUT_QUIET)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "openssl ${ARGN}: ${text}")
  endif()
endfunction()
foreach(name one two)
  openssl(req -x509 -newkey rsa:2048 -nodes -keyout ${name}.key -out ${name}.pem -days 3650
          -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1)
endforeach()
openssl(req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ec.key -out ec.pem -days 3650
        -subj /CN=localhost)
openssl(rsa -in one.key -aes256 -passout pass:secret -out locked.key)
