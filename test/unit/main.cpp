// The main function of every test program: CAF's test suite supplies it.
#include <caf/test/unit_test_impl.hpp>

#include <cstdlib>

// Servers and clients need a licence, also when a test is started by hand.
#ifdef MEMKV_TEST_LICENSE
[[maybe_unused]] static const int licensed = ::setenv("MEMKV_LICENSE", MEMKV_TEST_LICENSE, 0);
#endif
