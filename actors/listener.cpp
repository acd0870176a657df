#include "actors/listener.hpp"

#include "actors/admin_gateway.hpp"

#include <caf/actor_cast.hpp>
#include <caf/behavior.hpp>
#include <caf/send.hpp>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace memkv::actors {

class listener::accept_operation final : public ring_operation {
public:
  explicit accept_operation(listener& owner) : owner_(owner) {}
  void completed(std::int32_t result, std::uint32_t) override {
    owner_.armed_ = false;
    owner_.accepted(result);
  }
  sockaddr_storage peer{};
  socklen_t peer_bytes = sizeof peer;

private:
  listener& owner_;
};

listener::listener(caf::actor_config& configuration, int socket, std::shared_ptr<admission> door,
                   server_actor server)
    : ring_actor(configuration), socket_(socket), door_(std::move(door)), server_(std::move(server)),
      operation_(std::make_unique<accept_operation>(*this)) {}

listener::~listener() = default;

void listener::on_no_ring(const std::string& problem) {
  caf::anon_send(server_, actor_started{id(), problem});
}

bool listener::on_start() {
  caf::anon_send(server_, actor_started{id(), {}});
  return true; // accepting begins with the first reactor
}

bool listener::any_reactor() const noexcept {
  return std::any_of(reactors_.begin(), reactors_.end(), [](const auto& each) { return each != nullptr; });
}

void listener::deal(std::shared_ptr<admission_slot> slot) {
  while (reactors_[next_ % reactors_.size()] == nullptr)
    ++next_;
  send(reactors_[next_ % reactors_.size()], new_connection{std::move(slot)});
  ++next_;
}

void listener::arm() {
  if (!any_reactor())
    return;
  if (waiting_ != nullptr)
    deal(std::move(waiting_));
  if (armed_ || !accepting_)
    return;
  armed_ = true;
  operation_->peer_bytes = sizeof operation_->peer;
  auto* sqe = next_sqe(operation_.get());
  io_uring_prep_accept(sqe, socket_, reinterpret_cast<sockaddr*>(&operation_->peer), &operation_->peer_bytes,
                       SOCK_CLOEXEC);
}

void listener::accepted(std::int32_t result) {
  if (result >= 0) {
    auto why = admission::refusal::none;
    auto slot = door_->admit(result, address_of(operation_->peer), why);
    if (slot == nullptr) {
      ::close(result);
    } else if (any_reactor()) {
      deal(std::move(slot));
    } else {
      // Every reactor died while this accept was under way. No other is begun before one is back.
      waiting_ = std::move(slot);
    }
  } else if (result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ENOBUFS) {
    door_->events().note(door_event::no_descriptors, {});
    return; // the next tick tries again
  } else if (result == -ECANCELED || result == -EINVAL || result == -EBADF) {
    return; // stopping
  }
  arm();
}

caf::behavior listener::make_handlers() {
  auto on_reactor = [this](const reactor_changed& change) {
    if (reactors_.size() <= change.index)
      reactors_.resize(change.index + 1);
    reactors_[change.index] = caf::actor_cast<reactor_actor>(change.reactor);
    arm();
  };
  auto on_stop_accepting = [this](const stop_accepting&) { stop(caf::exit_reason::normal); };
  auto on_describe = [this](const describe_yourself& question) {
    answer(question, id(), mailbox_size(*this));
  };
  [[maybe_unused]] listener_actor::behavior_type conforms{on_reactor, on_stop_accepting, on_describe};
  return {on_reactor, on_stop_accepting, on_describe};
}

void listener::on_tick(std::uint64_t now_ns) {
  arm();
  door_->events().report(now_ns);
}

void listener::on_end() {
  reactors_.clear();
  waiting_.reset();
  server_ = nullptr;
}

void listener::on_stop() {
  accepting_ = false;
  if (armed_) {
    auto* sqe = next_sqe(nullptr);
    io_uring_prep_cancel(sqe, operation_.get(), 0);
  }
}

} // namespace memkv::actors
