// What operators may write as the address of a server, and what every slip is answered with.
#define CAF_SUITE server_url
#include "admin/server_url.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv::admin;

namespace {

std::string accepted(std::string_view text) {
  const auto [url, problem] = parse_server_url(text);
  return problem.empty() ? url.text() : "refused: " + problem;
}

bool refused(std::string_view text, std::string_view why) {
  const auto problem = parse_server_url(text).problem;
  if (problem.find(why) == std::string::npos)
    CAF_MESSAGE(text << ": \"" << problem << "\" does not say " << why);
  return !problem.empty() && problem.find(why) != std::string::npos;
}

std::string list_of(std::string_view text) {
  const auto [servers, problem] = parse_server_list(text);
  std::string all = problem;
  for (const auto& each : servers)
    all += (all.empty() ? "" : " ") + each.text();
  return all;
}

} // namespace

CAF_TEST(a bare host gets http and the port of the endpoint) {
  CAF_CHECK_EQUAL(accepted("coe02:9901"), "http://coe02:9901");
  CAF_CHECK_EQUAL(accepted("coe02"), "http://coe02:9901");
  CAF_CHECK_EQUAL(accepted("10.0.0.1:77"), "http://10.0.0.1:77");
  CAF_CHECK_EQUAL(accepted("http://coe02"), "http://coe02:9901");
  CAF_CHECK_EQUAL(accepted("https://kv-1.example_2.net:443/"), "https://kv-1.example_2.net:443");
  CAF_CHECK_EQUAL(accepted("HTTPS://Kv.Example"), "https://kv.example:9901");
}

CAF_TEST(an IPv6 address stands in brackets) {
  CAF_CHECK_EQUAL(accepted("[::1]"), "http://[::1]:9901");
  CAF_CHECK_EQUAL(accepted("https://[FE80::1]:9905"), "https://[fe80::1]:9905");
  CAF_CHECK_EQUAL(accepted("[fe80::1%eth0]:1"), "http://[fe80::1%eth0]:1");
  CAF_CHECK(parse_server_url("[::1]").url.is_address);
  CAF_CHECK(parse_server_url("127.0.0.1").url.is_address);
  CAF_CHECK(!parse_server_url("localhost").url.is_address);
  CAF_CHECK(refused("::1", "brackets"));
  CAF_CHECK(refused("fe80::1:9901", "brackets"));
  CAF_CHECK(refused("[::1", "does not end"));
  CAF_CHECK(refused("[coe02]:9901", "no IPv6 address"));
  CAF_CHECK(refused("[::1]9901", "behind the bracket"));
  CAF_CHECK(refused("[::1]:", "port"));
}

CAF_TEST(what is no address of a server is refused with a reason) {
  CAF_CHECK(refused("ftp://coe02", "neither http:// nor https://"));
  CAF_CHECK(refused("://coe02", "neither http:// nor https://"));
  CAF_CHECK(refused("http://coe02/v1/status", "path"));
  CAF_CHECK(refused("coe02/x", "path"));
  CAF_CHECK(refused("coe02?x=1", "path"));
  CAF_CHECK(refused("http://", "no host"));
  CAF_CHECK(refused(":9901", "no host"));
  CAF_CHECK(refused("coe 02", "no host"));
  CAF_CHECK(refused("a..b", "no host"));
  CAF_CHECK(refused("-x", "no host"));
  CAF_CHECK(refused("coe02\n", "no host"));
  CAF_CHECK(refused(std::string(254, 'a'), "no host"));
  for (const auto* port : {"coe02:", "coe02:0", "coe02:65536", "coe02:+1", "coe02:99x", "coe02:000001"})
    CAF_CHECK(refused(port, "port"));
}

CAF_TEST(a password is refused and never repeated) {
  const auto problem = parse_server_url("http://admin:hunter2@coe02:9901").problem;
  CAF_CHECK(problem.find("password") != std::string::npos);
  CAF_CHECK(problem.find("hunter2") == std::string::npos);
}

CAF_TEST(a refusal shows nothing that a terminal obeys) {
  const auto problem = parse_server_url("coe02\033[31m:1").problem;
  CAF_CHECK(problem.find('\033') == std::string::npos);
}

CAF_TEST(blanks and empty entries of a list are dropped and repetitions too) {
  CAF_CHECK_EQUAL(list_of(" coe02:9901 ,, \tcoe04:9901,"), "http://coe02:9901 http://coe04:9901");
  CAF_CHECK_EQUAL(list_of("b,a,http://b:9901/,B"), "http://b:9901 http://a:9901");
}

CAF_TEST(a list that names nothing is a problem) {
  for (const auto* text : {"", ",,", " , \t,"})
    CAF_CHECK(list_of(text).find("no servers were configured") != std::string::npos);
}

CAF_TEST(one bad entry spoils a list) {
  CAF_CHECK(list_of("coe02,coe03:x").find("port") != std::string::npos);
}

CAF_TEST(a list has a bound) {
  std::string text;
  for (std::size_t i = 0; i <= servers_max; ++i)
    text += "h" + std::to_string(i) + ",";
  CAF_CHECK(list_of(text).find("more than 4096") != std::string::npos);
}
