//! Over real connections: what a router alone does not see.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::serve;
use super::*;

/// Longest time that a test waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

struct Up {
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn up() -> Up {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(serve(listener, served(Some(TOKEN)).await.router, stopped));
    Up { address, stop, task }
}

impl Up {
    /// Sends bytes, and reads until the other end closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The other end may have closed before it has all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn heads_that_are_too_long_too_many_or_nonsense_are_refused() {
    let up = up().await;
    let good = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    assert!(up.say(format!("{good}\r\n").as_bytes()).await.ends_with("ok\n"));
    let long = up.say(format!("{good}x: {}\r\n\r\n", "y".repeat(64 << 10)).as_bytes()).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    let many: String = (0..100).map(|number| format!("x{number}: y\r\n")).collect();
    assert!(up.say(format!("{good}{many}\r\n").as_bytes()).await.starts_with("HTTP/1.1 431"));
    for nonsense in ["\x16\x03\x01", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = up.say(format!("{nonsense}\r\n\r\n").as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert!(up.say(format!("{good}\r\n").as_bytes()).await.ends_with("ok\n"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_drips_is_hung_up_on() {
    let up = up().await;
    for begin in ["", "GET / HTTP/1.1\r\nhost: loc"] {
        let began = tokio::time::Instant::now();
        let answer = up.say(begin.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(began.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn it_stops_when_told_to_though_a_page_is_open() {
    let up = up().await;
    let mut open = TcpStream::connect(up.address).await.unwrap();
    open.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut begin = [0; 15];
    open.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    up.stop.send(true).unwrap();
    tokio::time::timeout(PATIENCE, up.task).await.expect("it goes on").unwrap();
}

/// Numbers that are the same at each run of a seed: SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// A request that nobody sane sends.
    fn request(&mut self) -> Vec<u8> {
        const METHODS: [&str; 8] = ["GET", "POST", "PUT", "OPTIONS", "HEAD", "TRACE", "CONNECT", "G\0T"];
        const PATHS: [&str; 20] = [
            "/",
            "/servers/eu~1db1",
            "/servers/%2e%2e%2f%2e%2e",
            "/servers/~2~",
            "/servers/eu~1db1/backups/latest",
            "/servers/eu~1db1/backups/20261122T020000Z-aaaaaa?tables=show",
            "/runs",
            "/login",
            "/logout",
            "/events?x",
            "//",
            "/../../etc/passwd",
            "/%",
            "/%ff%fe",
            "*",
            "http://evil.example/",
            "/api/v1/fleet?page=-1&sort=%00",
            "/api/v1/runs",
            "/assets/../web/mod.rs",
            "/?q=%F0%28%8C%28&standing='--",
        ];
        const HEADERS: [&str; 14] = [
            "host: localhost",
            "host: evil.example",
            "host: ",
            "cookie: haulout_session=%00; haulout_session",
            "content-length: 5",
            "content-length: 99999999999999999999",
            "transfer-encoding: chunked",
            "content-type: application/json",
            "content-type: application/x-www-form-urlencoded",
            "authorization: Bearer \u{1F511}",
            "expect: 100-continue",
            "origin: null",
            "range: bytes=0-0,1-",
            "x: \tfolded\r\n y",
        ];
        let mut request = format!("{} {} HTTP/1.{}\r\n", self.of(&METHODS), self.of(&PATHS), self.below(3));
        for _ in 0..self.below(7) {
            request += self.of(&HEADERS);
            request += "\r\n";
        }
        request +=
            self.of(&["\r\n", "\r\n5\r\nabcde\r\n0\r\n\r\n", "\r\ntoken=x&csrf=y&job=drill", "\r\n{\"job\":1}", ""]);
        let mut bytes = request.into_bytes();
        for _ in 0..self.below(4) {
            let (at, byte) = (self.below(bytes.len()), self.below(256) as u8);
            match self.below(3) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at + 1),
            }
        }
        bytes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_bad_requests_leave_it_as_it_was() {
    const SEEDS: u64 = 20;
    const REQUESTS: usize = 500;
    let up = up().await;
    let address = up.address;
    let mut clients = tokio::task::JoinSet::new();
    for seed in 0..SEEDS {
        clients.spawn(async move {
            let mut dice = Dice(seed);
            for number in 0..REQUESTS {
                let request = dice.request();
                let mut stream = TcpStream::connect(address).await.unwrap();
                let _ = stream.write_all(&request).await;
                // Some hang up at once; of the others nothing more comes.
                if dice.below(4) > 0 {
                    let _ = stream.shutdown().await;
                    let mut answer = [0; 12];
                    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await;
                    let read =
                        read.unwrap_or_else(|_| panic!("seed {seed}, request {number} is not answered: {request:?}"));
                    let failed = answer[..read.unwrap_or(0)].starts_with(b"HTTP/1.1 500");
                    assert!(!failed, "seed {seed}, request {number}: {request:?}");
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let good = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(up.say(good.as_bytes()).await.ends_with("ok\n"));
    up.stop.send(true).unwrap();
    tokio::time::timeout(PATIENCE, up.task).await.expect("it goes on").unwrap();
}
