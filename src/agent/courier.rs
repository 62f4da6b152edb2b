//! Webhooks and the heartbeat: what is sent to others, by a task for each address, so that none waits for another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, redirect::Policy};
use tokio::sync::mpsc;
use url::Url;

/// Messages that wait for an address; more are left out, and counted.
const QUEUE_MAX: usize = 64;
/// Time for one attempt, from the first byte to the answer.
const ATTEMPT_TIME: Duration = Duration::from_secs(10);
/// Attempts for one message: with their pauses some two minutes.
const ATTEMPTS: u32 = 6;
/// Pause before the second attempt; it doubles each time.
const PAUSE: Duration = Duration::from_secs(2);

/// Counts of what was sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Messages that arrived.
    pub delivered: AtomicU64,
    /// Messages that were given up, or for which there was no room.
    pub failed: AtomicU64,
}

/// An address to which messages go.
#[derive(Debug)]
pub struct Courier {
    queue: mpsc::Sender<Arc<Vec<u8>>>,
    sent: Arc<Sent>,
    task: tokio::task::JoinHandle<()>,
}

impl Courier {
    /// One that sends to `url`: JSON, or a bare GET where `body` is false.
    pub fn to(client: &Client, url: Url, body: bool, pause: Option<Duration>, sent: &Arc<Sent>) -> Courier {
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let work = deliver(client.clone(), url, body, pause.unwrap_or(PAUSE), messages, Arc::clone(sent));
        Courier { queue, sent: Arc::clone(sent), task: tokio::spawn(work) }
    }

    /// Sends `message` as soon as those before it are; never waits.
    pub fn send(&self, message: &Arc<Vec<u8>>) {
        if self.queue.try_send(Arc::clone(message)).is_err() {
            self.sent.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is sent that waits, or given up.
    pub async fn finish(self) {
        drop(self.queue);
        // It never panics; and if it did, nothing is to be sent any more.
        let _ = self.task.await;
    }
}

/// A client that follows nobody elsewhere: what it sends is for the address that was named.
///
/// # Errors
/// When the system's authorities cannot be read.
pub fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .timeout(ATTEMPT_TIME)
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .user_agent(concat!("haulout/", env!("CARGO_PKG_VERSION")))
        .build()
}

async fn deliver(
    client: Client,
    url: Url,
    body: bool,
    pause: Duration,
    mut messages: mpsc::Receiver<Arc<Vec<u8>>>,
    sent: Arc<Sent>,
) {
    while let Some(message) = messages.recv().await {
        let arrived = arrives(&client, &url, body, pause, &message).await;
        let count = if arrived { &sent.delivered } else { &sent.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends `message`, again where that fails; false when it was given up.
async fn arrives(client: &Client, url: &Url, body: bool, mut pause: Duration, message: &[u8]) -> bool {
    for attempt in 1..=ATTEMPTS {
        let request = if body {
            client.post(url.clone()).header("content-type", "application/json").body(message.to_vec())
        } else {
            client.get(url.clone())
        };
        match request.send().await {
            Ok(answer) if answer.status().is_success() => return true,
            // It was understood, and will be refused again.
            Ok(answer) if answer.status().is_client_error() && ![408, 425, 429].contains(&answer.status().as_u16()) => {
                tracing::warn!(host = url.host_str(), status = answer.status().as_u16(), "webhook refused");
                return false;
            }
            Ok(answer) => {
                tracing::debug!(host = url.host_str(), status = answer.status().as_u16(), attempt, "webhook failed");
            }
            // Its text would have the URL, which can hold a secret.
            Err(error) => {
                let cause = error.without_url();
                tracing::debug!(host = url.host_str(), %cause, attempt, "webhook failed");
            }
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
    tracing::warn!(host = url.host_str(), "webhook given up after {ATTEMPTS} attempts");
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::any};
    use tokio::net::TcpListener;

    use super::*;

    type Heard = Arc<Mutex<Vec<String>>>;

    /// A listener that answers with these, then with 200.
    async fn listener(answers: &[u16]) -> (Url, Heard) {
        let heard = Heard::default();
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect::<Vec<_>>()));
        let answer = move |State(heard): State<Heard>, body: Bytes| {
            let answers = Arc::clone(&answers);
            async move {
                heard.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
                StatusCode::from_u16(answers.lock().unwrap().pop().unwrap_or(200)).unwrap()
            }
        };
        let router = Router::new().fallback(any(answer)).with_state(Arc::clone(&heard));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=secret", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, heard)
    }

    fn message(text: &str) -> Arc<Vec<u8>> {
        Arc::new(text.as_bytes().to_vec())
    }

    const SHORT: Option<Duration> = Some(Duration::from_millis(1));

    #[tokio::test]
    async fn a_message_is_sent_again_until_it_arrives_and_in_order() {
        let (url, heard) = listener(&[500, 503, 429]).await;
        let sent = Arc::new(Sent::default());
        let courier = Courier::to(&client().unwrap(), url, true, SHORT, &sent);
        courier.send(&message("one"));
        courier.send(&message("two"));
        courier.finish().await;
        assert_eq!(*heard.lock().unwrap(), ["one", "one", "one", "one", "two"]);
        assert_eq!((sent.delivered.load(Ordering::Relaxed), sent.failed.load(Ordering::Relaxed)), (2, 0));
    }

    #[tokio::test]
    async fn a_message_that_is_refused_or_never_arrives_is_given_up_and_counted() {
        let (url, heard) = listener(&[404, 500, 500, 500, 500, 500, 500]).await;
        let sent = Arc::new(Sent::default());
        let courier = Courier::to(&client().unwrap(), url, true, SHORT, &sent);
        for text in ["refused", "failed", "fine"] {
            courier.send(&message(text));
        }
        courier.finish().await;
        assert_eq!(heard.lock().unwrap().len(), 1 + ATTEMPTS as usize + 1);
        assert_eq!((sent.delivered.load(Ordering::Relaxed), sent.failed.load(Ordering::Relaxed)), (1, 2));
    }

    #[tokio::test]
    async fn an_address_that_hangs_holds_nobody_up_and_its_queue_is_bounded() {
        // Nobody accepts what connects there.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let sent = Arc::new(Sent::default());
        let courier = Courier::to(&client().unwrap(), url, true, SHORT, &sent);
        for _ in 0..10 * QUEUE_MAX {
            courier.send(&message("x"));
        }
        assert_eq!(sent.failed.load(Ordering::Relaxed) as usize, 9 * QUEUE_MAX);
    }
}
