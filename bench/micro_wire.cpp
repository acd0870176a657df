// How fast the hot pieces of the protocol are: codec, MACs, key ids, checksums, placement.
#include "wire/crc32c.hpp"
#include "wire/hello.hpp"
#include "wire/payload_digest.hpp"
#include "wire/placement.hpp"
#include "wire/request_reader.hpp"

#include <benchmark/benchmark.h>

#include <string>

namespace {

using namespace memkv::wire;

constexpr std::uint64_t now_ns = 1'700'000'000'000'000'000;

shared_key bench_key() {
  return *shared_key::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
}

std::vector<std::byte> pattern(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>(i * 131 + (i >> 8));
  return bytes;
}

void mac_sign(benchmark::State& state) {
  const mac signer(bench_key());
  const std::vector<std::byte> header = pattern(static_cast<std::size_t>(state.range(0)));
  std::uint64_t ts_ns = now_ns;
  for (auto _ : state)
    benchmark::DoNotOptimize(signer.sign(header, ++ts_ns));
}
BENCHMARK(mac_sign)->Arg(136)->Arg(512)->Arg(32768);

void mac_verify(benchmark::State& state) {
  const mac signer(bench_key());
  const std::vector<std::byte> header = pattern(136);
  const hash32 code = signer.sign(header, now_ns);
  for (auto _ : state)
    benchmark::DoNotOptimize(signer.verify(header, now_ns, code));
}
BENCHMARK(mac_verify);

void keyed_payload_digest(benchmark::State& state) {
  payload_digest digest(pattern(32));
  const std::vector<std::byte> value = pattern(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) {
    digest.begin(digest_kind::keyed, direction::request, 1, 0, 0);
    digest.update(value);
    benchmark::DoNotOptimize(digest.finish());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(keyed_payload_digest)->Arg(64)->Arg(1 << 20);

void key_id_of(benchmark::State& state) {
  const std::vector<std::byte> key = pattern(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state)
    benchmark::DoNotOptimize(make_key_id("tenant-a", key));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(key_id_of)->Arg(16)->Arg(40)->Arg(64)->Arg(1024);

void checksum(benchmark::State& state) {
  const std::vector<std::byte> value = pattern(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state)
    benchmark::DoNotOptimize(crc32c(value));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(checksum)->Arg(64)->Arg(4096)->Arg(65536)->Arg(1 << 20)->Arg(64 << 20);

// One way of computing it, whichever is in use.
void checksum_by(benchmark::State& state, crc32c_method method) {
  if (!crc32c_available(method)) {
    state.SkipWithError("this processor cannot");
    return;
  }
  const std::vector<std::byte> bytes(static_cast<std::size_t>(state.range(0)), std::byte{0x5A});
  for (auto _ : state)
    benchmark::DoNotOptimize(crc32c_by(method, bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK_CAPTURE(checksum_by, mixed, crc32c_method::mixed)->Arg(65536)->Arg(1 << 20)->Arg(4 << 20);
BENCHMARK_CAPTURE(checksum_by, instructions, crc32c_method::instructions)
    ->Arg(65536)
    ->Arg(1 << 20)
    ->Arg(4 << 20);
BENCHMARK_CAPTURE(checksum_by, tables, crc32c_method::tables)->Arg(64)->Arg(1 << 20);

void checksum_combine(benchmark::State& state) {
  std::uint32_t crc = 1;
  for (auto _ : state)
    benchmark::DoNotOptimize(crc = crc32c_combine(crc, 7, 12345));
}
BENCHMARK(checksum_combine);

void checksum_combine_64_kib(benchmark::State& state) {
  std::uint32_t crc = 1;
  for (auto _ : state)
    benchmark::DoNotOptimize(crc = crc32c_combine_64_kib(crc, 7));
}
BENCHMARK(checksum_combine_64_kib);

void header_decode(benchmark::State& state) {
  frame_header header;
  header.request_id = 1;
  header.ns = *ns_name::from_text("tenant-a");
  std::array<std::byte, 128> bytes;
  encode_header(header, bytes);
  for (auto _ : state) {
    benchmark::DoNotOptimize(decode_header(bytes, header));
    benchmark::DoNotOptimize(header);
  }
}
BENCHMARK(header_decode);

void frame_build_and_seal(benchmark::State& state) {
  const mac signer(bench_key());
  frame_header header;
  header.opcode = opcode::tcp_get;
  header.request_id = 1;
  const std::vector<std::byte> key = pattern(40);
  std::vector<std::byte> buffer;
  for (auto _ : state) {
    buffer.clear();
    append_frame(buffer, header, get_request{0, 0, 0, key});
    seal(buffer, now_ns, signer);
    benchmark::DoNotOptimize(buffer.data());
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(frame_build_and_seal);

// Everything a server does with a small request before it acts: parse, MAC, time, tag, id, key, key id.
void request_read(benchmark::State& state) {
  const mac verifier(bench_key());
  header_budget budget;
  request_reader reader(verifier, budget);
  std::vector<std::byte> frame;
  append_hello(frame, 1, nonce{});
  seal(frame, now_ns, verifier);
  static_cast<void>(reader.consume(frame, now_ns));
  reader.accept_hello(connection_tag{});
  frame_header header;
  header.opcode = opcode::tcp_get;
  const std::vector<std::byte> key = pattern(40);
  constexpr std::size_t frames = 4096;
  std::vector<std::vector<std::byte>> prepared(frames);
  std::uint64_t id = 1;
  std::size_t next = frames;
  for (auto _ : state) {
    if (next == frames) {
      state.PauseTiming();
      for (std::vector<std::byte>& one : prepared) {
        one.clear();
        header.request_id = ++id;
        append_frame(one, header, get_request{0, 0, 0, key});
        seal(one, now_ns, verifier);
      }
      next = 0;
      state.ResumeTiming();
    }
    if (reader.consume(prepared[next++], now_ns).event != request_event::header) {
      state.SkipWithError("a request was refused");
      break;
    }
    get_request get;
    benchmark::DoNotOptimize(get_request::decode(reader.variable_part(), get));
    benchmark::DoNotOptimize(make_key_id(reader.header().ns.text(), get.key));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(request_read);

void batch_decode(benchmark::State& state) {
  const std::vector<std::byte> key = pattern(static_cast<std::size_t>(state.range(0)));
  const std::vector<batch_key> keys(1000, batch_key{key});
  std::vector<std::byte> bytes(batch_request<batch_key>{keys}.encoded_size());
  byte_writer writer(bytes);
  batch_request<batch_key>{keys}.encode(writer);
  for (auto _ : state) {
    batch_keys_view view;
    benchmark::DoNotOptimize(batch_keys_view::decode(bytes, view));
    std::size_t total = 0;
    for (const batch_key item : view)
      total += item.key.size() + std::to_integer<std::size_t>(item.key[0]);
    benchmark::DoNotOptimize(total);
  }
  state.SetItemsProcessed(state.iterations() * 1000);
}
BENCHMARK(batch_decode)->Arg(16)->Arg(40);

void batch_encode(benchmark::State& state) {
  const std::vector<std::byte> key = pattern(40);
  const std::vector<batch_key> keys(1000, batch_key{key});
  std::vector<std::byte> buffer;
  for (auto _ : state) {
    buffer.clear();
    append_frame(buffer, frame_header{}, batch_request<batch_key>{keys});
    benchmark::DoNotOptimize(buffer.data());
  }
  state.SetItemsProcessed(state.iterations() * 1000);
}
BENCHMARK(batch_encode);

void placement_pick(benchmark::State& state) {
  std::vector<std::string> servers;
  for (std::int64_t i = 0; i < state.range(0); ++i)
    servers.push_back("kv-" + std::to_string(i) + ":9900");
  const placement places(servers);
  key_id id{};
  for (auto _ : state) {
    id.bytes[0] ^= std::byte{1};
    benchmark::DoNotOptimize(places.pick(id));
  }
}
BENCHMARK(placement_pick)->Arg(1)->Arg(16);

} // namespace

BENCHMARK_MAIN();
