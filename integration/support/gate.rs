//! A gate before a store: it knows each request by what it is for, and holds everything up at one that a test chose.
//!
//! It speaks plain HTTP/1.1, as LocalStack does on loopback, and takes in each request and each answer as a whole before it
//! hands them on. So a run can be killed when a request was made and nobody has seen it yet, and when the store has done it and
//! the run does not know.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

/// Longest head of a request or answer.
const HEAD_BYTES_MAX: u64 = 64 << 10;
/// Longest body: packs are shorter.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Where a run is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The request was made and has not reached the store.
    Asked,
    /// The store has done it, and its answer has not come back.
    Answered,
}

/// The gate. Cut when dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The repository's prefix in its bucket, as `db1`.
    prefix: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    trap: Option<Trap>,
    /// Nothing passes.
    held: bool,
    /// Connections of an earlier generation are cut.
    generation: u64,
    /// What was asked for since the trap was set.
    trace: Vec<String>,
    /// What packs hold, by key.
    packs: HashMap<String, &'static str>,
    ended: bool,
}

#[derive(Debug)]
struct Trap {
    what: String,
    /// How many such requests are still to come, this one included.
    left: usize,
    side: Side,
}

impl Gate {
    /// Opens a gate to `target`, a host and port, for the repository under `prefix` of a bucket.
    pub fn to(target: &str, prefix: &str) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { prefix: prefix.to_owned(), state, changed: Condvar::new() });
        let (gate, target) = (Arc::clone(&shared), target.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (gate, target) = (Arc::clone(&gate), target.clone());
                let State { ended, generation, .. } = *gate.lock();
                if ended {
                    break;
                }
                // A connection that breaks is the run's to deal with.
                thread::spawn(move || drop(gate.serve(client, &target, generation)));
            }
        });
        Gate { address, shared }
    }

    /// URL of the gate.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds everything up at request number `number` from now on that is named `what`, such as `PUT manifest`.
    pub fn hold_at(&self, what: &str, number: usize, side: Side) {
        let mut state = self.shared.lock();
        state.trap = Some(Trap { what: what.to_owned(), left: number, side });
        state.trace.clear();
    }

    /// True when that request has come, and everything stands still.
    pub fn is_reached(&self) -> bool {
        self.shared.lock().held
    }

    /// Lets new connections through again, and cuts all that were open.
    pub fn release(&self) {
        let mut state = self.shared.lock();
        (state.held, state.trap) = (false, None);
        state.generation += 1;
        self.shared.changed.notify_all();
    }

    /// What was asked for since [`Gate::hold_at`].
    pub fn trace(&self) -> Vec<String> {
        self.shared.lock().trace.clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.release();
        // Wakes the listener, which then sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, client: TcpStream, target: &str, generation: u64) -> io::Result<()> {
        client.set_nodelay(true)?;
        let (mut requests, mut answers) = (BufReader::new(client.try_clone()?), client);
        while let Some(request) = Message::read(&mut requests, true)? {
            let what = self.name(&request);
            if !self.passes(&what, Side::Asked, generation) {
                break;
            }
            let mut store = TcpStream::connect(target)?;
            store.set_nodelay(true)?;
            store.write_all(&request.bytes)?;
            let mut store = BufReader::new(store);
            let has_body = !request.line().starts_with("HEAD ");
            let answer = Message::read(&mut store, has_body)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if !self.passes(&what, Side::Answered, generation) {
                break;
            }
            answers.write_all(&answer.bytes)?;
        }
        Ok(())
    }

    /// Waits while everything stands still, and stops everything where that is wanted; false when the connection is to be cut.
    fn passes(&self, what: &str, side: Side, generation: u64) -> bool {
        let mut state = self.lock();
        if side == Side::Asked {
            state.trace.push(what.to_owned());
        }
        let trap = state.trap.as_mut().filter(|trap| trap.what == what && trap.side == side);
        if let Some(trap) = trap {
            trap.left -= 1;
            if trap.left == 0 {
                (state.held, state.trap) = (true, None);
            }
        }
        let state = self.changed.wait_while(state, |state| state.held && !state.ended).unwrap();
        state.generation == generation && !state.ended
    }

    /// What a request is for: its method, LIST for a listing, and the sort of object.
    fn name(&self, request: &Message) -> String {
        let mut words = request.line().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let listed = query.split('&').find_map(|part| part.strip_prefix("prefix="));
        if let Some(listed) = listed {
            let listed = listed.replace("%2F", "/");
            return format!("LIST {}", listed.strip_prefix(&self.prefix).unwrap_or(&listed).trim_matches('/'));
        }
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        let key = key.strip_prefix(&self.prefix).unwrap_or(key).trim_start_matches('/');
        format!("{method} {}", self.sort(key, request.body()))
    }

    /// The sort of the object under `key`; what a pack holds is seen when it is put.
    fn sort(&self, key: &str, body: &[u8]) -> String {
        let folder = key.split('/').next().unwrap_or_default();
        let sort = match folder {
            "packs" => {
                let mut state = self.lock();
                match body {
                    [b'H', b'A', b'U', b'L', b'P', b'A', b'C', b'K', _, kind, ..] => {
                        let kind = if *kind == 2 { "map pack" } else { "data pack" };
                        state.packs.insert(key.to_owned(), kind);
                        kind
                    }
                    _ => state.packs.get(key).copied().unwrap_or("pack"),
                }
            }
            // An id has one hyphen itself.
            "backups" if key.matches('-').count() > 1 => "edition",
            "backups" => "manifest",
            "leases" if key.ends_with("-done.json") => "end of lease",
            "leases" => "lease",
            "prune" if key.ends_with("-plan.json") => "plan",
            "prune" if key.ends_with("-begun.json") => "begin of plan",
            "prune" if key.ends_with("-done.json") => "end of plan",
            "prune" if key.contains("-packs-") => "packs of plan",
            _ => key,
        };
        sort.to_owned()
    }
}

/// A request or an answer, whole.
struct Message {
    bytes: Vec<u8>,
    head: usize,
}

impl Message {
    /// Reads one; nothing where the other side has said all. An answer to HEAD has no body, whatever its head says.
    fn read(from: &mut impl BufRead, has_body: bool) -> io::Result<Option<Message>> {
        let mut bytes = Vec::new();
        let mut limited = from.by_ref().take(HEAD_BYTES_MAX);
        while !bytes.ends_with(b"\r\n\r\n") {
            if limited.read_until(b'\n', &mut bytes)? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        let mut message = Message { head: bytes.len(), bytes };
        let length = message.header("content-length").and_then(|length| length.parse::<u64>().ok());
        let is_chunked = message.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        match (has_body, is_chunked, length) {
            (true, true, _) => message.read_chunks(from)?,
            (true, false, Some(length)) => message.read_more(from, length)?,
            _ => {}
        }
        Ok(Some(message))
    }

    fn read_more(&mut self, from: &mut impl BufRead, length: u64) -> io::Result<()> {
        if length > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let read = from.by_ref().take(length).read_to_end(&mut self.bytes)?;
        if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn read_chunks(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            from.by_ref().take(HEAD_BYTES_MAX).read_until(b'\n', &mut line)?;
            self.bytes.extend(&line);
            let size = String::from_utf8_lossy(&line);
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            // Each chunk, the empty one at the end too, ends with a line break; nobody here sends trailers.
            self.read_more(from, size + 2)?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    fn line(&self) -> &str {
        self.head().lines().next().unwrap_or_default()
    }

    fn head(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.head]).unwrap_or_default()
    }

    fn body(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    fn header(&self, name: &str) -> Option<&str> {
        let field = |line: &'_ str| line.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(name));
        let line = self.head().lines().skip(1).find(|line| field(line))?;
        Some(line.split_once(':')?.1.trim())
    }
}
