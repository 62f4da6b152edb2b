//! A network path that fails when told to: a TCP proxy in front of a store.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// How long a read waits before it looks for a new fault.
const LOOK: Duration = Duration::from_millis(20);

/// What the path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// All passes.
    None,
    /// Connections are cut, new ones at once: the store is down.
    Down,
    /// All passes until so many bytes went to the store, then the store is [`Fault::Down`].
    DownAfter(u64),
    /// Each connection is cut when so many bytes of it went to the store; new ones are taken.
    CutAfter(u64),
    /// Each connection is cut when so many bytes of it came back: the store did it, its answer is lost or cut short.
    CutAnswerAfter(u64),
    /// Connections are taken and stay open, and nothing passes.
    Stall,
    /// So many bytes a second go to the store, over all connections; what comes back is not held up.
    Slow(u64),
}

/// The path. Cut when dropped.
#[derive(Debug)]
pub struct FaultyPath {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    /// Bytes towards the store since the fault was set.
    sent: u64,
    connections: u64,
    /// When the line is free again that is [`Fault::Slow`].
    free: Instant,
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToStore,
    Back,
}

impl FaultyPath {
    /// Opens a path to `target`, a host and port.
    pub fn to(target: &str) -> FaultyPath {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { fault: Fault::None, sent: 0, connections: 0, free: Instant::now(), ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (path, target) = (Arc::clone(&shared), target.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if path.lock().ended {
                    break;
                }
                path.connect(client, &target);
            }
        });
        FaultyPath { address, shared }
    }

    /// URL of the path's near end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the path does this; open connections too.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.lock();
        state.fault = fault;
        state.sent = 0;
        self.shared.changed.notify_all();
    }

    /// What the path does now: [`Fault::DownAfter`] becomes [`Fault::Down`].
    pub fn fault(&self) -> Fault {
        self.shared.lock().fault
    }

    /// Bytes towards the store since the fault was set.
    pub fn sent(&self) -> u64 {
        self.shared.lock().sent
    }

    /// Connections that came, those that were cut at once too.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }
}

impl Drop for FaultyPath {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        // Wakes the listener, which then sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn connect(self: &Arc<Shared>, client: TcpStream, target: &str) {
        let mut state = self.lock();
        state.connections += 1;
        if state.fault == Fault::Down {
            return;
        }
        drop(state);
        let Ok(store) = TcpStream::connect(target) else { return };
        for stream in [&client, &store] {
            stream.set_read_timeout(Some(LOOK)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        let (client_too, store_too) = (client.try_clone().unwrap(), store.try_clone().unwrap());
        let (to, back) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || to.pump(client, store, Direction::ToStore));
        thread::spawn(move || back.pump(store_too, client_too, Direction::Back));
    }

    fn pump(&self, mut from: TcpStream, mut into: TcpStream, direction: Direction) {
        let mut buffer = [0; 16 * 1024];
        let mut passed = 0;
        while let Some(allowed) = self.allowed(direction, passed) {
            let most = buffer.len().min(usize::try_from(allowed).unwrap_or(usize::MAX));
            let length = match from.read(&mut buffer[..most]) {
                Ok(0) => {
                    // One side has said all; the other may still have something to say.
                    let _ = into.shutdown(Shutdown::Write);
                    return;
                }
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            // A fault that was set while the read waited holds for what it read.
            if self.allowed(direction, passed).is_none() || into.write_all(&buffer[..length]).is_err() {
                break;
            }
            passed += length as u64;
            if direction == Direction::ToStore {
                self.count(length as u64);
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = into.shutdown(Shutdown::Both);
    }

    /// Bytes that may pass next, more than none, on a connection that let `passed` pass; none when it is to be cut.
    fn allowed(&self, direction: Direction, passed: u64) -> Option<u64> {
        let stalled = |state: &mut State| state.fault == Fault::Stall && !state.ended;
        let state = self.changed.wait_while(self.lock(), stalled).unwrap();
        let left = match (state.fault, direction) {
            _ if state.ended => 0,
            (Fault::Down, _) => 0,
            (Fault::DownAfter(bytes), Direction::ToStore) => bytes.saturating_sub(state.sent),
            (Fault::CutAfter(bytes), Direction::ToStore) => bytes.saturating_sub(passed),
            (Fault::CutAnswerAfter(bytes), Direction::Back) => bytes.saturating_sub(passed),
            _ => u64::MAX,
        };
        (left > 0).then_some(left)
    }

    fn count(&self, bytes: u64) {
        let mut state = self.lock();
        state.sent += bytes;
        match state.fault {
            Fault::DownAfter(most) if state.sent >= most => state.fault = Fault::Down,
            Fault::Slow(bytes_per_second) => {
                let own = state.free.max(Instant::now()) + Duration::from_secs(bytes) / bytes_per_second as u32;
                state.free = own;
                let is_taken = |state: &mut State| matches!(state.fault, Fault::Slow(_)) && !state.ended;
                drop(self.changed.wait_timeout_while(state, own.saturating_duration_since(Instant::now()), is_taken));
            }
            _ => {}
        }
    }
}
