#include "machines.hpp"
