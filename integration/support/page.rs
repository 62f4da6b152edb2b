//! A page, asked over HTTP as a browser, a script or a scraper asks.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

/// Time for an answer, and for each next part of a stream of events: a page that waits for a store which is away has 60 s itself.
const ANSWER_TIME: Duration = Duration::from_secs(75);

/// What is served at a port of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    port: u16,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The lines of the head.
    pub head: String,
    pub body: String,
}

impl Page {
    pub fn at(port: u16) -> Page {
        Page { port }
    }

    pub fn port(self) -> u16 {
        self.port
    }

    fn connect(self, request: &str) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(ANSWER_TIME)).unwrap();
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    }

    /// The answer to a request; none where nobody answers, or no more than a part of it came.
    pub fn send(self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answer> {
        let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: localhost\r\n" };
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let mut stream = self.connect(&format!(
            "{method} {path} HTTP/1.1\r\n{host}{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, head: head.to_owned(), body: body.to_owned() })
    }

    /// What is answered at `path`, if anything is.
    pub fn try_get(self, path: &str) -> Option<Answer> {
        self.send("GET", path, &[], "")
    }

    /// What is answered at `path`.
    #[track_caller]
    pub fn get(self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|| panic!("nobody answers at {path}"))
    }

    /// The JSON at `path` of the API, if that is answered with 200.
    pub fn try_json(self, path: &str) -> Option<Value> {
        let answer = self.try_get(&format!("/api/v1{path}")).filter(|answer| answer.status == 200)?;
        Some(serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body)))
    }

    /// The JSON at `path` of the API.
    #[track_caller]
    pub fn json(self, path: &str) -> Value {
        self.try_json(path).unwrap_or_else(|| panic!("{path}: {:?}", self.try_get(&format!("/api/v1{path}"))))
    }

    /// Has the agent begin a run, and gives what it answers.
    pub fn begin(self, job: &str, token: Option<&str>) -> Answer {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let authorization = bearer.iter().map(|bearer| ("Authorization", bearer.as_str()));
        let headers: Vec<_> = [("Content-Type", "application/json")].into_iter().chain(authorization).collect();
        let answer = self.send("POST", "/api/v1/runs", &headers, &format!("{{\"job\": \"{job}\"}}"));
        answer.unwrap_or_else(|| panic!("nobody answers"))
    }

    /// The value of a metric, by its name and labels as they stand there.
    pub fn metric(self, name: &str) -> Option<f64> {
        let text = self.try_get("/metrics")?.body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The stream of events.
    pub fn events(self) -> Events {
        let request = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let stream = self.connect(request).unwrap_or_else(|| panic!("nobody answers"));
        Events { lines: BufReader::new(stream) }
    }
}

/// A stream of events, which stays open.
#[derive(Debug)]
pub struct Events {
    lines: BufReader<TcpStream>,
}

impl Events {
    /// Waits for the next event and gives its name; none when the stream has ended.
    pub fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("an event in time") == 0 {
                return None;
            }
            if let Some(name) = line.trim_end().strip_prefix("event: ") {
                return Some(name.to_owned());
            }
        }
    }
}
