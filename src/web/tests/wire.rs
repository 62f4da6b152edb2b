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
