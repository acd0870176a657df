#include "cli/admin_endpoint.hpp"

#include "actors/log.hpp"
#include "admin/console_assets.hpp"
#include "admin/faults.hpp"
#include "admin/http_server.hpp"
#include "admin/metrics.hpp"
#include "admin/routes.hpp"
#include "cli/version.hpp"
#include "wire/assert.hpp"

#include <ctime>
#include <mutex>

namespace memkv::cli {

namespace {

/// Where orders of faults go: there is nobody before the server is.
class fault_desk {
public:
  void open(std::shared_ptr<actors::fault_injector> injector) {
    const std::lock_guard guard(lock_);
    injector_ = std::move(injector);
  }

  [[nodiscard]] admin::http_answer answer(const admin::http_request& request) {
    const auto present = [this] {
      const std::lock_guard guard(lock_);
      return injector_;
    }();
    admin::fault_answer answer{503, R"({"error":"the server is starting: try again"})"};
    if (present != nullptr)
      answer = request.method == "POST" ? admin::order_fault(*present, request.body)
                                        : admin::list_faults(*present);
    admin::http_answer out;
    out.status = answer.status;
    out.body = std::move(answer.body);
    return out;
  }

private:
  std::mutex lock_;
  std::shared_ptr<actors::fault_injector> injector_;
};

class endpoint final : public admin_endpoint {
public:
  endpoint(const server_config& config, bool fault_injection, std::unique_ptr<admin::http_server> server)
      : host_(config.network.host), routes_(setup_of(config, fault_injection)), server_(std::move(server)) {}
  ~endpoint() override { server_->stop(); }

  bool begin(std::uint16_t data_port, std::string& problem) override {
    if (data_port == 65'535) {
      problem = "network.address: the administration endpoint needs the port after the data port, and 65535 "
                "is the last";
      return false;
    }
    if (!server_->bind(host_, static_cast<std::uint16_t>(data_port + 1), problem))
      return false;
    server_->serve([this](const admin::http_request& request) { return routes_.answer(request); });
    log::info("memkv::admin", "answering", {{"url", url()}});
    return true;
  }
  void open(std::shared_ptr<actors::admin_door> door,
            std::shared_ptr<actors::fault_injector> faults) override {
    faults_.open(std::move(faults));
    routes_.open(std::move(door));
  }
  std::string url() const override {
    return (server_->secure() ? "https://" : "http://") + address_text(host_, server_->port());
  }

private:
  admin::routes_setup setup_of(const server_config& config, bool fault_injection) {
    MEMKV_ASSERT(config.network.auth_key, "validate() refuses a configuration without a key");
    admin::routes_setup setup;
    setup.version = version();
    setup.open = config.network.admin_open;
    setup.verifier = std::make_shared<admin::request_verifier>(
        *config.network.auth_key, [] { return static_cast<std::uint64_t>(std::time(nullptr)); },
        config.network.previous_key);
    for (const auto& each : admin::console_assets())
      setup.files.push_back({each.path, each.content_type, each.bytes, each.etag});
    if (fault_injection)
      setup.faults = [this](const admin::http_request& request) { return faults_.answer(request); };
    setup.metrics = [](const actors::gathered& about) { return admin::metrics_text(about, version()); };
    return setup;
  }

  const std::string host_;
  fault_desk faults_;
  admin::routes routes_;
  std::unique_ptr<admin::http_server> server_; // after the routes, which its threads use
};

} // namespace

std::string address_text(const std::string& host, std::uint16_t port) {
  const bool is_ipv6 = host.find(':') != std::string::npos;
  return (is_ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::unique_ptr<admin_endpoint> admin_endpoint::make(const server_config& config, bool fault_injection,
                                                     std::string& problem) {
  auto server = admin::http_server::make(config.network.tls_cert, config.network.tls_key, problem);
  if (server == nullptr)
    return nullptr;
  return std::make_unique<endpoint>(config, fault_injection, std::move(server));
}

} // namespace memkv::cli
