// The main function of every test program: CAF's test suite supplies it.
#include <caf/test/unit_test_impl.hpp>
