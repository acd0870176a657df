// What a client says to licences: its own chain, and the plan Free.
#define CAF_SUITE client_license
#include "client/client.hpp"
#include "wire/license_file.hpp"
#include "wire/license_issuer.hpp"

#include <caf/test/unit_test.hpp>

#include <chrono>
#include <cstdlib>
#include <optional>

using namespace memkv;

namespace {

/// Sets a variable of this process, and sets it back.
class with_variable {
public:
  with_variable(const char* name, const char* value) : name_(name) {
    if (const char* before = std::getenv(name); before != nullptr)
      before_ = before;
    set(value);
  }
  ~with_variable() { set(before_ ? before_->c_str() : nullptr); }
  with_variable(const with_variable&) = delete;
  with_variable& operator=(const with_variable&) = delete;

private:
  void set(const char* value) const {
    if (value == nullptr)
      ::unsetenv(name_);
    else
      ::setenv(name_, value, 1);
  }

  const char* name_;
  std::optional<std::string> before_;
};

/// A machine without any licence: but for the well-known files below /etc.
struct fixture {
  with_variable memkv{"MEMKV_LICENSE", nullptr};
  with_variable aistor{"AISTOR_LICENSE", nullptr};
  with_variable minio{"MINIO_LICENSE", nullptr};
  with_variable home{"HOME", "/nonexistent"};
};

std::string license_with(wire::license_plan plan) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  wire::license wanted;
  wanted.plan = plan;
  wanted.organization = "Example";
  wanted.issued_at_s =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(now).count());
  wanted.expires_at_s = wanted.issued_at_s + 3600;
  std::string token;
  CAF_REQUIRE_EQUAL(wire::issue_license(wanted, wire::development_license_key(), token), "");
  return token;
}

client::options options_for(std::vector<std::string> servers, std::string license = "") {
  client::options chosen;
  chosen.servers = std::move(servers);
  chosen.transport = client::transport_choice::tcp;
  chosen.auth_key =
      wire::shared_key::parse("0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdef0fedcba987654321");
  chosen.license = std::move(license);
  chosen.log = [](std::string_view) {};
  return chosen;
}

/// Empty when a client was made.
std::string problem_of(client::options chosen) {
  client::status problem;
  const auto made = client::client::make(std::move(chosen), problem);
  CAF_CHECK_EQUAL(made != nullptr, problem.ok());
  CAF_CHECK_EQUAL(problem.text.empty(), problem.ok());
  CAF_CHECK(problem.ok() || problem.code == client::errc::bad_config);
  return problem.text;
}

} // namespace

CAF_TEST_FIXTURE_SCOPE(client_license_tests, fixture)

CAF_TEST(without a license no client is made and the sentence says where it was looked for and what to do) {
  if (wire::find_license_here({}, 0).source.starts_with("/etc/"))
    return; // this machine has one for everybody
  const auto problem = problem_of(options_for({"a"}));
  for (const auto* part :
       {"no license found", "MEMKV_LICENSE, AISTOR_LICENSE, MINIO_LICENSE", "/etc/memkv/minio.license",
        "/nonexistent/.minio/minio.license", "set MEMKV_LICENSE"})
    CAF_CHECK(problem.find(part) != std::string::npos);
}

CAF_TEST(every variable is looked at and the option comes first) {
  const auto good = license_with(wire::license_plan::enterprise);
  for (const auto* name : {"MEMKV_LICENSE", "AISTOR_LICENSE", "MINIO_LICENSE"}) {
    const with_variable set{name, good.c_str()};
    CAF_CHECK_EQUAL(problem_of(options_for({"a", "b"})), "");
    auto wrong = options_for({"a"}, "/no/such/license");
    CAF_CHECK_EQUAL(problem_of(wrong), "license: the license file /no/such/license cannot be read: No such "
                                       "file or directory");
    wrong.license_source = "client.yaml:3: license";
    CAF_CHECK_EQUAL(problem_of(wrong).find("client.yaml:3: license: the license file"), 0u);
  }
  const with_variable wrong{"MEMKV_LICENSE", "eyJ.x"};
  CAF_CHECK_EQUAL(problem_of(options_for({"a"})),
                  "MEMKV_LICENSE: the license is not a JWT: three parts with dots between");
  CAF_CHECK_EQUAL(problem_of(options_for({"a"}, good)), "");
}

CAF_TEST(a license of the plan Free is for one server) {
  const auto free = license_with(wire::license_plan::free);
  CAF_CHECK_EQUAL(problem_of(options_for({"a"}, free)), "");
  CAF_CHECK_EQUAL(problem_of(options_for({"a", "a:9900", "A"}, free)), "");
  CAF_CHECK_EQUAL(problem_of(options_for({"a", "a:9901"}, free)),
                  "license: a license of the plan Free is for one server, and 2 are configured: name one, or "
                  "get an Enterprise license");
  CAF_CHECK_EQUAL(problem_of(options_for({"a", "b", "c"}, free)),
                  "license: a license of the plan Free is for one server, and 3 are configured: name one, or "
                  "get an Enterprise license");
  for (const auto plan : {wire::license_plan::enterprise, wire::license_plan::enterprise_lite,
                          wire::license_plan::enterprise_plus})
    CAF_CHECK_EQUAL(problem_of(options_for({"a", "b", "c"}, license_with(plan))), "");
}

CAF_TEST(the file of MEMKV_CONFIG is named when its license is refused) {
  client::options chosen = options_for({"a"});
  CAF_CHECK(client::apply_config_text("servers: [a]\nlicense: eyJ.x.y\n", "client.yaml", chosen).ok());
  CAF_CHECK_EQUAL(problem_of(chosen),
                  "client.yaml:2: license: the license is not a JWT: a part of it is not base64url, or was "
                  "cut off");
}

CAF_TEST_FIXTURE_SCOPE_END()
