//! Takes connections, and bounds what each may cost: how many there are, how long a head may take to come and how long it may be, how long
//! one lasts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower_service::Service;

/// Connections at the same time: a browser has six, a scraper one.
const CONNECTIONS_MAX: usize = 256;
/// Time in which the head of a request must have come, and for which an idle connection is kept.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Time after which a connection ends, whatever it does: a reader that takes a byte a minute must not keep one for ever. A stream of events
/// is begun anew by the browser.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(600);
/// Time that requests have to end when the service stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after a connection could not be taken, as when no more files may be opened.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Address of the other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub SocketAddr);

/// Serves until `stop` turns true, and then until what is under way has ended.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let taken = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            taken = taken => taken,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, peer, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("no connection could be taken: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// Ends when the service is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Nobody is left who could say so.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, mut stop: watch::Receiver<bool>) {
    // Small answers go at once.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(Named { router, peer });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(false);
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let told = tokio::select! {
        told = served.as_mut() => told,
        () = tokio::time::sleep(CONNECTION_TIME_MAX) => return,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = told {
        // A client that sends nonsense or goes away is no event.
        tracing::debug!("connection of {peer}: {error}");
    }
}

/// Puts the other end's address into each request.
#[derive(Clone)]
struct Named {
    router: Router,
    peer: SocketAddr,
}

impl Service<Request<hyper::body::Incoming>> for Named {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<hyper::body::Incoming>>>::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        Service::<Request<hyper::body::Incoming>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<hyper::body::Incoming>) -> Self::Future {
        request.extensions_mut().insert(Peer(self.peer));
        self.router.call(request)
    }
}
