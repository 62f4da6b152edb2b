//! What every request passes: whom it names, how long it is, how long it may take; and the headers of every answer.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;

/// Bytes of a path with its query.
const TARGET_BYTES_MAX: usize = 4096;
/// Time until an answer begins: a body that trickles in ends there, too.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Nothing is loaded from elsewhere, and no script or style stands in a page.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(header::HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Lets a request through, or answers it.
pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let mut answer = if !app.knows_host(request.headers(), request.uri().host()) {
        let told = "this service is not known by that name; the setting [serve] hosts names further ones\n";
        (StatusCode::MISDIRECTED_REQUEST, told).into_response()
    } else if target > TARGET_BYTES_MAX {
        (StatusCode::URI_TOO_LONG, "that address is too long\n").into_response()
    } else {
        match tokio::time::timeout(ANSWER_TIME_MAX, next.run(request)).await {
            Ok(answer) => answer,
            Err(_) => (StatusCode::REQUEST_TIMEOUT, "that took too long\n").into_response(),
        }
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

impl App {
    /// Whether a request means this service: a page elsewhere whose name was bound anew to this machine's address cannot say so.
    fn knows_host(&self, headers: &HeaderMap, authority: Option<&str>) -> bool {
        let mut hosts = headers.get_all(header::HOST).into_iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Ok(host) = host.to_str() else { return false };
        let name = host_name(host);
        let known = |name: &str| {
            // An address is no name, which could be bound anew.
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok()
                || self.options.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
        };
        known(name) && authority.is_none_or(|host| known(host.trim_matches(['[', ']'])))
    }
}

/// The host of `host:port` or `[::1]:port`.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(name, _)| name);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_no_part_of_the_host() {
        for (host, name) in [
            ("localhost:8321", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:8321", "::1"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("", ""),
            ("[::1", "::1"),
        ] {
            assert_eq!(host_name(host), name);
        }
    }
}
