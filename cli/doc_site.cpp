#include "cli/doc_site.hpp"

#include <algorithm>
#include <vector>

namespace memkv::cli {

namespace {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text)
    switch (c) {
    case '&':
      out += "&amp;";
      break;
    case '<':
      out += "&lt;";
      break;
    case '>':
      out += "&gt;";
      break;
    case '"':
      out += "&quot;";
      break;
    default:
      out += c;
    }
  return out;
}

const doc_file* find(std::string_view path) {
  const auto files = doc_files();
  const auto found = std::ranges::find(files, path, &doc_file::path);
  return found == files.end() ? nullptr : &*found;
}

/// The path that `target` means on the page at `from`; empty when it leads out of the site.
std::string resolved(std::string_view from, std::string_view target) {
  std::vector<std::string_view> parts;
  const auto add = [&parts](std::string_view path) {
    while (!path.empty()) {
      const auto slash = std::min(path.find('/'), path.size());
      const auto part = path.substr(0, slash);
      path.remove_prefix(std::min(slash + 1, path.size()));
      if (part.empty() || part == ".")
        continue;
      if (part != "..") {
        parts.push_back(part);
      } else if (parts.empty()) {
        return false;
      } else {
        parts.pop_back();
      }
    }
    return true;
  };
  if (!add(from.substr(0, from.rfind('/'))) || !add(target))
    return {};
  std::string out;
  for (const auto part : parts)
    out.append("/").append(part);
  return out;
}

/// Where a link leads; empty: nowhere that can be reached from here.
std::string address_of(std::string_view from, std::string_view target) {
  if (target.starts_with("https://") || target.starts_with("http://"))
    return std::string(target);
  const auto path = resolved(from, target.substr(0, target.find('#')));
  return find(path) != nullptr ? path : std::string{};
}

/// The first heading, or the path.
std::string_view title_of(const doc_file& file) {
  if (!file.bytes.starts_with("# "))
    return file.path;
  return file.bytes.substr(2, file.bytes.find('\n') - 2);
}

std::string page(std::string_view title, const std::string& body) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width\"><title>" +
         escaped(title) + "</title><link rel=\"stylesheet\" href=\"/doc.css\"></head><body>\n" + body +
         "</body></html>\n";
}

std::string index_html() {
  std::string list = "<h1>memkv</h1>\n<ul>\n";
  for (const auto& each : doc_files())
    if (each.path.ends_with(".md"))
      list += "<li><a href=\"" + escaped(each.path) + "\">" + escaped(title_of(each)) + "</a> <code>" +
              escaped(each.path.substr(1)) + "</code></li>\n";
  return page("memkv", list + "</ul>\n");
}

std::string_view type_of(std::string_view path) {
  if (path.ends_with(".json"))
    return "application/json";
  if (path.ends_with(".png"))
    return "image/png";
  return "text/plain; charset=utf-8";
}

} // namespace

std::string doc_page_html(std::string_view path, std::string_view markdown) {
  std::string body = "<p><a href=\"/\">All pages</a></p>\n<pre>";
  while (!markdown.empty()) {
    // [text](target) on one line; everything else is as it is.
    const auto open = markdown.find('[');
    const auto middle = open == std::string_view::npos ? open : markdown.find("](", open);
    const auto close = middle == std::string_view::npos ? middle : markdown.find(')', middle);
    if (close == std::string_view::npos) {
      body += escaped(markdown);
      break;
    }
    const auto text = markdown.substr(open + 1, middle - open - 1);
    const auto target = markdown.substr(middle + 2, close - middle - 2);
    const auto address = address_of(path, target);
    if (address.empty() || text.find_first_of("[]\n") != std::string_view::npos) {
      body += escaped(markdown.substr(0, open + 1));
      markdown.remove_prefix(open + 1);
      continue;
    }
    const bool picture = address.ends_with(".png") && open > 0 && markdown[open - 1] == '!';
    body += escaped(markdown.substr(0, picture ? open - 1 : open));
    body += picture ? "<img src=\"" + escaped(address) + "\" alt=\"" + escaped(text) + "\">"
                    : "<a href=\"" + escaped(address) + "\">" + escaped(text) + "</a>";
    markdown.remove_prefix(close + 1);
  }
  return page(path.substr(1), body + "</pre>\n");
}

admin::http_answer answer_doc_request(const admin::http_request& request) {
  admin::http_answer out;
  out.headers = {
      {"Cache-Control", "no-cache"},
      {"Content-Security-Policy",
       "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
       "frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"}};
  const auto give = [&](std::string_view type, std::string body, int status = 200) {
    out.status = status;
    out.content_type = type;
    out.body = std::move(body);
    return out;
  };
  constexpr std::string_view html = "text/html; charset=utf-8";
  if (request.method != "GET" && request.method != "HEAD")
    return give(html, page("405", "<p>Only GET is answered here.</p>\n"), 405);
  if (request.path() == "/")
    return give(html, index_html());
  if (request.path() == "/doc.css")
    return give("text/css; charset=utf-8",
                "body{max-width:60rem;margin:1rem auto;padding:0 1rem;font-family:sans-serif;line-height:1.5}"
                "pre{white-space:pre-wrap;overflow-wrap:anywhere}img{max-width:100%}\n");
  const auto* file = find(request.path());
  if (file == nullptr)
    return give(html, page("404", "<p>There is no such page: see <a href=\"/\">all pages</a>.</p>\n"), 404);
  if (file->path.ends_with(".md"))
    return give(html, doc_page_html(file->path, file->bytes));
  return give(type_of(file->path), std::string(file->bytes));
}

} // namespace memkv::cli
