// Writes the seed corpora of the fuzz targets, from the worked example of docs/formats/wire.md and from
// licences that are issued here: make_corpus DIRECTORY.
#include "test/unit/wire/wire_test.hpp"
#include "wire/license_issuer.hpp"

#include <filesystem>

using namespace memkv::wire;
using namespace memkv::wire::test;

namespace {

std::filesystem::path root;

void write(const std::string& target, const std::string& name, bytes_view prefix, bytes_view bytes) {
  const std::filesystem::path directory = root / target;
  std::filesystem::create_directories(directory);
  std::ofstream out(directory / name, std::ios::binary | std::ios::trunc);
  const std::string_view head = as_text(prefix);
  const std::string_view body = as_text(bytes);
  out.write(head.data(), static_cast<std::streamsize>(head.size()));
  out.write(body.data(), static_cast<std::streamsize>(body.size()));
  if (!out)
    throw std::runtime_error("cannot write the corpus");
}

template <message Body>
void message_seed(const std::string& name, std::uint8_t side, opcode code, const Body& body) {
  buffer bytes(body.encoded_size());
  byte_writer writer(bytes);
  body.encode(writer);
  const std::byte prefix[2] = {static_cast<std::byte>(side), static_cast<std::byte>(code)};
  write("messages", name, prefix, bytes);
}

/// A licence of each plan, whole and in its parts, signed with a key that nobody accepts.
void license_seeds() {
  license_key_pair pair;
  if (!make_license_keys(pair).empty())
    throw std::runtime_error("no key pair");
  const auto seed = [](const std::string& name, char mode, const std::string& text) {
    const std::byte prefix[1] = {static_cast<std::byte>(mode)};
    write("license", name, prefix, as_bytes_view(text));
  };
  license wanted;
  wanted.organization = "Example";
  wanted.subject = "someone@example.com";
  wanted.id = "0123";
  wanted.issued_at_s = 1'799'999'000;
  wanted.expires_at_s = 1'900'000'000;
  for (const auto text : license_plan_names) {
    wanted.plan = *parse_license_plan(text);
    std::string token;
    if (!issue_license(wanted, pair.private_pem, token).empty())
      throw std::runtime_error("no license");
    seed("token-" + std::string(text), 0, token);
    seed("content-" + std::string(text), 2,
         R"({"plan":")" + std::string(text) +
             R"(","org":"Example","aid":7,"iat":1799999000,"exp":1900000000,"nbf":1.8e9,"lid":"0"})");
  }
  seed("header", 1, R"({"alg":"ES384","typ":"JWT"})");
  seed("header-critical", 1, R"({"alg":"ES384","crit":["b64"],"b64":false})");
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "make_corpus: name the directory to write to\n";
    return 2;
  }
  root = argv[1];
  int number = 0;
  buffer requests;
  buffer replies;
  for (const auto& [label, bytes] : worked_example()) {
    if (bytes.size() < frame_bytes(0) || bytes[0] != std::byte{0x4D})
      continue;
    const bool request_frame = bytes[5] == std::byte{1};
    // As it is, and signed on an open connection, in large pieces and in small ones.
    for (const unsigned mode : {0U, 0xFDU, 0xFFU, 0x07U}) {
      const std::byte prefix[1] = {static_cast<std::byte>(mode)};
      write(request_frame ? "request_reader" : "reply_reader", "page-" + std::to_string(number++), prefix,
            bytes);
    }
    const auto header_length = load_le<std::uint32_t>(bytes.data() + 8);
    const std::byte prefix[2] = {static_cast<std::byte>(request_frame ? 0 : 1), bytes[6]};
    write("messages", "page-" + std::to_string(number), prefix,
          bytes_view(bytes).subspan(128, header_length - 128));
    buffer& all = request_frame ? requests : replies;
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  const std::byte open_signed[1] = {std::byte{0xFF}};
  write("request_reader", "page-all", open_signed, requests);
  write("reply_reader", "page-all", open_signed, replies);

  const buffer key = worked_example().at("key");
  const std::vector<batch_key> keys(3, batch_key{key});
  const std::vector<get_request> gets(2, get_request{4, 5, 0, key});
  const std::vector<batch_put_item> puts(2, batch_put_item{true, 5, {}, key});
  const std::vector<batch_slice> slices(2, batch_slice{0, status::ok, true, 39, 4, 5, {}});
  const std::vector<batch_exists_result> exists = {{status::ok, 39}, {status::not_found, 0}};
  const std::vector<std::uint64_t> lengths = {39, 39};
  message_seed("batch_keys", 0, opcode::batch_exists, batch_request<batch_key>{keys});
  message_seed("batch_gets", 0, opcode::tcp_batch_get, batch_request<get_request>{gets});
  message_seed("batch_puts", 0, opcode::tcp_batch_put, batch_request<batch_put_item>{puts});
  message_seed("slices", 1, opcode::tcp_batch_get, batch_get_reply{slices});
  message_seed("exists", 1, opcode::batch_exists, batch_exists_reply{exists});
  message_seed("prefix", 1, opcode::prefix, prefix_reply{lengths});
  message_seed("server", 7, opcode::ping, raw_message{as_bytes_view("[2001:db8::1]:9900")});
  const std::byte batch_exists[2] = {std::byte{0}, std::byte{0x26}};
  buffer batch(batch_request<batch_key>{keys}.encoded_size());
  byte_writer writer(batch);
  batch_request<batch_key>{keys}.encode(writer);
  write("canary", "batch_keys", batch_exists, batch);
  license_seeds();
  return 0;
}
