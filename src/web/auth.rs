//! Who may start runs: whoever knows the token, in a session of the browser or with each request.
//!
//! A session is a random name in a cookie that no script can read and no other site's request carries; of it, only the hash is kept. Each
//! POST of a page carries the session's second secret as well. Secrets are compared by their hashes, which takes the same time for all.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, header};

use crate::model::{Clock, Entropy, Secret, Timestamp};

/// Name of the cookie.
pub(super) const COOKIE: &str = "haulout_session";
/// Seconds for which a session lasts.
const SESSION_SECONDS: i64 = 12 * 3600;
/// Sessions at the same time; the oldest gives way.
const SESSIONS_MAX: usize = 64;
/// Wrong tokens that one address may send in [`WRONG_SECONDS`], and all together.
const WRONG_MAX: usize = 5;
const WRONG_MAX_ALL: usize = 50;
const WRONG_SECONDS: i64 = 60;
/// Shortest token: what can be guessed is none.
pub const TOKEN_BYTES_MIN: usize = 16;

/// A session of a browser that knows the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// Goes along with every POST.
    pub csrf: String,
    expires: Timestamp,
}

/// What came of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the right one.
    Right,
    /// It is another.
    Wrong,
    /// Too many were wrong: this one was not looked at.
    TooMany,
}

/// Keeps the token, the sessions and the count of wrong tokens.
pub(super) struct Guard {
    token: Option<blake3::Hash>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    sessions: Mutex<HashMap<[u8; 32], Session>>,
    wrong: Mutex<VecDeque<(Timestamp, IpAddr)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    pub(super) fn new(token: Option<&Secret>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Guard {
        let token = token.map(|token| blake3::hash(token.reveal().as_bytes()));
        Guard { token, clock, entropy, sessions: Mutex::default(), wrong: Mutex::default() }
    }

    /// Whether anything can be started at all.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Looks at a token that `peer` sent.
    pub(super) fn look(&self, token: &str, peer: IpAddr) -> Verdict {
        let now = self.clock.now();
        let mut wrong = lock(&self.wrong);
        while wrong.front().is_some_and(|(at, _)| now.seconds_since(*at).abs() >= WRONG_SECONDS) {
            wrong.pop_front();
        }
        if wrong.len() >= WRONG_MAX_ALL || wrong.iter().filter(|(_, from)| *from == peer).count() >= WRONG_MAX {
            return Verdict::TooMany;
        }
        // The hashes are compared in constant time.
        if self.token.is_some_and(|right| right == blake3::hash(token.as_bytes())) {
            return Verdict::Right;
        }
        wrong.push_back((now, peer));
        Verdict::Wrong
    }

    fn random(&self) -> String {
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        hex::encode(bytes)
    }

    /// Begins a session, and returns what its cookie holds.
    pub(super) fn begin(&self) -> String {
        let (name, csrf) = (self.random(), self.random());
        let mut sessions = lock(&self.sessions);
        let now = self.clock.now();
        sessions.retain(|_, session| session.expires > now);
        if sessions.len() >= SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.expires).map(|(key, _)| *key);
            oldest.and_then(|key| sessions.remove(&key));
        }
        let session = Session { csrf, expires: now.after(SESSION_SECONDS) };
        sessions.insert(*blake3::hash(name.as_bytes()).as_bytes(), session);
        name
    }

    /// The session of a request.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let name = cookie(headers)?;
        let session = lock(&self.sessions).get(blake3::hash(name.as_bytes()).as_bytes()).cloned()?;
        (session.expires > self.clock.now()).then_some(session)
    }

    /// Ends the session of a request.
    pub(super) fn end(&self, headers: &HeaderMap) {
        if let Some(name) = cookie(headers) {
            lock(&self.sessions).remove(blake3::hash(name.as_bytes()).as_bytes());
        }
    }
}

impl Session {
    /// Whether a POST carries this session's secret.
    pub(super) fn confirms(&self, csrf: &str) -> bool {
        blake3::hash(self.csrf.as_bytes()) == blake3::hash(csrf.as_bytes())
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// The header that sets, or with an empty `value` removes, the cookie.
pub(super) fn set_cookie(value: &str) -> String {
    let age = if value.is_empty() { 0 } else { SESSION_SECONDS };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}")
}

/// Whether a POST came from a page of this very site, as far as the browser tells.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, authority)| authority == host),
        (Some(_), None) => false,
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SystemEntropy;

    struct Hands(Mutex<Timestamp>);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            *lock(&self.0)
        }
    }

    fn guard() -> (Arc<Hands>, Guard) {
        let clock = Arc::new(Hands(Mutex::new(Timestamp::from_seconds(1_795_348_800))));
        let token = Secret::new("correct horse battery".to_owned());
        (clock.clone(), Guard::new(Some(&token), clock, Arc::new(SystemEntropy)))
    }

    fn request(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, format!("a=b; {COOKIE}={cookie}").parse().unwrap());
        headers
    }

    #[test]
    fn a_session_lasts_until_it_expires_or_is_ended() {
        let (clock, guard) = guard();
        let name = guard.begin();
        let session = guard.session(&request(&name)).unwrap();
        assert!(session.confirms(&session.csrf) && !session.confirms("") && !session.confirms(&name));
        assert_eq!(guard.session(&request("")), None);
        assert_eq!(guard.session(&HeaderMap::new()), None);
        *lock(&clock.0) = clock.now().after(SESSION_SECONDS - 1);
        assert!(guard.session(&request(&name)).is_some());
        *lock(&clock.0) = clock.now().after(1);
        assert_eq!(guard.session(&request(&name)), None);
        let name = guard.begin();
        guard.end(&request(&name));
        assert_eq!(guard.session(&request(&name)), None);
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_gives_way() {
        let (clock, guard) = guard();
        let names: Vec<String> = (0..=SESSIONS_MAX)
            .map(|_| {
                *lock(&clock.0) = clock.now().after(1);
                guard.begin()
            })
            .collect();
        assert_eq!(guard.session(&request(&names[0])), None);
        assert!(names[1..].iter().all(|name| guard.session(&request(name)).is_some()));
    }

    #[test]
    fn after_five_wrong_tokens_in_a_minute_even_the_right_one_is_not_looked_at() {
        let (clock, guard) = guard();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..WRONG_MAX {
            assert_eq!(guard.look("wrong", one), Verdict::Wrong);
        }
        assert_eq!(guard.look("correct horse battery", one), Verdict::TooMany);
        assert_eq!(guard.look("correct horse battery", other), Verdict::Right);
        *lock(&clock.0) = clock.now().after(WRONG_SECONDS);
        assert_eq!(guard.look("correct horse battery", one), Verdict::Right);
        for number in 0..WRONG_MAX_ALL {
            let peer = IpAddr::from([10, 0, (number >> 8) as u8, number as u8]);
            assert_eq!(guard.look("wrong", peer), Verdict::Wrong);
        }
        assert_eq!(guard.look("correct horse battery", other), Verdict::TooMany);
    }

    #[test]
    fn without_a_token_none_is_right() {
        let guard = Guard::new(None, Arc::new(crate::model::SystemClock), Arc::new(SystemEntropy));
        assert_eq!(guard.look("", "127.0.0.1".parse().unwrap()), Verdict::Wrong);
    }

    #[test]
    fn a_post_of_another_site_is_known() {
        let told = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            is_same_origin(&headers)
        };
        assert!(told(&[("host", "backup.example:8321"), ("origin", "https://backup.example:8321")]));
        assert!(!told(&[("host", "backup.example:8321"), ("origin", "https://evil.example")]));
        assert!(!told(&[("host", "backup.example"), ("origin", "null")]));
        assert!(!told(&[("sec-fetch-site", "cross-site"), ("host", "a"), ("origin", "http://a")]));
        assert!(!told(&[("sec-fetch-site", "same-site")]));
        assert!(told(&[("sec-fetch-site", "same-origin")]));
    }
}
