#define CAF_SUITE wire_placement

#include "wire_test.hpp"

#include "wire/placement.hpp"

#include <caf/test/unit_test.hpp>

#include <algorithm>

using namespace memkv::wire;
using namespace memkv::wire::test;

CAF_TEST(servers are normalised to host and port) {
  const std::pair<const char*, const char*> cases[] = {
      {"kv-a", "kv-a:9900"},
      {"KV-A.Example.", "kv-a.example:9900"},
      {"kv_a.example:09901", "kv_a.example:9901"},
      {"10.0.0.1", "10.0.0.1:9900"},
      {"10.0.0.1:1", "10.0.0.1:1"},
      {"255.255.255.255:65535", "255.255.255.255:65535"},
      {"[2001:DB8::1]", "[2001:db8::1]:9900"},
      {"2001:db8::1", "[2001:db8::1]:9900"},
      {"[2001:0db8:0:0:0:0:0:1]:9900", "[2001:db8::1]:9900"},
      {"[::]:1", "[::]:1"},
      {"[::1]", "[::1]:9900"},
      {"[1::]", "[1::]:9900"},
      {"[0:0:0:0:0:0:0:0]", "[::]:9900"},
      {"[1:0:0:2:0:0:0:3]", "[1:0:0:2::3]:9900"},
      {"[1:0:0:2:3:0:0:4]", "[1::2:3:0:0:4]:9900"},
      {"[1:0:2:3:4:5:6:7]", "[1:0:2:3:4:5:6:7]:9900"},
      {"[1:2:3:4:5:6:7::]", "[1:2:3:4:5:6:7:0]:9900"},
      {"[::ffff:1.2.3.4]", "[::ffff:102:304]:9900"},
  };
  for (const auto& [given, wanted] : cases) {
    const normalised_server server = normalise_server(given);
    CAF_CHECK_EQUAL(server.name, std::string(wanted));
    CAF_CHECK(server.ok());
  }
}

CAF_TEST(a normal form is its own normal form) {
  for (const char* text : {"kv-a:9900", "10.0.0.1:9900", "[2001:db8::1]:9900", "[::]:1", "[1:0:0:2::3]:9900"})
    CAF_CHECK_EQUAL(normalise_server(text).name, std::string(text));
}

CAF_TEST(what is not a server is refused with a sentence that names it) {
  for (const std::string& text : {std::string(""),
                                  std::string(":9900"),
                                  std::string("host:"),
                                  std::string("host:0"),
                                  std::string("host:65536"),
                                  std::string("host:99x"),
                                  std::string("host:-1"),
                                  std::string("ho st"),
                                  std::string("h\xc3\xb6st"),
                                  std::string("a..b"),
                                  std::string("."),
                                  std::string("a.."),
                                  std::string("10.0.0"),
                                  std::string("010.0.0.1"),
                                  std::string("10.0.0.256"),
                                  std::string("1234"),
                                  std::string("[::1"),
                                  std::string("[::1]x"),
                                  std::string("[::1]:"),
                                  std::string("[1:2:3]"),
                                  std::string("[1:2:3:4:5:6:7:8:9]"),
                                  std::string("[1::2::3]"),
                                  std::string("[fe80::1%eth0]"),
                                  std::string("[12345::]"),
                                  std::string("[1:2:3:4:5:6:7:8::]"),
                                  std::string("[:1:2:3:4:5:6:7]"),
                                  std::string("[1.2.3.4::]"),
                                  std::string("[g::]"),
                                  std::string(64, 'a'),
                                  std::string("[10.0.0.1]"),
                                  std::string("http://host:1"),
                                  std::string("host:1:2:"),
                                  std::string("[]")}) {
    const normalised_server server = normalise_server(text);
    if (server.ok())
      CAF_FAIL("accepted: " << text << " as " << server.name);
    CAF_CHECK(server.problem.find(text) != std::string::npos);
  }
}

CAF_TEST(the order of the list and names given twice do not matter) {
  generator random;
  std::vector<std::string> names = {"a:1", "b:1", "c:1", "d:1", "e:1"};
  const placement sorted(names);
  std::reverse(names.begin(), names.end());
  names.push_back("c:1");
  const placement reversed(names);
  for (int i = 0; i < 1000; ++i) {
    key_id id;
    random.fill(id.bytes);
    if (sorted.servers()[sorted.pick(id)] != reversed.servers()[reversed.pick(id)])
      CAF_FAIL(random.hint());
  }
}

CAF_TEST(a server that joins takes only its share and no key moves between the others) {
  generator random;
  const placement before({"a:1", "b:1", "c:1"});
  const placement after({"a:1", "b:1", "c:1", "d:1"});
  int moved = 0;
  for (int i = 0; i < 10000; ++i) {
    key_id id;
    random.fill(id.bytes);
    const std::string& old_home = before.servers()[before.pick(id)];
    const std::string& new_home = after.servers()[after.pick(id)];
    if (old_home != new_home) {
      ++moved;
      if (new_home != "d:1")
        CAF_FAIL(random.hint());
    }
  }
  // A quarter; ten standard deviations are 433.
  CAF_CHECK(moved > 2067 && moved < 2933);
}
